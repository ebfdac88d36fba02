"""Encoders: waveforms in, 192-dimensional embeddings out. One family a file, one line here."""

from sasv.core.registry import Registry

ENCODERS = Registry(
    "encoder",
    {
        "ecapa-tdnn": "sasv.encoders.ecapa:EcapaTdnn",
        "ska-tdnn": "sasv.encoders.ska:SkaTdnn",
        "mfa-conformer": "sasv.encoders.mfa:MfaConformer",
    },
)

__all__ = ["ENCODERS"]

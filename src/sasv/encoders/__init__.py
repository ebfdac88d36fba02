"""Encoders compute speaker embeddings from waveforms. Each family is one file and one line here."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sasv.core.errors import SasvError
from sasv.core.registry import Registry

if TYPE_CHECKING:
    from sasv.encoders.base import Encoder

ENCODERS = Registry(
    "encoder",
    {
        "ecapa-tdnn": "sasv.encoders.ecapa:EcapaTdnn",
        "ska-tdnn": "sasv.encoders.ska:SkaTdnn",
        "mfa-conformer": "sasv.encoders.mfa:MfaConformer",
        "campplus": "sasv.encoders.campplus:Campplus",
        "resnet": "sasv.encoders.resnet:Resnet",
        "eres2netv2": "sasv.encoders.eres2net:Eres2netV2",
        "redimnet": "sasv.encoders.redimnet:Redimnet",
        "ecapa-wespeaker": "sasv.encoders.ecapa_wespeaker:EcapaWespeaker",
        "ecapa-speechbrain": "sasv.encoders.ecapa_speechbrain:EcapaSpeechBrain",
        "aasist": "sasv.encoders.aasist:Aasist",
        "wav2vec2": "sasv.encoders.wav2vec2:Wav2Vec2",
        "w2v-bert": "sasv.encoders.w2v_bert:W2vBert",
        "whisper": "sasv.encoders.whisper:Whisper",
    },
    group="sasv.encoders",
)


def make_encoder(
    name: str,
    options: Mapping[str, Any] | None = None,
    frontend: str = "",
    frontend_options: Mapping[str, Any] | None = None,
) -> "Encoder":
    """Make an encoder with its front-end.

    Args:
        name: registry name.
        options: options that differ from the published ones.
        frontend: registry name of the front-end; empty selects the front-end of the publication.
        frontend_options: options of the front-end that differ from its defaults or, if ``frontend``
            is empty, from those of the publication.

    Raises:
        SasvError: a name or option is unknown, a value is of the wrong type or out of range, or
            values contradict each other.
    """
    from sasv.core.part_options import parse_options
    from sasv.frontends import make_frontend

    kind: type[Encoder] = ENCODERS.get(name)
    parsed = parse_options(kind.Options, options or {}, f"encoder {name}")
    changed = dict(frontend_options or {})
    if not frontend:
        frontend = kind.default_frontend
        changed = {**kind.default_frontend_options, **changed}
    return kind(parsed, make_frontend(frontend, changed))


def preset(name: str, size: str) -> dict[str, Any]:
    """Return the options of a preset of the encoder ``name``: "published", "tiny", "test", or
    another preset that the encoder defines.

    Raises:
        SasvError: the encoder or the preset is unknown.
    """
    presets = ENCODERS.get(name).presets
    if size not in presets:
        raise SasvError(
            f"encoder {name} has no preset '{size}'; its presets are: {', '.join(presets)}"
        )
    return dict(presets[size])


__all__ = ["ENCODERS", "make_encoder", "preset"]

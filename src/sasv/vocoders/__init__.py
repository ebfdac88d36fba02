"""Vocoders, which analyse and resynthesise real speech to make spoofed copies, and codecs as
transmission conditions.

Each vocoder has one file, and one line here.
"""

from sasv.core.errors import SasvError
from sasv.core.registry import Registry
from sasv.vocoders.base import Vocoder

VOCODERS = Registry(
    "vocoder",
    {
        "griffin-lim": "sasv.vocoders.griffin_lim:GriffinLim",
        "source-filter": "sasv.vocoders.source_filter:SourceFilter",
        "world": "sasv.vocoders.world:World",
        "cargan": "sasv.vocoders.cargan:Cargan",
        "hifi-gan": "sasv.vocoders.hifi_gan:HifiGan",
        "hn-nsf": "sasv.vocoders.hn_nsf:HnNsf",
        "nsf-hifi-gan": "sasv.vocoders.nsf_hifi_gan:NsfHifiGan",
        "univnet": "sasv.vocoders.univnet:UnivNet",
        "bigvgan": "sasv.vocoders.bigvgan:BigVgan",
        "fargan": "sasv.vocoders.fargan:Fargan",
        "encodec": "sasv.vocoders.encodec:Encodec",
        "dac": "sasv.vocoders.dac:Dac",
        "mimi": "sasv.vocoders.mimi:Mimi",
        "resampled": "sasv.vocoders.transmission:Resampled",
        "8khz": "sasv.vocoders.transmission:Narrowband",
        "mulaw": "sasv.vocoders.transmission:MuLaw",
        "alaw": "sasv.vocoders.transmission:ALaw",
        "g722": "sasv.vocoders.transmission:G722",
        "amr": "sasv.vocoders.transmission:Amr",
        "opus": "sasv.vocoders.transmission:Opus",
        "mp3": "sasv.vocoders.transmission:Mp3",
    },
    group="sasv.vocoders",
)

ALWAYS = ("griffin-lim", "source-filter", "world")
"""The default vocoders, which need no weights."""


def make_vocoder(name: str, weights: str = "", device: str = "cpu") -> Vocoder:
    """Make a vocoder.

    Args:
        name: registry name.
        weights: file or folder with the weights, for vocoders that need them.
        device: cpu, or a GPU such as cuda:0, for vocoders with a network.

    Raises:
        SasvError: the vocoder is unknown, or its weights are missing or cannot be used.
        MissingExtra: a package that the vocoder needs is not installed.
    """
    kind: type[Vocoder] = VOCODERS.get(name)
    if kind.needs_weights and not weights:
        what = (kind.__doc__ or "").strip().splitlines()[0]
        raise SasvError(
            f"the vocoder {name} needs weights; give their path (--weights.{name} PATH): {what} "
            f"They come from {kind.source}; licence: {kind.licence}"
        )
    return kind(weights, device)


__all__ = ["ALWAYS", "VOCODERS", "Vocoder", "make_vocoder"]

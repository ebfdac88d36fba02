"""Layouts of weight files. Each has one file, and one line here. ``sasv`` is our own layout; the
others belong to other toolkits.

A file is read without unpickling (``sasv.checkpoints.containers``), wrappers are removed
(``sasv.checkpoints.wrappers``), and the first format here that recognises the entries reads them.
"""

from sasv.core.registry import Registry

FORMATS = Registry(
    "weight format",
    {
        "sasv": "sasv.checkpoints.formats.own:SasvFormat",
        "published": "sasv.checkpoints.formats.published:PublishedFormat",
        "wespeaker": "sasv.checkpoints.formats.wespeaker:WespeakerFormat",
        "wespeaker-w2vbert": "sasv.checkpoints.formats.wespeaker_w2vbert:WespeakerW2vBertFormat",
        "3dspeaker": "sasv.checkpoints.formats.threedspeaker:ThreeDSpeakerFormat",
        "speechbrain": "sasv.checkpoints.formats.speechbrain:SpeechBrainFormat",
        "redimnet": "sasv.checkpoints.formats.redimnet:RedimnetFormat",
        "aasist": "sasv.checkpoints.formats.aasist:AasistFormat",
        "transformers": "sasv.checkpoints.formats.backbone:BackboneFormat",
    },
    group="sasv.formats",
)

__all__ = ["FORMATS"]

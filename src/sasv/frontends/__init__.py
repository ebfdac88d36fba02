"""Front-ends compute features from waveforms; each front-end has one file, and one line here."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sasv.core.registry import Registry

if TYPE_CHECKING:
    from sasv.frontends.base import Frontend

FRONTENDS = Registry(
    "front-end",
    {
        "log-mel": "sasv.frontends.logmel:LogMel",
        "kaldi": "sasv.frontends.kaldi:KaldiFilterBanks",
        "speechbrain": "sasv.frontends.speechbrain:SpeechBrainFilterBanks",
        "whisper": "sasv.frontends.whisper:WhisperLogMel",
        "waveform": "sasv.frontends.waveform:Waveform",
    },
    group="sasv.frontends",
)


def make_frontend(name: str, options: Mapping[str, Any] | None = None) -> "Frontend":
    """Make the front-end called ``name``.

    Args:
        name: registry name.
        options: options that differ from the defaults.

    Raises:
        SasvError: the front-end or an option is unknown, or a value is of the wrong type or out of
            range.
    """
    from sasv.core.part_options import parse_options

    kind = FRONTENDS.get(name)
    frontend: Frontend = kind(parse_options(kind.Options, options or {}, f"front-end {name}"))
    return frontend


__all__ = ["FRONTENDS", "make_frontend"]

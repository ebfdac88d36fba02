"""Vocoders: real speech analysed and resynthesised, as spoofed copies. One vocoder a file, one line here."""

from sasv.core.registry import Registry

VOCODERS = Registry(
    "vocoder",
    {
        "griffin-lim": "sasv.vocoders.griffin_lim:GriffinLim",
        "source-filter": "sasv.vocoders.source_filter:SourceFilter",
        "world": "sasv.vocoders.world:World",
    },
)

__all__ = ["VOCODERS"]

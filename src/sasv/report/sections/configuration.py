"""The data and the settings of the measurements."""

from collections.abc import Sequence

from sasv.core.version import __version__
from sasv.report.page import Section, table_rows
from sasv.report.systems import System, counted


def configuration(systems: Sequence[System], repeats: int, resample: str, seed: int) -> Section:
    """Return what was measured, and how.

    Args:
        systems: in their order.
        repeats: bootstrap samples; 0 for none.
        resample: what was resampled, speakers or trials.
        seed: of the bootstrap.
    """
    rows = []
    for one in systems:
        claimed = len(set(one.scores.speakers[1]))
        rows.append([one.name, one.path, counted(one), f"{claimed:,} claimed speakers"])
    rows += [["cost model", model, "", ""] for model in systems[0].metrics["costs"].values()]
    how = f"{repeats:,} resamples of {resample}, seed {seed}" if repeats else "none"
    rows += [["intervals", how, "", ""], ["sasv", __version__, "", ""]]
    return Section("Configuration and data", "", ["", "", "", ""], table_rows(rows))

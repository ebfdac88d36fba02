"""The first minute of ``make demo``: verdicts by the model in the package."""

import pytest

from sasv.commands._first_minute import first_minute


@pytest.mark.slow
def test_the_first_minute_gives_four_verdicts(caplog):
    caplog.set_level("INFO", "sasv")
    found = first_minute("cpu")
    expected = ["accept", "reject_speaker", "reject_spoof", "inconclusive"]
    assert list(found.values()) == expected
    assert "no speech was found" in caplog.text

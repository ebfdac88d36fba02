"""The tables of an evaluation, and the columns by which its metrics can be grouped."""

import pytest

from sasv.core.errors import SasvError
from sasv.evaluation import check_groups, load_protocol


def test_unknown_groups_are_refused_before_the_evaluation(tmp_path):
    (tmp_path / "u.tsv").write_text(
        "utterance\tpath\tspeaker\tgender\na\ta.wav\tann\tf\nb\tb.wav\tann\tf\n"
    )
    (tmp_path / "e.tsv").write_text("speaker\tutterances\nann\ta\n")
    (tmp_path / "t.tsv").write_text("speaker\tutterance\tlabel\troom\nann\tb\ttarget\tbig\n")
    tables = [str(tmp_path / f"{name}.tsv") for name in "uet"]
    protocol = load_protocol(*tables)
    check_groups(protocol, ["attack", "gender", "room"])
    with pytest.raises(SasvError, match="--by codec: neither .* they have: attack, utterance"):
        check_groups(protocol, ["attack", "codec"])
    with pytest.raises(SasvError, match="--by room"):
        check_groups(load_protocol(tables[0]), ["room"])

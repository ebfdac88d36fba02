"""Files, tables, and folders are compared by content, regardless of their paths."""

import pytest

from sasv.tables import load_utterances
from sasv.tables.content import compare, content_of, listing_digest, rows_digest

ROWS = [
    ("a", "s1/a.wav", "s1", "-"),
    ("b", "s2/b.wav", "s2", "-"),
    ("c", "s2/c.wav", "s2", "world"),
]


@pytest.fixture
def table(tmp_path):
    """A function (name, roots of bona fide speech and of copies, rows) -> path of a table."""

    def write(name, speech="/data", copies="/copies/world", rows=ROWS):
        lines = ["utterance\tpath\tspeaker\tattack"]
        for utterance, path, speaker, attack in rows:
            root = speech if attack == "-" else copies
            lines.append("\t".join((utterance, f"{root}/{path}", speaker, attack)))
        (tmp_path / name).write_text("\n".join(lines) + "\n")
        return tmp_path / name

    return write


def test_the_rows_of_a_table_stay_the_same_on_another_disk(table):
    first = rows_digest(load_utterances(table("a.tsv")))
    assert first == rows_digest(load_utterances(table("b.tsv", "/other/disk", "/fast/c")))
    assert first == rows_digest(load_utterances(table("c.tsv", "relative", "/copies/world")))
    for rows in (
        ROWS[:2],
        ROWS[::-1],
        [*ROWS[:2], ("c", "s2/c.wav", "s1", "world")],
        [("a", "s1/x.wav", "s1", "-")],
    ):
        assert first != rows_digest(load_utterances(table("d.tsv", rows=rows)))


def test_files_are_compared_by_content(tmp_path, table, monkeypatch):
    path = table("a.tsv")
    kept = content_of(path)
    assert compare(kept, path) == "same"
    (tmp_path / "link.tsv").symlink_to(path)
    assert compare(kept, tmp_path / "link.tsv") == "same"
    monkeypatch.chdir(tmp_path)
    assert compare(kept, "a.tsv") == "same"
    assert compare(kept, table("moved.tsv", "/elsewhere")) == "moved"
    assert compare(kept, table("other.tsv", rows=ROWS[:2])) == "changed"
    assert compare(kept, "missing.tsv") == "changed"
    without_digest = {"path": kept["path"]}
    assert (
        compare(without_digest, "moved.tsv") == "moved"
        and compare(without_digest, "other.tsv") == "changed"
    )
    assert compare({"path": "/gone/x.tsv"}, "a.tsv") == "unknown"
    table("a.tsv", rows=ROWS[:2])
    assert compare(kept, path) == "changed"


def test_folders_are_compared_by_names_and_sizes(tmp_path):
    for name, text in (("a", "1"), ("b", "1"), ("c", "12")):
        (tmp_path / name / "s").mkdir(parents=True)
        (tmp_path / name / "s" / "x.wav").write_text(text)
    kept = content_of(tmp_path / "a")
    assert [compare(kept, tmp_path / name) for name in "abcd"] == [
        "same",
        "moved",
        "changed",
        "changed",
    ]
    assert compare({"path": kept["path"]}, tmp_path / "b") == "moved"
    assert compare({"path": "/gone"}, tmp_path / "b") == "unknown"
    before = listing_digest(tmp_path / "b")
    (tmp_path / "b" / ".x.12.part.wav").write_text("cut")
    (tmp_path / "b" / ".hidden").mkdir()
    assert listing_digest(tmp_path / "b") == before
    assert content_of(tmp_path / "none") is None

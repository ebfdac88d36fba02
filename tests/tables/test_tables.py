"""Tables: parsing, validation, joins, and sharing with DataLoader workers."""

import gzip
import multiprocessing
import os
import pickle
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sasv.batches.dataset import Paths
from sasv.core.errors import SasvError, TableError
from sasv.tables import (
    Enrolments,
    Scores,
    Table,
    Trials,
    Utterances,
    check_trials,
    drawn_impostors,
    load_scores,
    load_utterances,
    needed_utterances,
    save_scores,
)

UTTERANCES = (
    "utterance\tpath\tspeaker\tlabel\tattack\tseconds\n"
    "a\tx/a.wav\ts1\tbonafide\t-\t1.5\n"
    "b\t/y/b.wav\ts2\tspoof\tA01\t2\n"
)


def write(path, text):
    path.write_bytes(text.encode())
    return path


def test_utterances(tmp_path):
    table = load_utterances(write(tmp_path / "u.tsv", UTTERANCES))
    assert table.ids == ["a", "b"]
    assert [table.path(row) for row in (0, 1)] == [str(tmp_path / "x/a.wav"), "/y/b.wav"]
    assert table.spoofed.tolist() == [False, True]
    assert table.seconds.tolist() == [1.5, 2.0]
    assert table.where("speaker=s2").ids == ["b"]
    assert table.where("speaker=s2,s1").ids == ["a", "b"]
    with pytest.raises(TableError, match="no row has speaker=s9; the values of speaker are: s1"):
        table.where("speaker=s9")
    with pytest.raises(TableError, match="column split is missing"):
        table.where("split=train")


CHANGES = [
    lambda text: text.replace("\n", "\r\n"),
    lambda text: text.rstrip("\n"),
    lambda text: "\ufeff" + text,
    lambda text: text.replace("\na", "\n\n\na"),
]


@pytest.mark.parametrize("change", CHANGES)
def test_line_ends_and_blank_lines(tmp_path, change):
    table = load_utterances(write(tmp_path / "u.tsv", change(UTTERANCES)))
    assert table.ids == ["a", "b"]
    assert table.seconds.tolist() == [1.5, 2.0]


def test_invalid_row_that_is_not_utf8_is_reported_without_warnings(tmp_path, capfd):
    path = tmp_path / "u.tsv"
    path.write_bytes(UTTERANCES.replace("\nb\t", "\nb\t\xe9\t").encode("latin-1"))
    with pytest.raises(TableError, match="line 3: the row has 7 cells, but the header has 6"):
        load_utterances(path)
    assert capfd.readouterr().err == ""


def test_table_with_carriage_return_line_ends(tmp_path):
    table = load_utterances(write(tmp_path / "u.tsv", UTTERANCES.replace("\n", "\r")))
    assert table.ids == ["a", "b"]
    assert table.seconds.tolist() == [1.5, 2.0]


def test_invalid_row_after_blank_lines_is_reported_with_its_line_number(tmp_path):
    text = UTTERANCES.replace("\nb\t", "\n\n\nb\t\t")
    with pytest.raises(TableError, match="line 5: the row has 7 cells, but the header has 6"):
        load_utterances(write(tmp_path / "u.tsv", text))


def test_other_encodings_are_named(tmp_path):
    (tmp_path / "wide.tsv").write_bytes(UTTERANCES.encode("utf-16"))
    with pytest.raises(TableError, match="UTF-16 text; save it as UTF-8"):
        load_utterances(tmp_path / "wide.tsv")
    (tmp_path / "packed.tsv").write_bytes(gzip.compress(UTTERANCES.encode()))
    with pytest.raises(TableError, match=r"compressed by gzip; give the file the suffix \.gz"):
        load_utterances(tmp_path / "packed.tsv")


def test_a_path_may_hold_any_bytes(tmp_path):
    (tmp_path / "u.tsv").write_bytes(UTTERANCES.encode().replace(b"/y/b.wav", b"/y/caf\xe9.wav"))
    table = load_utterances(tmp_path / "u.tsv")
    assert os.fsencode(table.path(1)) == b"/y/caf\xe9.wav"
    assert [os.fsencode(path) for path in table.paths][1] == b"/y/caf\xe9.wav"
    table.save(tmp_path / "again.tsv")
    assert (tmp_path / "again.tsv").read_bytes() == (tmp_path / "u.tsv").read_bytes()


def test_a_table_saved_in_another_folder_names_the_same_files(tmp_path):
    table = load_utterances(write(tmp_path / "u.tsv", UTTERANCES))
    for folder in (tmp_path, tmp_path / "below", tmp_path / "below" / "further"):
        folder.mkdir(exist_ok=True)
        table.save(folder / "v.tsv")
        again = load_utterances(folder / "v.tsv")
        assert [os.path.normpath(path) for path in again.paths] == table.paths


def test_parquet_holds_the_same_table(tmp_path):
    table = load_utterances(write(tmp_path / "u.tsv", UTTERANCES))
    table.save(tmp_path / "u.parquet")
    again = load_utterances(tmp_path / "u.parquet")
    assert again.paths == table.paths
    assert again.seconds.tolist() == table.seconds.tolist()
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(TableError, match=r"broken\.parquet: not a Parquet table"):
        load_utterances(tmp_path / "broken.parquet")


@pytest.mark.parametrize("cell", ["a\tb", "a\nb", "a\rb"])
def test_a_cell_that_would_break_the_table_is_refused(cell):
    with pytest.raises(TableError, match="the path .* contains a tab or a line end"):
        Table.build({"utterance": ["u"], "path": [cell]})


def test_gzip(tmp_path):
    (tmp_path / "u.tsv.gz").write_bytes(gzip.compress(UTTERANCES.encode()))
    assert load_utterances(tmp_path / "u.tsv.gz").ids == ["a", "b"]
    (tmp_path / "cut.tsv.gz").write_bytes(gzip.compress(UTTERANCES.encode())[:40])
    with pytest.raises(SasvError, match="damaged gzip"):
        load_utterances(tmp_path / "cut.tsv.gz")


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "the file is empty"),
        ("utterance\tpath\na\tx\n", "column speaker is missing; the header has: utterance, path"),
        (
            UTTERANCES.replace("\nb\t", "\na\t"),
            "line 3: utterance 'a' appears twice .first in line 2",
        ),
        (
            UTTERANCES.replace("spoof", "fake"),
            "line 3: label 'fake' is unknown; use one of: bonafide, spoof",
        ),
        (UTTERANCES.replace("\t1.5", ""), "line 2: the row has 5 cells, but the header has 6"),
        (UTTERANCES.replace("\ts1", "\t"), "line 2: the speaker is empty"),
        ("utterance\tutterance\tpath\tspeaker\n", "appears twice in the header"),
    ],
)
def test_malformed_utterances(tmp_path, text, message):
    path = write(tmp_path / "u.tsv", text)
    with pytest.raises(TableError, match=message) as caught:
        load_utterances(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "cell, message", [("abc", "'abc' is not a number"), ("nan", "not a finite"), ("-1", "negative")]
)
def test_malformed_seconds(tmp_path, cell, message):
    with pytest.raises(TableError, match=f"line 2: seconds.*{message}"):
        _ = load_utterances(write(tmp_path / "u.tsv", UTTERANCES.replace("1.5", cell))).seconds


def test_missing_file_is_named(tmp_path):
    with pytest.raises(SasvError, match=r"nope\.tsv: no such file"):
        load_utterances(tmp_path / "nope.tsv")


def test_trials_join_and_unknown_names():
    enrolments = Enrolments(Table.build({"speaker": ["s1", "s2"], "utterances": ["a,b", "c"]}))
    trials = Trials(
        Table.build(
            {"speaker": ["s2", "s1"], "utterance": ["d", "c"], "label": ["spoof", "target"]}
        )
    )
    rows = check_trials(trials, enrolments, ["a", "b", "c", "d"])
    assert rows.enrolment.tolist() == [1, 0]
    assert rows.utterance.tolist() == [3, 2]
    assert trials.labels.tolist() == [2, 0]
    assert trials.counts() == {"target": 1, "nontarget": 0, "spoof": 1}
    stranger = Trials(Table.build({"speaker": ["s3"], "utterance": ["a"], "label": ["target"]}))
    with pytest.raises(TableError, match="speaker s3 is not in"):
        check_trials(stranger, enrolments, ["a", "b", "c", "d"])
    with pytest.raises(TableError, match="utterance d is not in"):
        check_trials(trials, enrolments, ["a", "b", "c"])
    with pytest.raises(TableError, match="label 'genuine' is unknown"):
        Trials(Table.build({"speaker": ["s"], "utterance": ["u"], "label": ["genuine"]}))


def test_contradictory_and_pointless_trials_are_found_before_anything_is_computed(caplog):
    def protocol(labels):
        rows = {"speaker": ["s1", "s2", "s1"], "utterance": ["b", "c", "b"], "label": labels}
        return Trials(Table.build(rows, "trials.tsv"))

    enrolments = Enrolments(Table.build({"speaker": ["s1", "s2"], "utterances": ["a,b", "a"]}))
    columns = {"utterance": ["a", "b", "c"], "path": ["a.wav", "b.wav", "c.wav"]}
    columns |= {"speaker": ["s1", "s1", "s2"], "label": ["bonafide"] * 3}
    utterances = Utterances(Table.build(columns))
    with pytest.raises(TableError, match="line 4: utterance 'b' appears twice .*line 2"):
        needed_utterances(utterances, enrolments, protocol(["target", "target", "nontarget"]))
    assert not caplog.messages
    needed_utterances(utterances, enrolments, protocol(["target"] * 3))
    (message,) = caplog.messages
    assert "trials.tsv, line 2: the test utterance is also an enrolment" in message
    assert "in 2 trials" in message
    for cell in ("a,,b", "a,"):
        with pytest.raises(TableError, match="line 2: .*comma without a name"):
            Enrolments(Table.build({"speaker": ["s1"], "utterances": [cell]}))


def test_scores_round_trip(tmp_path):
    columns = {
        "speaker": ["s", "s"],
        "utterance": ["u", "v"],
        "label": ["target", "spoof"],
        "attack": ["-", "A"],
    }
    trials = Trials(Table.build(columns))
    save_scores(tmp_path / "scores.tsv", trials, np.array([0.123456789, -1.0]))
    scores = load_scores(tmp_path / "scores.tsv")
    assert scores.values.tolist() == [0.123456789, -1.0]
    assert scores.attacks[1] == ["-", "A"]
    header = (tmp_path / "scores.tsv").read_text().splitlines()[0]
    assert header == "speaker\tutterance\tlabel\tattack\tscore"
    text = (tmp_path / "scores.tsv").read_text().replace("-1\n", "inf\n")
    with pytest.raises(TableError, match="line 3: score 'inf' is not a finite number"):
        _ = Scores(Table.parse(text.encode(), "s.tsv")).values


SEPARATORS = "\t\n\r\x00"
CELLS = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters=SEPARATORS), min_size=1, max_size=12
)


@given(st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=30))
@settings(max_examples=60, deadline=None)
def test_any_cells_survive(rows):
    table = Table.build({"one": [a for a, _ in rows], "two": [b for _, b in rows]})
    assert list(zip(table.texts("one"), table.texts("two"))) == rows
    codes, names = table.codes("two")
    assert [names[code] for code in codes] == [b for _, b in rows]
    assert names == list(dict.fromkeys(b for _, b in rows))


def many_utterances(rows):
    return Utterances(
        Table.build(
            {
                "utterance": [f"u{row}" for row in range(rows)],
                "path": [f"/data/speech/speaker{row % 97}/{row:08}.flac" for row in range(rows)],
                "speaker": [f"s{row % 97}" for row in range(rows)],
            }
        )
    )


def private_growth(connection, paths):
    """In a worker, read every path, and return how much memory is private to this process."""

    def dirty():
        with open("/proc/self/smaps_rollup") as stream:
            return sum(int(line.split()[1]) for line in stream if line.startswith("Private_Dirty"))

    before = dirty()
    total = sum(len(paths[row]) for row in range(len(paths.stops)))
    connection.send((dirty() - before, total))


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(multiprocessing, "get_context"), reason="needs processes")
def test_a_table_is_not_copied_into_workers():
    paths = Paths(many_utterances(100_000))
    size = paths.data.numel() // 1024  # KiB
    assert size > 3000
    assert len(ForkingPickler.dumps(paths)) < 5000  # a spawned worker maps the tensors
    ours, theirs = multiprocessing.Pipe()
    worker = multiprocessing.get_context("fork").Process(
        target=private_growth, args=(theirs, paths)
    )
    worker.start()
    grown, total = ours.recv()
    worker.join()
    assert total == paths.data.numel()
    assert grown < size // 2


def test_utterance_tables_pickle():
    table = many_utterances(10)
    assert pickle.loads(pickle.dumps(table)).ids == table.ids


@pytest.mark.parametrize("row", [b"a\t\xff\n", b"a\tb\rc\td\te\n", b"\xff\rx\n"])
def test_damaged_rows_are_reported_in_one_line(row):
    with pytest.raises(TableError, match="t.tsv") as caught:
        Table.parse(b"one\ttwo\tthree\n1\t2\t3\n" + row, "t.tsv")
    assert "\n" not in str(caught.value)


def test_impostors_are_drawn_from_all_others():
    """One draw for every command that makes trials of people."""
    recordings = {"c": ["c1"], "a": ["a1", "a2", "a3"], "b": ["b1", "b2"]}
    rng = np.random.default_rng(0)
    assert drawn_impostors(recordings, "b", 10, rng) == ["a1", "a2", "a3", "c1"]
    some = [drawn_impostors(recordings, "b", 2, np.random.default_rng(seed)) for seed in range(30)]
    assert {len(names) for names in some} == {2} and all(names == sorted(names) for names in some)
    assert {name for names in some for name in names} == {"a1", "a2", "a3", "c1"}

"""Score and key files of challenges and other toolkits, the metrics command on them, bad input, and
submissions.
"""

import gzip
import json
import re

import numpy as np
import pytest

from conftest import shared
from sasv import cli
from sasv.commands import MetricsOptions, SubmitOptions, metrics, submit
from sasv.core.errors import SasvError, TableError
from sasv.scores import read_scores

TRIALS = [
    ("s1", "u1", "target", "-"),
    ("s1", "u2", "nontarget", "-"),
    ("s2", "u3", "target", "-"),
    ("s2", "u4", "spoof", "A01"),
    ("s1", "u5", "spoof", "A02"),
]
VALUES = ("0.9", "0.1", "0.8", "0.3", "0.2")
OURS = "speaker\tutterance\tlabel\tattack\tscore\n" + "".join(
    f"{speaker}\t{utterance}\t{label}\t{attack}\t{value}\n"
    for (speaker, utterance, label, attack), value in zip(TRIALS, VALUES)
)


@pytest.fixture
def write(tmp_path):
    def make(name, text):
        path = tmp_path / name
        if name.endswith(".gz"):
            path.write_bytes(gzip.compress(text.encode()))
        else:
            path.write_bytes(text.encode())
        return str(path)

    return make


def lines(form, values=VALUES):
    """Return the rows of the trials in a format of s, u, l (label), a (attack), v (score), c (label
    of a countermeasure).
    """
    return "".join(
        form.format(
            s=speaker,
            u=utterance,
            l=label,
            a=attack,
            v=value,
            c="spoof" if label == "spoof" else "bonafide",
        )
        + "\n"
        for (speaker, utterance, label, attack), value in zip(TRIALS, values)
    )


KEY = lines("{s} {u} {l}")
SCORE_FILES = {
    "ours": (OURS, ""),
    "a-DCF package": (lines("{s} {u} {v} {l}"), ""),
    "ASVspoof 5 submission and key": (
        "spk\tfilename\tcm-score\tasv-score\tsasv-score\n" + lines("{s}\t{u}\t-\t-\t{v}"),
        "spk\tfilename\tcm-label\tasv-label\n" + lines("{s}\t{u}\t{c}\t{l}"),
    ),
    "ASVspoof 5 trial list": (lines("{s} {u} {v}"), lines("{s} {u} F {a} {l}")),
    "ASVspoof 2019 list": (lines("{s} {u} {v}"), lines("{s} {u} {a} {l}")),
    "scores by utterance": (lines("{u} {v}"), lines("{s} {u} {a} {l}")),
    "other order": ("".join(reversed(lines("{s} {u} {v}").splitlines(True))), lines("{s} {u} {l}")),
    "ASVspoof 2019, verification scores": (lines("{a} {l} {v}"), ""),
    "SASV fusion table": (
        "asv_score,cm_score,sasv_score,sasv_label\n"
        + lines("0,1,{v},{l}")
        .replace("nontarget", "2")
        .replace("target", "1")
        .replace("spoof", "0"),
        "",
    ),
    "SpeechBrain and a key": (lines("{s} {u} 1 {v}"), lines("{s} {u} {l}")),
    "quoted CSV": ('"Speaker","Utterance","Label","Score"\n' + lines('"{s}","{u}","{l}",{v}'), ""),
    "CSV without a header": (lines("{s},{u},{v},{l}"), ""),
    "semicolons": ("speaker;utterance;label;score\n" + lines("{s};{u};{l};{v}"), ""),
    "names and labels of others": (
        "ModelID\tSegmentID\tside\tLLR\tkey\n"
        + lines("{s}\t{u}\ta\t{v}\t{l}")
        .replace("nontarget", "Impostor")
        .replace("spoof", "Deepfake"),
        "",
    ),
    "NIST SRE and its key": (
        "modelid\tsegmentid\tside\tLLR\n" + lines("{s}\t{u}.sph\ta\t{v}"),
        "modelid\tsegmentid\tside\ttargettype\n".replace("targettype", "label")
        + lines("{s}\t{u}.sph\ta\t{l}"),
    ),
    "Kaldi": (lines("{v} {l}"), ""),
    "log of an ASVspoof 2021 baseline": (lines("Output, {u}, 0, {v}"), lines("{s} {u} {a} {l}")),
    "with audio suffixes": (lines("{s} {u}.wav {v} {l}"), ""),
}


@pytest.mark.parametrize("kind", SCORE_FILES)
@pytest.mark.parametrize("form", ["plain", "windows", "gzip"])
def test_every_known_file_gives_the_same_trials(kind, form, write):
    texts = [
        text.replace("\n", "\r\n") if form == "windows" else text for text in SCORE_FILES[kind]
    ]
    suffix = ".gz" if form == "gzip" else ""
    path, key = (
        write(f"{name}.txt{suffix}", text) if text else ""
        for name, text in zip(("scores", "key"), texts)
    )
    found = read_scores(path, key)
    wanted = sorted(zip(map(float, VALUES), (label for _, _, label, _ in TRIALS)))
    names = ("target", "nontarget", "spoof")
    assert sorted(zip(found.values.tolist(), (names[label] for label in found.labels))) == wanted
    result = metrics(MetricsOptions(path, key=key))
    assert result["sasv_eer"] == 0.0 and (
        result["targets"],
        result["nontargets"],
        result["spoofs"],
    ) == (2, 1, 2)


def test_a_countermeasure_file(write):
    cm = write("cm.txt", lines("{u} {a} {c} {v}"))
    result = metrics(MetricsOptions(cm))
    assert result["task"] == "cm" and result["cm_eer"] == pytest.approx(100 / 3, abs=17)
    assert list(result["groups"]["attack"]) == ["A01", "A02"]
    track_1 = write("score.tsv", "filename\tcm-score\n" + lines("{u}\t{v}"))
    key = write("key.tsv", "filename\tcm-label\n" + lines("{u}\t{c}"))
    assert metrics(MetricsOptions(track_1, key=key))["cm_eer"] == result["cm_eer"]
    protocol = write("protocol.txt", lines("{s} {u} F C01 1 2 AC1 {a} {c} -"))
    assert (
        metrics(MetricsOptions(track_1, key=protocol, by=["codec"]))["groups"]["codec"]["C01"][
            "spoofs"
        ]
        == 2
    )


def test_numbers_as_labels_need_a_stated_meaning(write):
    """The meaning of a number is never guessed from the numbers that occur."""
    rows = "u1 1 0.9\nu2 0 0.1\nu3 0 0.3\n"
    with pytest.raises(
        TableError,
        match="the labels are numbers .* give their meaning with --labels 0=spoof,1=bonafide",
    ):
        read_scores(write("cm.txt", rows))
    found = read_scores(write("cm.txt", rows), labels=["0=spoof", "1=bonafide"])
    assert (found.task, found.labels.tolist()) == ("cm", [0, 2, 2])
    table = "utterance\tlabel\tscore\nu1\t1\t0.9\nu2\t0\t0.1\n"
    with pytest.raises(TableError, match="the labels are numbers"):
        read_scores(write("table.tsv", table))
    assert read_scores(
        write("table.tsv", table), labels=["0=nontarget", "1=target"]
    ).labels.tolist() == [0, 1]
    fusion = "asv_score,cm_score,sasv_score,sasv_label\n0,0,3,1\n0,0,1,0\n"
    assert read_scores(write("fusion.csv", fusion)).labels.tolist() == [0, 2]
    with pytest.raises(TableError, match="write the meaning of a label as 0=spoof"):
        read_scores(write("cm.txt", rows), labels=["spoof=0"])


def test_speechbrain_scores_include_target_labels(write):
    found = read_scores(write("s.txt", "a/1.wav b/1.wav 1 0.7\na/1.wav c/1.wav 0 0.2\n"))
    assert found.labels.tolist() == [0, 1] and found.values.tolist() == [0.7, 0.2]


def test_columns_may_be_named(write):
    rows = "x 0.9 s1 u1 target 7\nx 0.1 s1 u2 spoof 7\n"
    with pytest.raises(TableError, match="unknown layout .* name the columns with --columns"):
        read_scores(write("odd.txt", rows))
    found = read_scores(
        write("odd.txt", rows), columns=["-", "score", "speaker", "utterance", "label", "-"]
    )
    assert found.values.tolist() == [0.9, 0.1] and found.labels.tolist() == [0, 2]


@pytest.mark.parametrize(
    "first, words", [("target", ("target", "nontarget")), ("spoof", ("spoof", "target"))]
)
def test_speaker_utterance_label_score_is_not_read_as_countermeasure_scores(write, first, words):
    order = [first] * 250 + list(words)
    rows = "".join(f"s{at % 5} u{at} {label} {at / 7}\n" for at, label in enumerate(order))
    found = read_scores(write("s.txt", rows))
    assert found.table.texts("utterance")[:2] == ["u0", "u1"]
    assert found.table.texts("speaker")[:2] == ["s0", "s1"]


@pytest.mark.parametrize(
    "header",
    [
        "claimed_id,file,class,llr",
        "modelid,segmentid,targettype,LLR",
        "Model,Segment,Target Type,Score",
        "enroll,test,Label,score,class",
    ],
)
def test_column_names_of_other_toolkits(write, header):
    more = ",x" if header.endswith("class") else ""
    text = f"{header}\ns1,u1,target,0.9{more}\ns1,u2,nontarget,0.1{more}\n"
    found = read_scores(write("s.csv", text))
    assert found.labels.tolist() == [0, 1] and found.table.texts("speaker") == ["s1", "s1"]


def test_named_columns_skip_a_header(write, caplog):
    caplog.set_level("INFO", "sasv")
    path = write("s.csv", "a,b,c\n0.9,target,u1\n0.1,spoof,u2\n")
    found = read_scores(path, columns=["score", "label", "utterance"])
    assert found.labels.tolist() == [0, 2] and "line 1 is treated as a header" in caplog.text


def test_broken_line_is_reported_with_its_number(write):
    rows = "s1 u1 target 0.9\ns1 u2 target 0.8\ns1 u3 nontarget high\ns1 u4 nontarget 0.1\n"
    with pytest.raises(TableError, match="line 3: differs in form from the lines around it"):
        read_scores(write("s.txt", rows))


@pytest.mark.parametrize("number", ["1_000", "\u0661"])
def test_numbers_are_written_plainly(write, number):
    text = f"speaker\tutterance\tlabel\tscore\ns\tu\ttarget\t{number}\n"
    with pytest.raises(TableError, match="line 2: score .* is not a number"):
        _ = read_scores(write("s.tsv", text)).values


KEY_2021 = {
    "LA": "LA_0 {u} alaw ita_tx {a} {c} notrim {p}\n",
    "DF": "LA_0 {u} nocodec asvspoof {a} {c} notrim {p} traditional_vocoder - - - -\n",
    "PA": "PA_0 {u} R2 M2 d2 r1 m1 s2 c2 {c} notrim {p}\n",
}


@pytest.mark.parametrize("task", KEY_2021)
def test_keys_of_asvspoof_2021_hold_several_subsets(task, write, caplog):
    caplog.set_level("INFO", "sasv")
    trials = [("u1", "bonafide", "eval"), ("u2", "spoof", "eval"), ("u3", "bonafide", "progress")]
    trials += [("u4", "spoof", "progress"), ("u5", "spoof", "hidden")]
    key = "".join(
        KEY_2021[task].format(
            u=name, a="bonafide" if label == "bonafide" else "A07", c=label, p=part
        )
        for name, label, part in trials
    )
    scores = write("score.txt", "u1 0.9\nu2 0.1\nu3 0.2\nu4 0.8\nu5 0.5\n")
    path = write("trial_metadata.txt", key)
    found = read_scores(scores, path)
    assert found.table.texts("utterance") == ["u1", "u2"]
    assert (
        "using the trials with subset=eval; the file also contains progress, hidden" in caplog.text
    )
    assert read_scores(scores, path, where="subset=progress,hidden").table.texts("utterance") == [
        "u3",
        "u4",
        "u5",
    ]


def test_in_the_wild_meta_file_can_be_the_key(write):
    key = write(
        "meta.csv", 'file,speaker,label\n0.wav,"Guinness, Alec",bona-fide\n1.wav,Alec,spoof\n'
    )
    found = read_scores(write("s.txt", "0.wav 0.9\n1.wav 0.1\n"), key)
    assert (found.task, found.labels.tolist()) == ("cm", [0, 2])


@pytest.mark.parametrize(
    "encoded, message", [(str.encode, "gzip; give"), (lambda text: text.encode("utf-16"), "UTF-16")]
)
def test_files_that_are_not_utf8_text_are_identified_in_the_error(tmp_path, encoded, message):
    path = tmp_path / "scores.txt"
    data = encoded("s1 u1 target 0.9\n")
    path.write_bytes(gzip.compress(data) if "gzip" in message else data)
    with pytest.raises(SasvError, match=message):
        read_scores(path)


def test_voxceleb_lists(write):
    key = write("veri_test2.txt", "1 a/1.wav b/1.wav\n0 a/1.wav c/1.wav\n")
    found = read_scores(write("s.txt", "a/1.wav b/1.wav 0.7\na/1.wav c/1.wav 0.2\n"), key)
    assert found.labels.tolist() == [0, 1] and found.values.tolist() == [0.7, 0.2]


def test_a_tandem_of_two_files(write):
    key = write("key.txt", lines("{s} {u} {a} {l}"))
    asv = write("asv.txt", lines("{s} {u} {v}", ("2", "-1", "3", "1", "0")))
    cm = write("cm.txt", lines("{u} {v}", ("1", "1.5", "2", "-1", "0")))
    result = metrics(MetricsOptions(asv, key=key, cm=cm))
    assert result["t_eer"] is not None and result["min_t_dcf"] is not None
    assert result["min_t_dcf_legacy"] is not None


@pytest.mark.parametrize(
    "name, text, key, message",
    [
        ("nan", OURS.replace("0.9", "nan"), "", "finite"),
        ("infinite", OURS.replace("0.9", "-inf"), "", "finite"),
        ("word", OURS.replace("0.9", "high"), "", "line 2"),
        (
            "no targets",
            lines("{s} {u} {v} {l}").replace(" target", " nontarget"),
            "",
            "no target trials",
        ),
        (
            "header missing",
            "".join(OURS.splitlines(True)[1:]),
            "",
            "unknown layout .*add a header line",
        ),
        ("empty", "", "", "empty"),
        ("no rows", OURS.splitlines(True)[0], "", "no trials"),
        ("twice", OURS + "s1\tu1\ttarget\t-\t0.5\n", "", "line 7.* appears twice .*line 2"),
        (
            "twice in others' file",
            lines("{u} {v}") + "u1 0.5\n",
            KEY,
            "u1 has two scores, 0.9 and 0.5",
        ),
        (
            "missing trial",
            lines("{u} {v}").replace("u1 0.9\n", ""),
            KEY,
            "1 of 5 trials .* no score .*u1",
        ),
        ("other protocol", lines("x{u} {v}"), KEY, "key of another protocol"),
        ("no label", lines("{u} {v}"), "", "give the key file"),
        ("bad label", OURS.replace("nontarget", "friend"), "", "line 3.*friend"),
        ("short line", "utterance\tlabel\tscore\nu1\ttarget\n", "", "line 2: 2 cells instead of 3"),
    ],
)
def test_bad_files_are_reported_in_one_line(name, text, key, message, write, capsys):
    words = ["metrics", write("scores.txt", text)]
    if key:
        words += ["--key", write("key.txt", key)]
    assert cli.main(words) == 2
    err = capsys.readouterr().err.strip()
    assert err.count("\n") == 0
    assert re.search(message, err), err


@pytest.mark.parametrize(
    "text",
    [
        lines("{s} {u}\t{l}  {v}"),
        lines("{s}\t{u} {l} {v}"),
        lines("{s} {u},x {l} {v}"),
        lines("{s} a;{u} {v} {l}"),
    ],
)
def test_white_space_separates_where_another_character_makes_no_sense(text, write):
    found = read_scores(write("scores.txt", text))
    assert found.values.tolist() == [float(value) for value in VALUES]
    assert found.counts() == {"target": 2, "nontarget": 1, "spoof": 2}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (  # lines 3 to 4 would be one cell, and a trial would be lost without a word
            "speaker,utterance,label,score\n"
            + lines("{s},{u},{l},{v}").replace("u2", '"u2').replace("u3", 'u3"'),
            "line 3: a quotation mark opens a cell",
        ),
        (lines("{s},{u},{v},{l}").replace("u5", '"u5'), "line 5: a quotation mark opens"),
        (lines("{s} {u} {v} {l}").replace("0.3", "inf"), "line 4: score 'inf'"),
        (lines("{s} {u} {v} {l}") + "s1 u1 0.5 target\n", "line 6: .*twice .*line 1"),
        (
            "speaker,utterance,label,score\n" + 2 * lines("{s},{u},{l},{v}") + "s,u,label,1\n",
            "line 12: unknown label label",
        ),
        (
            lines("{s} {u} {l} {v}").replace(" target", " genuine").replace("nontarget", "imp"),
            "bonafide .* beside .* nontarget.*genuine=target",
        ),
        (OURS.replace("nontarget", "bonafide"), "bonafide .* beside .* target"),
    ],
)
def test_lines_and_labels_that_would_be_misread(text, message, write):
    path = write("scores.txt", text)
    with pytest.raises(SasvError, match=message):
        read_scores(path).check_unique()
    if "genuine" in text:
        found = read_scores(path, labels=["genuine=target"])
        assert found.counts() == {"target": 2, "nontarget": 1, "spoof": 2}


def test_all_scores_equal_and_a_class_missing(write):
    equal = metrics(MetricsOptions(write("e.tsv", lines("{s} {u} 1 {l}"))))
    assert equal["sasv_eer"] == equal["spf_eer"] == 50.0
    bona_fide = metrics(
        MetricsOptions(write("b.tsv", "".join(lines("{s} {u} {v} {l}").splitlines(True)[:3])))
    )
    assert bona_fide["spf_eer"] is None and bona_fide["sv_eer"] == 0.0


def test_the_same_trial_twice_counts_twice(write):
    assert metrics(MetricsOptions(write("s.tsv", OURS + OURS.splitlines(True)[1])))["targets"] == 3


def test_columns_of_scores(write):
    path = write("f.csv", "asv_score,cm_score,sasv_label\n1,2,1\n0,1,2\n1,0,0\n")
    with pytest.raises(TableError, match="choose one"):
        read_scores(path)
    assert read_scores(path, column="cm_score").values.tolist() == [2, 1, 0]
    with pytest.raises(TableError, match="no column 'x'"):
        read_scores(path, column="x")
    key = write("k.txt", "a A 0\n")
    with pytest.raises(
        TableError, match="k.txt: this is not a key, which must contain the name and the label"
    ):
        read_scores(path, key)


def test_groups_by_a_column_of_the_utterance_table(write, tmp_path):
    cells = "".join(
        f"{utterance}\tx\ts\t{'m' if utterance < 'u3' else 'f'}\n" for _, utterance, _, _ in TRIALS
    )
    table = write("utterances.tsv", "utterance\tpath\tspeaker\tgender\n" + cells)
    scores = write("s.tsv", OURS)
    found = metrics(MetricsOptions(scores, by=["attack", "gender"], utterances=table))["groups"]
    assert (found["gender"]["m"]["targets"], found["gender"]["m"]["nontargets"]) == (1, 1)
    assert found["gender"]["f"]["spoofs"] == 2 and set(found["attack"]) == {"A01", "A02"}
    with pytest.raises(SasvError, match="no column 'gender'; give the utterance table"):
        metrics(MetricsOptions(scores, by=["gender"]))


def test_options_of_metrics(write, capsys):
    scores = write("s.tsv", OURS)
    assert (
        cli.main(["metrics", scores, "--costs", "0.8,0.1,0.1,1,1,1", "--llr", "true", "--json"])
        == 0
    )
    found = json.loads(capsys.readouterr().out)
    assert {"min_a_dcf.0.8,0.1,0.1,1,1,1", "act_a_dcf.0.8,0.1,0.1,1,1,1", "cllr"} <= set(found)
    text = metrics(MetricsOptions(scores, threshold=0.5))
    assert text["act_a_dcf.asvspoof5"] == 0.0
    assert "asvspoof5: priors target 0.9405" in text["costs"]["asvspoof5"]
    with pytest.raises(SasvError, match="--asv-errors '10,20,30' is not valid"):
        metrics(MetricsOptions(scores, asv_errors="10,20,30"))
    with pytest.raises(SasvError, match="must be one of speakers, trials"):
        metrics(MetricsOptions(scores, intervals=10, resample="files"))


def test_paired_test_requires_the_same_trials(write, capsys):
    one, other = write("1.tsv", OURS), write("2.tsv", OURS.replace("u5", "u6"))
    with pytest.raises(SasvError, match=r"2.tsv: its trials are not those of .*1.tsv"):
        metrics(MetricsOptions(one, against=other))
    found = metrics(MetricsOptions(one, against=one, intervals=50, resample="trials"))["against"]
    assert found["sasv_eer"]["p"] == 1.0
    assert (
        cli.main(["metrics", one, "--against", one, "--intervals", "50", "--resample", "trials"])
        == 0
    )
    assert "paired test, resampling trials" in capsys.readouterr().out


def test_results_named_as_compressed_are_compressed(write):
    scores = write("scores.tsv", OURS)
    for command in (
        ["submit", scores, write("a.tsv.gz", "").replace("a.tsv", "submission.tsv")],
        ["calibrate", scores, "--apply", scores, "--result", f"{scores}.llr.gz"],
    ):
        assert cli.main(command) == 0
        assert cli.main(command) == 0  # its own output is recognised
        assert read_scores(command[-1], key=scores).counts()["spoof"] == 2


def test_submissions_are_read_back(write, tmp_path):
    scores = write("s.tsv", OURS)
    submit(SubmitOptions(scores, str(tmp_path / "track2.tsv")))
    head, first = (tmp_path / "track2.tsv").read_text().splitlines()[:2]
    assert head == "spk\tfilename\tcm-score\tasv-score\tsasv-score"
    assert first == "s1\tu1\t-\t-\t0.9"
    key = write("key.tsv", "spk\tfilename\tcm-label\tasv-label\n" + lines("{s}\t{u}\t{c}\t{l}"))
    again = read_scores(tmp_path / "track2.tsv", key)
    np.testing.assert_array_equal(again.values, read_scores(scores).values)
    cm = write("cm.txt", lines("{u} {a} {c} {v}"))
    submit(SubmitOptions(cm, str(tmp_path / "track1.tsv"), track=1))
    assert (tmp_path / "track1.tsv").read_text().splitlines()[:2] == [
        "filename\tcm-score",
        "u1\t0.9",
    ]
    with pytest.raises(SasvError, match="belong to --track 1"):
        submit(SubmitOptions(cm, str(tmp_path / "x.tsv")))
    with pytest.raises(SasvError, match="--track is 3; it must be from 1 to 2"):
        submit(SubmitOptions(cm, str(tmp_path / "x.tsv"), track=3))


@pytest.mark.slow
@pytest.mark.speech
def test_real_files_and_the_real_protocol():
    """The real scores are joined row by row with the real list of their trials."""
    scores = shared("scores", "asvspoof2019_la_dev_ecapa_aasist.csv.gz")
    key = shared("protocols", "asvspoof2019_la", "ASVspoof2019.LA.asv.dev.gi.trl.txt.gz")
    expected = json.loads(shared("scores", "asvspoof2019_la_dev_expected.json").read_text())
    found = metrics(MetricsOptions(str(scores), key=str(key), column="asv_score"))
    assert set(found["groups"]["attack"]) == {f"A0{number}" for number in range(1, 7)}
    assert found["min_a_dcf.asvspoof5"] == pytest.approx(
        expected["asv"]["min_a_dcf_asvspoof5"], abs=1e-9
    )
    eval_key = shared("protocols", "asvspoof2019_la", "ASVspoof2019.LA.asv.eval.gi.trl.txt.gz")
    with pytest.raises(TableError, match="is this the right key"):
        read_scores(scores, eval_key, "asv_score")

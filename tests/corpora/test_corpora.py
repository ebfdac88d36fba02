"""Readers of corpora: the distributed layouts, the real lists, and missing files."""

import numpy as np
import pytest

from conftest import SMALL, shared
from sasv import cli
from sasv.audio import write_audio
from sasv.checkpoints import load_checkpoint
from sasv.commands import PrepareOptions, prepare, train
from sasv.core.errors import SasvError
from sasv.corpora import CORPORA, asvspoof2019, voxceleb1
from sasv.corpora.base import CorpusLists, Utterance
from sasv.corpora.protocol import add_protocol
from sasv.corpora.synthetic import voices
from sasv.tables import load_enrolments, load_trials, load_utterances


def tree(root, *paths, samples=1600):
    for index, path in enumerate(paths):
        wave = 0.1 * np.sin(np.arange(samples) * 0.1 * (1 + index))
        write_audio(root / path, wave.astype(np.float32))


def run(corpus, folder, out, **options):
    return prepare(PrepareOptions(corpus, str(folder), str(out), **options))


def test_registry_lists_every_reader():
    assert set(CORPORA) >= {
        "asvspoof2019",
        "voxceleb2",
        "in-the-wild",
        "mlaad",
        "cnceleb",
        "kaldi",
        "folder",
    }
    assert all(callable(CORPORA.get(name)) for name in CORPORA)


@pytest.mark.slow
@pytest.mark.speech
def test_real_asvspoof2019_protocols_have_their_known_counts():
    lists = shared("protocols", "asvspoof2019_la")
    trials = asvspoof2019.read_trials(lists / "ASVspoof2019.LA.asv.eval.gi.trl.txt.gz")
    labels = [trial.label for trial in trials]
    assert [labels.count(name) for name in ("target", "nontarget", "spoof")] == [5370, 33327, 63882]
    assert {trial.attack for trial in trials} == {"-"} | {
        f"A{number:02}" for number in range(7, 20)
    }
    enrolled = asvspoof2019.read_enrolments(
        *(lists / f"ASVspoof2019.LA.asv.eval.{gender}.trn.txt.gz" for gender in ("female", "male"))
    )
    assert len(enrolled) == 48
    assert {trial.speaker for trial in trials} <= set(enrolled)
    train = asvspoof2019.read_countermeasure(lists / "ASVspoof2019.LA.cm.train.trn.txt.gz")
    assert (len(train), sum(row[2] == "bonafide" for row in train)) == (25380, 2580)
    assert len({row[0] for row in train}) == 20
    evaluation = asvspoof2019.read_countermeasure(lists / "ASVspoof2019.LA.cm.eval.trl.txt.gz")
    assert len(evaluation) == 71237
    with pytest.raises(SasvError, match="4 fields instead of 5; is it another protocol"):
        asvspoof2019.read_countermeasure(lists / "ASVspoof2019.LA.asv.eval.gi.trl.txt.gz")


@pytest.mark.speech
def test_real_asvspoof2019_files(tmp_path):
    prepared = run("asvspoof2019", shared("speech", "ASVspoof2019"), tmp_path)
    table = load_utterances(prepared.utterances)
    assert len(table) == 200
    assert table.spoofed.sum() == 100
    assert len(table.where("split=train")) == 100
    assert set(table.attacks[1]) == {"-", "A01", "A02", "A03", "A04", "A05", "A06"}
    assert table.seconds is not None and table.seconds.min() > 0.5


def asvspoof_tree(root):
    """Make a small LA folder with train and eval parts and all lists."""
    base = root / "LA"
    tree(base, "ASVspoof2019_LA_train/flac/LA_T_1.flac", "ASVspoof2019_LA_train/flac/LA_T_2.flac")
    tree(
        base,
        *(f"ASVspoof2019_LA_eval/flac/LA_E_{name}.flac" for name in ("1", "2", "A1", "A2", "A3")),
    )
    cm = base / "ASVspoof2019_LA_cm_protocols"
    asv = base / "ASVspoof2019_LA_asv_protocols"
    cm.mkdir()
    asv.mkdir()
    (cm / "ASVspoof2019.LA.cm.train.trn.txt").write_text(
        "LA_0079 LA_T_1 - - bonafide\nLA_0079 LA_T_2 - A01 spoof\n"
    )
    (cm / "ASVspoof2019.LA.cm.eval.trl.txt").write_text(
        "LA_0015 LA_E_1 - - bonafide\nLA_0015 LA_E_2 - A07 spoof\n"
    )
    (asv / "ASVspoof2019.LA.asv.eval.gi.trl.txt").write_text(
        "LA_0015 LA_E_1 bonafide target\nLA_0026 LA_E_1 bonafide nontarget\nLA_0015 LA_E_2 A07 "
        "spoof\n"
    )
    (asv / "ASVspoof2019.LA.asv.eval.female.trn.txt").write_text("LA_0015 LA_E_A1,LA_E_A2\n")
    (asv / "ASVspoof2019.LA.asv.eval.male.trn.txt").write_text("LA_0026 LA_E_A3\n")
    return root


def test_asvspoof2019_layout(tmp_path):
    prepared = run("asvspoof2019", asvspoof_tree(tmp_path / "in"), tmp_path / "out")
    table = load_utterances(prepared.utterances)
    assert len(table) == 7
    trials = load_trials(prepared.trials["eval"])
    assert trials.counts() == {"target": 1, "nontarget": 1, "spoof": 1}
    assert trials.attacks[1] == ["-", "A07"]
    assert load_enrolments(prepared.enrolments["eval"]).utterances == [
        ["LA_E_A1", "LA_E_A2"],
        ["LA_E_A3"],
    ]


def asvspoof5_tree(root):
    """Make a small ASVspoof 5 with train and dev parts."""
    tree(root, *(f"flac_T/T_{index}.flac" for index in range(8)))
    tree(root, *(f"flac_D/D_{name}.flac" for name in ("1", "2", "3", "A1", "A2")))
    rows = [
        f"T_{4000 + i % 2} T_{i} F - - - AC1 {'A05 spoof' if i > 3 else 'bonafide bonafide'} -"
        for i in range(8)
    ]
    (root / "ASVspoof5.train.tsv").write_text("\n".join(rows) + "\n")
    (root / "ASVspoof5.dev.track_1.tsv").write_text(
        "D_1 D_1 F C01 1 - AC1 bonafide bonafide -\nD_2 D_2 M - - - AC1 bonafide bonafide -\n"
        "D_1 D_3 F - - - AC1 A11 spoof -\n"
    )
    (root / "ASVspoof5.dev.track_2.enroll.tsv").write_text("D_1 D_A1,D_A2\n")
    (root / "ASVspoof5.dev.track_2.trial.tsv").write_text(
        "D_1 D_1 F bonafide target\nD_1 D_2 F bonafide nontarget\nD_1 D_3 F A11 spoof\n"
    )
    return root


def test_asvspoof5_layout(tmp_path):
    prepared = run("asvspoof5", asvspoof5_tree(tmp_path / "in"), tmp_path / "out")
    table = load_utterances(prepared.utterances)
    assert (len(table), int(table.spoofed.sum())) == (13, 5)
    assert len(table.where("split=dev")) == 3 and len(table.where("split=dev-enrolment")) == 2
    assert len(table.where("codec=C01")) == 1
    trials = load_trials(prepared.trials["dev"])
    assert trials.counts() == {"target": 1, "nontarget": 1, "spoof": 1}
    assert trials.attacks[1] == ["-", "A11"]
    (tmp_path / "in" / "ASVspoof5.train.tsv").write_text("T_4000 T_0 F - bonafide\n")
    with pytest.raises(SasvError, match="train.tsv, line 1: 5 fields instead of 10"):
        run("asvspoof5", tmp_path / "in", tmp_path / "other")
    with pytest.raises(SasvError, match="no ASVspoof5"):
        run("asvspoof5", tmp_path / "out", tmp_path / "other")


def spoofceleb_tree(root):
    """Make a small SpoofCeleb with train and development parts."""
    for first, long in ((10, "train"), (20, "development")):
        speakers = [f"id100{first + index}" for index in range(2)]
        files = [
            f"{kind}/{who}/v-{number}.flac"
            for kind in ("a00", "a07")
            for who in speakers
            for number in (1, 2)
        ]
        tree(root / "flac" / long, *files)
        (root / "metadata").mkdir(exist_ok=True)
        rows = [f"{file},{file.split('/')[1]},{file[:3]}" for file in files]
        (root / "metadata" / f"{long}.csv").write_text(
            "\n".join(["file,speaker,attack", *rows]) + "\n"
        )
    (root / "protocol").mkdir()
    (root / "protocol" / "sasv_development_evaluation_protocol.csv").write_text(
        "speakerID,flac_file_name,label\n"
        "a00/id10020/v-1.flac,a00/id10020/v-2.flac,target\na00/id10020/v-1.flac,a00/id10021/v-2.flac,nontarget\n"
        "a00/id10020/v-1.flac,a07/id10020/v-1.flac,spoof\n"
    )
    return root


def test_spoofceleb_layout(tmp_path):
    root = spoofceleb_tree(tmp_path / "in")
    prepared = run("spoofceleb", root, tmp_path / "out")
    table = load_utterances(prepared.utterances)
    assert (len(table), int(table.spoofed.sum())) == (16, 8)
    assert table.speakers[1] == ["id10010", "id10011", "id10020", "id10021"]
    trials = load_trials(prepared.trials["dev"])
    assert trials.counts() == {"target": 1, "nontarget": 1, "spoof": 1}
    assert trials.attacks[1] == ["-", "a07"]
    assert load_enrolments(prepared.enrolments["dev"]).utterances == [["a00/id10020/v-1"]]
    protocol = root / "protocol" / "sasv_development_evaluation_protocol.csv"
    protocol.write_text("id10020,a00/id10020/v-2.flac,target\n")
    with pytest.raises(
        SasvError, match="claim 'id10020' with label 'target'; expected an utterance of development"
    ):
        run("spoofceleb", root, tmp_path / "other")
    with pytest.raises(SasvError, match="no folder metadata"):
        run("spoofceleb", tmp_path / "out", tmp_path / "other")


@pytest.mark.slow
@pytest.mark.parametrize("corpus", ["asvspoof5", "spoofceleb"])
def test_other_corpora_train_by_the_same_recipe(tmp_path, corpus):
    trees = {"asvspoof5": asvspoof5_tree, "spoofceleb": spoofceleb_tree}
    tables = run(corpus, trees[corpus](tmp_path / "in"), tmp_path / "out")
    words = f"stage3-asvspoof2019-train --utterances {tables.utterances} --where split=train"
    words += f" --out {tmp_path / 'run'} --epochs 1 --pairs 2 --spoof-pairs 2 --num-workers 0"
    words += f" --crop-frames 20 --dev-utterances {tables.utterances}"
    words += f" --dev-enrolments {tables.enrolments['dev']} --dev-trials {tables.trials['dev']}"
    sizes = [f"--encoder-options.{name}={value}" for name, value in SMALL["ecapa-tdnn"].items()]
    options = cli.parse("train", [*words.split(), *sizes])
    specification = load_checkpoint(train(options)).specification
    assert (len(specification.classes), specification.classes[-1]) == (3, "spoof")


def test_missing_and_broken_files_are_all_named_in_one_pass(tmp_path):
    root = asvspoof_tree(tmp_path / "in")
    (root / "LA/ASVspoof2019_LA_eval/flac/LA_E_2.flac").unlink()
    (root / "LA/ASVspoof2019_LA_train/flac/LA_T_1.flac").unlink()
    (root / "LA/ASVspoof2019_LA_eval/flac/LA_E_A3.flac").write_bytes(b"junk")
    with pytest.raises(
        SasvError, match=r"2 of 7 listed files are missing \(.*1 cannot be read.*--allow-missing"
    ):
        run("asvspoof2019", root, tmp_path / "out")
    assert len((tmp_path / "out/missing.txt").read_text().splitlines()) == 3
    assert not (tmp_path / "out/utterances.tsv").exists()
    prepared = run("asvspoof2019", root, tmp_path / "out", allow_missing=True)
    assert len(load_utterances(prepared.utterances)) == 4
    assert load_trials(prepared.trials["eval"]).counts() == {
        "target": 1,
        "nontarget": 0,
        "spoof": 0,
    }
    assert (prepared.missing, prepared.unreadable) == (2, 1)


def test_voxceleb2_layout_and_list(tmp_path):
    root = tmp_path / "vox2"
    tree(root, "dev/aac/id00012/21Uxsk56VDQ/00001.wav", "dev/aac/id00012/21Uxsk56VDQ/00002.wav")
    tree(root, "dev/aac/id00015/abc/00001.wav")
    table = load_utterances(run("voxceleb2", root, tmp_path / "out").utterances)
    assert table.ids == [
        "id00012/21Uxsk56VDQ/00001",
        "id00012/21Uxsk56VDQ/00002",
        "id00015/abc/00001",
    ]
    assert table.speakers[1] == ["id00012", "id00015"]
    assert set(table.table.texts("split")) == {"dev"}
    (root / "train_list.txt").write_text(
        "id00012/21Uxsk56VDQ/00001.wav id00012\nid00099/zzz/00001.wav id00099\n"
    )
    with pytest.raises(
        SasvError, match=r"1 of 2 listed files are missing \(id00099/zzz/00001\.wav"
    ):
        run("voxceleb2", root, tmp_path / "out")
    with pytest.raises(SasvError, match="no audio in the form idNNNNN"):
        run("voxceleb2", tmp_path / "out", tmp_path / "out2")


def test_voxceleb1_layout_and_trials(tmp_path):
    root = tmp_path / "vox1"
    tree(
        root,
        "wav/id10270/x6uYqmx31kE/00001.wav",
        "wav/id10270/8jEAjG6SegY/00008.wav",
        "wav/id10300/q/00002.wav",
    )
    (root / "veri_test2.txt").write_text(
        "1 id10270/x6uYqmx31kE/00001.wav id10270/8jEAjG6SegY/00008.wav\n"
        "0 id10270/x6uYqmx31kE/00001.wav id10300/q/00002.wav\n"
    )
    prepared = run("voxceleb1", root, tmp_path / "out")
    assert load_trials(prepared.trials["o"]).counts() == {"target": 1, "nontarget": 1, "spoof": 0}
    assert load_enrolments(prepared.enrolments["o"]).speakers == ["id10270/x6uYqmx31kE/00001"]
    (root / "veri_test2.txt").write_text("id10270/x6uYqmx31kE/00001.wav 1\n")
    with pytest.raises(SasvError, match="line 1: expected '1 ENROLMENT"):
        voxceleb1.read_trials(root / "veri_test2.txt")


def test_librispeech_layout(tmp_path):
    root = tmp_path / "LibriSpeech"
    tree(
        root,
        "test-other/1688/142285/1688-142285-0000.flac",
        "train-clean-100/19/198/19-198-0000.flac",
    )
    for folder in (tmp_path, root):
        table = load_utterances(run("librispeech", folder, tmp_path / "out").utterances)
        assert table.ids == ["1688-142285-0000", "19-198-0000"]
        assert table.speakers[1] == ["1688", "19"]
        assert table.table.texts("split") == ["test-other", "train-clean-100"]
    table = load_utterances(run("librispeech", root / "test-other", tmp_path / "out").utterances)
    assert (table.ids, table.speakers[1]) == (["1688-142285-0000"], ["1688"])


@pytest.mark.speech
def test_real_librispeech(tmp_path):
    table = load_utterances(
        run("librispeech", shared("speech", "LibriSpeech"), tmp_path).utterances
    )
    assert len(table) == 423
    assert len(table.speakers[1]) == 261


def test_tables_that_moved_with_their_corpus(tmp_path, caplog):
    caplog.set_level("INFO", "sasv")
    (tmp_path / "old" / "tables").mkdir(parents=True)
    tree(tmp_path / "old" / "vox", "id1/a.wav", "id1/b.wav")
    run("folder", tmp_path / "old" / "vox", tmp_path / "old" / "tables")
    (tmp_path / "old").rename(tmp_path / "new")
    moved = run("table", tmp_path / "new" / "tables", tmp_path / "out")
    found = load_utterances(moved.utterances)
    assert found.paths == [str(tmp_path / f"new/vox/id1/{name}.wav") for name in ("a", "b")]
    assert (
        f"{tmp_path / 'old'} is missing; its files are read from {tmp_path / 'new'}" in caplog.text
    )
    (tmp_path / "new" / "vox" / "id1" / "b.wav").unlink()
    with pytest.raises(SasvError, match="1 of 2 listed files are missing"):
        run("table", tmp_path / "new" / "tables", tmp_path / "out2")


def test_own_folder_and_own_table(tmp_path):
    root = tmp_path / "my speech"
    tree(root, "Jörg/a b.wav", "Jörg/deep/c.wav", "Ann/a b.wav")
    prepared = run("folder", root, tmp_path / "out")
    table = load_utterances(prepared.utterances)
    assert set(table.ids) == {"Jörg/a b", "Jörg/deep/c", "Ann/a b"}
    assert set(table.speakers[1]) == {"Jörg", "Ann"}
    own = tmp_path / "own"
    tree(own, "x/1.wav", "x/2.wav", "x/3.wav")
    rows = "".join(f"u{i}\tx/{i}.wav\tann\tcodec{i}\n" for i in (1, 2, 3))
    (own / "utterances.tsv").write_text("utterance\tpath\tspeaker\tcodec\n" + rows)
    (own / "enrolments_test.tsv").write_text("speaker\tutterances\nann\tu1,u2\n")
    (own / "trials_test.tsv").write_text("speaker\tutterance\tlabel\nann\tu3\ttarget\n")
    prepared = run("table", own, tmp_path / "out3")
    assert load_trials(prepared.trials["test"]).counts()["target"] == 1
    assert load_utterances(prepared.utterances).table.texts("codec") == [
        "codec1",
        "codec2",
        "codec3",
    ]
    (own / "trials_test.tsv").write_text("speaker\tutterance\tlabel\nbob\tu3\ttarget\n")
    with pytest.raises(SasvError, match="speaker bob is not in"):
        run("table", own, tmp_path / "out4")


def test_wrong_folder_is_reported(tmp_path):
    for corpus in CORPORA:
        with pytest.raises(SasvError, match="nowhere: there is no such folder"):
            run(corpus, tmp_path / "nowhere", tmp_path / "out")


def test_protocol_keeps_speakers_apart(tmp_path):
    rows = [
        Utterance(f"{s}-{u}", f"{s}-{u}.wav", f"s{s}", "x") for s in range(20) for u in range(8)
    ]
    rows += [Utterance(f"{s}-0", f"{s}-0.wav", f"s{s}", "x") for s in range(20, 40)]
    lists = CorpusLists(tmp_path, rows)
    add_protocol(lists, seed=3)
    split = {row.speaker: row.split for row in lists.utterances}
    of = {
        part: {speaker for speaker, where in split.items() if where == part}
        for part in ("train", "dev", "test")
    }
    assert [len(of[part]) for part in ("train", "dev", "test")] == [32, 2, 6]
    for part in ("dev", "test"):
        assert set(lists.enrolments[part]) == of[part]
        for trial in lists.trials[part]:
            owner = "s" + trial.utterance.partition("-")[0]
            assert (owner == trial.speaker) == (trial.label == "target")
            assert owner in of[part]
            assert trial.utterance not in lists.enrolments[part][trial.speaker]
    with pytest.raises(SasvError, match="speakers have 6 utterances"):
        add_protocol(CorpusLists(tmp_path, rows[160:]))


def test_synthetic_voices_are_spread():
    table = np.array([voice.values for voice in voices(80)])
    gaps = np.abs(table[:, None] - table[None])
    distance = np.minimum(gaps, 1 - gaps).mean(axis=2) + np.eye(80)
    assert distance.min() > 0.08
    assert len({voice.lines() for voice in voices(80)}) == 80

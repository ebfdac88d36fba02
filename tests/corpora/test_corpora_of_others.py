"""Corpora in their distributed layouts: official lists, In-the-Wild, MLAAD, CN-Celeb, and Kaldi
data folders.
"""

import numpy as np
import pytest

from sasv.audio import write_audio
from sasv.commands import PrepareOptions, prepare
from sasv.core.errors import SasvError
from sasv.corpora import voxceleb1
from sasv.tables import Table, load_enrolments, load_trials, load_utterances


def tree(root, *paths):
    for index, path in enumerate(paths):
        wave = 0.1 * np.sin(np.arange(1600) * 0.1 * (1 + index))
        write_audio(root / path, wave.astype(np.float32))


def run(corpus, folder, out, **options):
    return prepare(PrepareOptions(corpus, str(folder), str(out), **options))


def rows(out, *columns):
    table = Table.load(out / "utterances.tsv")
    return list(zip(*map(table.texts, columns)))


@pytest.mark.parametrize("place", ["train_list.txt", "meta/train_list.txt"])
def test_the_official_list_of_voxceleb2(tmp_path, place):
    tree(tmp_path / "v", "dev/aac/id00012/21Uxsk56VDQ/00001.wav", "dev/aac/id00015/abc/00001.wav")
    (tmp_path / "v" / place).parent.mkdir(exist_ok=True)
    (tmp_path / "v" / place).write_text(
        "id00012 id00012/21Uxsk56VDQ/00001.wav\nid00015 id00015/abc/00001\n"
    )
    run("voxceleb2", tmp_path / "v", tmp_path / "out")
    assert rows(tmp_path / "out", "utterance", "speaker") == [
        ("id00012/21Uxsk56VDQ/00001", "id00012"),
        ("id00015/abc/00001", "id00015"),
    ]
    (tmp_path / "v" / place).write_text("id00012 00001.wav\n")
    with pytest.raises(SasvError, match="line 1: expected 'idNNNNN idNNNNN/<video>/NNNNN.wav'"):
        run("voxceleb2", tmp_path / "v", tmp_path / "out")


@pytest.mark.parametrize(
    "line",
    [
        "1 id10270/x6uYqmx31kE/00001 id10270/8jEAjG6SegY/00008",
        "1 id10270/x6uYqmx31kE/00001.wav id10270/8jEAjG6SegY/00008.wav",
        "1 wav/id10270/x6uYqmx31kE/00001.flac /data/id10270/8jEAjG6SegY/00008.flac",
        "id10270/x6uYqmx31kE/00001.wav id10270/8jEAjG6SegY/00008.wav target",
    ],
)
def test_trial_lists_of_voxceleb1(tmp_path, line):
    (tmp_path / "list.txt").write_text(line + "\n")
    trial = voxceleb1.read_trials(tmp_path / "list.txt")[0]
    assert trial[:3] == ("id10270/x6uYqmx31kE/00001", "id10270/8jEAjG6SegY/00008", "target")


def test_original_and_cleaned_lists_of_voxceleb1(tmp_path):
    root = tmp_path / "vox1"
    tree(root, "wav/id10270/x6uYqmx31kE/00001.wav", "wav/id10270/8jEAjG6SegY/00008.wav")
    (root / "meta").mkdir()
    line = "1 id10270/x6uYqmx31kE/00001.wav id10270/8jEAjG6SegY/00008.wav\n"
    (root / "meta" / "veri_test.txt").write_text(line)
    (root / "vox1_O_cleaned.txt").write_text(line)
    prepared = run("voxceleb1", root, tmp_path / "out")
    assert set(prepared.trials) == {"o", "o-original"}
    assert load_trials(prepared.trials["o-original"]).counts()["target"] == 1


def test_in_the_wild(tmp_path):
    root = tmp_path / "release_in_the_wild"
    tree(root, "0.wav", "1.wav")
    (root / "meta.csv").write_text(
        'file,speaker,label\n0.wav,"Smith, Jo",bona-fide\n1.wav,Alec Guinness,spoof\n'
    )
    for folder in (tmp_path, root):
        run("in-the-wild", folder, tmp_path / "out")
        assert rows(tmp_path / "out", "utterance", "speaker", "label", "attack") == [
            ("0", "Smith, Jo", "bonafide", "-"),
            ("1", "Alec Guinness", "spoof", "unknown"),
        ]
    (root / "meta.csv").write_text("file,speaker,label\n0.wav,x,maybe\n")
    with pytest.raises(SasvError, match=r"unknown label 'maybe' of 0\.wav"):
        run("in-the-wild", root, tmp_path / "out")


def test_mlaad(tmp_path):
    tree(tmp_path / "m", "fake/en/bark/a.wav", "fake/de/vits/b.wav")
    header = "path|original_file|language|is_original_language|duration|training_data|model_name"
    header += "|architecture|transcript"
    (tmp_path / "m/fake/en/bark/meta.csv").write_text(
        f"{header}\n./fake/en/bark/a.wav|en_US/by_book/female/mary_ann/midnight/wavs/m_1.wav|en|True|1|x|suno/bark|bark|Hi\n"
    )
    (tmp_path / "m/fake/de/vits/meta.csv").write_text(
        f"{header}\n./fake/de/vits/b.wav|-|de|True|1|x|vits|VITS|Ja\n"
    )
    run("mlaad", tmp_path / "m", tmp_path / "out")
    assert rows(
        tmp_path / "out", "utterance", "speaker", "label", "attack", "language", "source"
    ) == [
        ("fake/de/vits/b", "vits", "spoof", "vits", "de", "-"),
        (
            "fake/en/bark/a",
            "mary_ann",
            "spoof",
            "bark",
            "en",
            "en_US/by_book/female/mary_ann/midnight/wavs/m_1",
        ),
    ]


def test_cnceleb(tmp_path):
    root = tmp_path / "CN-Celeb_flac"
    tree(root, "data/id00000/singing-01-001.flac", "data/id00800/drama-01-001.flac")
    tree(
        root,
        "eval/enroll/id00800-enroll.flac",
        "eval/test/id00800-drama-01-002.flac",
        "eval/test/id00801-play-01-001.flac",
    )
    (root / "dev").mkdir()
    (root / "dev/dev.lst").write_text("id00000\n")
    (root / "eval/lists").mkdir()
    (root / "eval/lists/enroll.lst").write_text("id00800-enroll enroll/id00800-enroll.wav\n")
    (root / "eval/lists/trials.lst").write_text(
        "id00800-enroll test/id00800-drama-01-002.wav 1\nid00800-enroll "
        "test/id00801-play-01-001.wav 0\n"
    )
    prepared = run("cnceleb", tmp_path, tmp_path / "out")
    table = load_utterances(prepared.utterances)
    assert table.where("split=train").ids == ["id00000/singing-01-001"]
    assert table.speakers[1] == ["id00000", "id00800", "id00801"]
    assert load_enrolments(prepared.enrolments["eval"]).utterances == [["enroll/id00800-enroll"]]
    assert load_trials(prepared.trials["eval"]).counts() == {
        "target": 1,
        "nontarget": 1,
        "spoof": 0,
    }


def test_a_kaldi_data_folder(tmp_path):
    recipe = tmp_path / "s5"
    data = recipe / "data" / "train"
    tree(recipe, "audio/a.wav", "audio/b.flac", "audio/c.wav")
    data.mkdir(parents=True)
    (data / "wav.scp").write_text(
        f"u1 audio/a.wav\nu2 flac -c -d -s {recipe}/audio/b.flac |\nu3 sph2pipe -f wav -p -c 2 "
        "audio/c.wav |\n"
    )
    (data / "utt2spk").write_text("u1 ann\nu2 bob\nu3 bob\n")
    (data / "spk2gender").write_text("ann f\nbob m\n")
    run("kaldi", data, tmp_path / "out")
    assert rows(tmp_path / "out", "utterance", "speaker", "gender", "channel") == [
        ("u1", "ann", "f", "-"),
        ("u2", "bob", "m", "-"),
        ("u3", "bob", "m", "1"),
    ]
    (data / "segments").write_text("u1 r1 0 1\n")
    with pytest.raises(SasvError, match="has segments"):
        run("kaldi", data, tmp_path / "out")
    (data / "segments").unlink()
    for entry, said in (
        ("cat x.wav | sox - -t wav - |", "sasv runs no commands"),
        ("raw.ark:17", "in an archive"),
    ):
        (data / "wav.scp").write_text(f"u1 {entry}\n")
        (data / "utt2spk").write_text("u1 ann\n")
        with pytest.raises(SasvError, match=said):
            run("kaldi", data, tmp_path / "out")

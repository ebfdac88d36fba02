"""Copy-synthesised corpora in their distributed layouts: three kinds of lists give the same kind of
table.
"""

import numpy as np
import pytest

from sasv.audio import write_audio
from sasv.commands import PrepareOptions, prepare
from sasv.core.errors import SasvError
from sasv.tables import Table


def audio(root, *paths):
    for index, path in enumerate(paths):
        wave = 0.1 * np.sin(np.arange(1600) * 0.1 * (1 + index))
        write_audio(root / path, wave.astype(np.float32))


def rows(out):
    table = Table.load(out / "utterances.tsv")
    return list(zip(*map(table.texts, ("utterance", "speaker", "label", "attack", "source"))))


def test_a_list_in_the_form_of_asvspoof(tmp_path):
    audio(
        tmp_path / "voc",
        "flac/LA_T_1138215.flac",
        "flac/hifigan_LA_T_1138215.flac",
        "flac/nsf_LA_T_1138215.flac",
    )
    (tmp_path / "voc" / "protocol.txt").write_text(
        "LA_0079 LA_T_1138215 - - bonafide\r\n"
        "LA_0079 hifigan_LA_T_1138215 - hifigan spoof\r\n"
        "LA_0079 nsf_LA_T_1138215 - nsf spoof\r\n"
    )
    prepare(PrepareOptions("copies", str(tmp_path / "voc"), str(tmp_path / "out")))
    assert rows(tmp_path / "out") == [
        ("LA_T_1138215", "LA_0079", "bonafide", "-", "-"),
        ("hifigan_LA_T_1138215", "LA_0079", "spoof", "hifigan", "LA_T_1138215"),
        ("nsf_LA_T_1138215", "LA_0079", "spoof", "nsf", "LA_T_1138215"),
    ]


def test_a_list_of_paths_as_copies_of_voxceleb2(tmp_path):
    paths = ("world/id00012/21Uxsk56VDQ/00001.wav", "hifigan/id00012/21Uxsk56VDQ/00001.wav")
    audio(tmp_path / "voc", *paths)
    (tmp_path / "given.lst").write_text("\n".join(paths))
    protocol = str(tmp_path / "given.lst")
    prepare(
        PrepareOptions("copies", str(tmp_path / "voc"), str(tmp_path / "out"), protocol=protocol)
    )
    source = "id00012/21Uxsk56VDQ/00001"
    assert sorted(rows(tmp_path / "out")) == sorted(
        (path.removesuffix(".wav"), "id00012", "spoof", path.partition("/")[0], source)
        for path in paths
    )


def test_a_table_with_a_header(tmp_path):
    audio(tmp_path / "voc", "a/one.wav", "b/two.wav")
    (tmp_path / "voc" / "list.tsv").write_text(
        "path\tspeaker\tattack\na/one.wav\ts\tworld\nb/two.wav\tt\tnsf\n"
    )
    prepare(PrepareOptions("copies", str(tmp_path / "voc"), str(tmp_path / "out")))
    assert rows(tmp_path / "out") == [
        ("a/one", "s", "spoof", "world", "-"),
        ("b/two", "t", "spoof", "nsf", "-"),
    ]


@pytest.mark.parametrize(
    ("lists", "said"),
    [
        ({}, "must contain exactly one list, but contains none; choose one with --protocol"),
        ({"a.txt": "x", "b.txt": "y"}, "contains a.txt, b.txt"),
        ({"a.txt": ""}, "contains no line"),
        ({"a.txt": "s x - world spoof\nnonsense"}, "line 2: expected"),
        ({"a.txt": "s twice - world spoof"}, "several files have the name twice"),
    ],
)
def test_a_list_that_cannot_be_used(tmp_path, lists, said):
    audio(tmp_path / "voc", "x.wav", "a/twice.wav", "b/twice.wav")
    for name, text in lists.items():
        (tmp_path / "voc" / name).write_text(text)
    with pytest.raises(SasvError, match=said):
        prepare(PrepareOptions("copies", str(tmp_path / "voc"), str(tmp_path / "out")))
    assert not (tmp_path / "out").exists()

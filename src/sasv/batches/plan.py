"""The plan of an epoch: pairs of utterances, batch by batch, drawn before the first file is opened.

A plan is a pure function of the table, the seed, and the epoch, so no state has to be saved, and
each of several processes takes its part of the same plan.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from sasv.core.errors import SasvError


@dataclass(frozen=True)
class EpochPlan:
    """Batches of one epoch.

    Attributes:
        rows: (batches, items, 2) rows of the table; if both are the same, the pair consists of two
            crops of one utterance.
        labels: (batches, items) class of each item; with ``name_sources``, that of a spoofed item
            is the spoof class plus the number of the imitated speaker.
        keys: (batches, items, 2) number of the batch and position in it, in the whole plan; they
            seed the random draws of an item.
    """

    rows: np.ndarray
    labels: np.ndarray
    keys: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def share(self, rank: int, world: int) -> "EpochPlan":
        """Return the batches of one of ``world`` processes; all receive the same number."""
        own = slice(rank, len(self) // world * world, world)
        return EpochPlan(self.rows[own], self.labels[own], self.keys[own])

    def split(self, rank: int, world: int, pairs: int) -> "EpochPlan":
        """Return the part of every batch that belongs to one of ``world`` processes.

        ``pairs`` is the number of bona fide pairs in a batch, which come first. Bona fide and
        spoofed pairs are each divided evenly.
        """
        spoof_pairs = self.rows.shape[1] - pairs
        bona_fide = rank * (pairs // world) + np.arange(pairs // world)
        spoofed = pairs + rank * (spoof_pairs // world) + np.arange(spoof_pairs // world)
        items = np.concatenate((bona_fide, spoofed))
        return EpochPlan(self.rows[:, items], self.labels[:, items], self.keys[:, items])


class PairPlanner:
    """Plans batches of utterance pairs.

    Stage 1: ``pairs`` pairs per batch, all of different speakers. Stages 2 and 3: the same number
    of bona fide pairs, plus ``spoof_pairs`` pairs of spoofed speech, each pair of one speaker and
    one attack.

    Args:
        speaker: (rows,) speaker class of each row.
        spoofed: (rows,) boolean.
        attack: (rows,) attack code of each row.
        spoof_class: class of spoofed items.
        pairs: bona fide pairs per batch, all of different speakers.
        spoof_pairs: spoofed pairs per batch.
        max_utterances_per_speaker: maximum number of utterances per speaker and epoch; 0 takes all.
        batches_per_epoch: a number; or "paper", which stops when the pairs no longer fill a batch
            with different speakers; or "spoofs", which uses every spoofed pair once.
        seed: random seed.
        name_sources: whether the labels of spoofed items give the speaker that they imitate.

    Raises:
        SasvError: there are fewer speakers than a batch needs, or spoofed pairs are requested but
            there are no spoofed rows.
    """

    def __init__(
        self,
        speaker: np.ndarray,
        spoofed: np.ndarray,
        attack: np.ndarray,
        spoof_class: int,
        pairs: int,
        spoof_pairs: int = 0,
        max_utterances_per_speaker: int = 600,
        batches_per_epoch: int | Literal["paper", "spoofs"] = "paper",
        seed: int = 0,
        name_sources: bool = False,
    ):
        if pairs < 1 or spoof_pairs < 0:
            raise SasvError(
                f"a batch cannot have {pairs} bona fide and {spoof_pairs} spoofed pairs; --pairs "
                "must be at least 1, and --spoof-pairs at least 0"
            )
        self.groups = _grouped(np.flatnonzero(~spoofed), speaker)
        self.spoof_groups: list[np.ndarray] = []
        if spoof_pairs:
            attacks = int(attack.max(initial=0)) + 1
            speaker_and_attack = speaker.astype(np.int64) * attacks + attack
            self.spoof_groups = _grouped(np.flatnonzero(spoofed), speaker_and_attack)
        self.speaker = speaker
        self.spoof_class = spoof_class
        self.pairs = pairs
        self.spoof_pairs = spoof_pairs
        self.max_utterances_per_speaker = max_utterances_per_speaker
        self.batches_per_epoch = batches_per_epoch
        self.seed = seed
        self.name_sources = name_sources
        self.planned: tuple[int, EpochPlan] | None = None
        if len(self.groups) < pairs:
            remedy = f"; set --pairs {len(self.groups)} or fewer" if self.groups else ""
            raise SasvError(
                f"a batch needs {pairs} different speakers, but the training table has only "
                f"{len(self.groups)} with bona fide speech{remedy}"
            )
        if spoof_pairs and not self.spoof_groups:
            raise SasvError(
                "a batch needs spoofed pairs, but the training table has no row with the label "
                "spoof"
            )
        if batches_per_epoch == "spoofs" and not spoof_pairs:
            raise SasvError(
                "--batches-per-epoch spoofs makes an epoch one pass over the spoofed pairs; set "
                "--spoof-pairs too"
            )
        if isinstance(batches_per_epoch, int) and batches_per_epoch < 1:
            raise SasvError(
                f"--batches-per-epoch {batches_per_epoch}: give a positive number, paper or spoofs"
            )

    def plan(self, epoch: int) -> EpochPlan:
        """Return the plan of an epoch, counted from 0; the last one is kept."""
        if self.planned is None or self.planned[0] != epoch:
            self.planned = (epoch, self._plan(epoch))
        return self.planned[1]

    def _plan(self, epoch: int) -> EpochPlan:
        rng = np.random.default_rng([self.seed, epoch, 1])
        wanted = self.batches_per_epoch
        if wanted == "spoofs":
            spoof_pairs = sum(max(len(group) // 2, 1) for group in self.spoof_groups)
            wanted = -(-spoof_pairs // self.spoof_pairs)  # rounded up
        batches = self._bona_fide(rng)
        if not batches:
            raise SasvError("the training table does not fill a single batch; lower --pairs")
        if wanted != "paper":
            while len(batches) < wanted:
                batches += self._bona_fide(rng)
            batches = batches[:wanted]
        rows = np.array(batches, np.int64)
        labels = self.speaker[rows[:, :, 0]].astype(np.int64)
        if self.spoof_pairs:
            spoof_rows = self._spoofed(rng, len(batches) * self.spoof_pairs)
            spoof_rows = spoof_rows.reshape(len(batches), self.spoof_pairs, 2)
            rows = np.concatenate((rows, spoof_rows), axis=1)
            spoof_labels = np.full(spoof_rows.shape[:2], self.spoof_class, np.int64)
            if self.name_sources:
                spoof_labels += self.speaker[spoof_rows[:, :, 0]]
            labels = np.concatenate((labels, spoof_labels), axis=1)
        return EpochPlan(rows, labels, np.moveaxis(np.indices(labels.shape), 0, 2))

    def _bona_fide(self, rng: np.random.Generator) -> list[list[tuple[int, int]]]:
        """Pair the utterances of every speaker and fill batches. A pair whose speaker is already in
        the batch waits for the next one.
        """
        pairs = np.concatenate(
            [_pairs(group, rng, self.max_utterances_per_speaker) for group in self.groups]
        )
        order = rng.permutation(len(pairs))
        owners = self.speaker[pairs[:, 0]][order].tolist()
        ordered = [(first, second) for first, second in pairs[order].tolist()]
        batcher = _Batcher(self.pairs)
        for owner, pair in zip(owners, ordered):
            batcher.add(owner, pair)
        return batcher.full

    def _spoofed(self, rng: np.random.Generator, wanted: int) -> np.ndarray:
        """Draw spoofed pairs: all of them once, shuffled, before any is repeated."""
        drawn: list[np.ndarray] = []
        have = 0
        while have < wanted:
            pairs = np.concatenate([_pairs(group, rng, 0) for group in self.spoof_groups])
            drawn.append(pairs[rng.permutation(len(pairs))])
            have += len(pairs)
        return np.concatenate(drawn)[:wanted]


class _Batcher:
    """Fills batches with pairs of different speakers. A pair whose speaker is already in the batch
    waits for a later one.

    Args:
        size: number of pairs in a batch, at least 1.

    Attributes:
        full: the complete batches; the pairs that remain at the end do not fill one.
    """

    def __init__(self, size: int):
        self.size = size
        self.full: list[list[tuple[int, int]]] = []
        self.current: list[tuple[int, int]] = []
        self.present: set[int] = set()
        self.waiting: list[tuple[int, tuple[int, int]]] = []

    def add(self, owner: int, pair: tuple[int, int]) -> None:
        """Add a pair of the speaker ``owner``."""
        if owner in self.present:
            self.waiting.append((owner, pair))
            return
        self._put(owner, pair)
        self._drain()

    def _put(self, owner: int, pair: tuple[int, int]) -> None:
        self.present.add(owner)
        self.current.append(pair)

    def _drain(self) -> None:
        """While the batch is full, begin another one with the waiting pairs, oldest first."""
        while len(self.current) == self.size:
            self.full.append(self.current)
            waiting = self.waiting
            self.current = []
            self.present = set()
            self.waiting = []
            for owner, pair in waiting:
                if owner in self.present or len(self.current) == self.size:
                    self.waiting.append((owner, pair))
                else:
                    self._put(owner, pair)


def _grouped(rows: np.ndarray, key: np.ndarray) -> list[np.ndarray]:
    """Split rows by their key."""
    order = rows[np.argsort(key[rows], kind="stable")]
    edges = np.flatnonzero(np.diff(key[order])) + 1
    return [group for group in np.split(order, edges) if len(group)]


def _pairs(group: np.ndarray, rng: np.random.Generator, most: int) -> np.ndarray:
    """Shuffle a group and divide it into pairs, (pairs, 2); a single row is paired with itself."""
    if len(group) == 1:
        return np.repeat(group, 2)[None]
    shuffled = rng.permutation(group)[: most or None]
    return shuffled[: len(shuffled) // 2 * 2].reshape(-1, 2)

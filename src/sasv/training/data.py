"""The training data: rows and classes, the plan of each epoch, and the batches of a plan."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from sasv.batches.augment import Augmenter
from sasv.batches.dataset import CropDataset, PlanSampler
from sasv.batches.loading import BatchLoader
from sasv.batches.plan import EpochPlan, PairPlanner
from sasv.core.errors import SasvError
from sasv.parallel.processes import Processes
from sasv.tables import Utterances, load_utterances
from sasv.training.modules import SPOOF_CLASS, class_list
from sasv.training.options import BatchOptions, DataOptions


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """The training rows, and the batches made from them.

    Attributes:
        source: the training table, as given by the user.
        utterances: the training rows.
        classes: speakers, sorted; the class of spoofed speech, if there is any, is the last.
        planner: plans the pairs of an epoch.
        loader: reads the batches of a plan.
        processes: this process among those that train together.
        gather_batches: whether each batch is divided among the processes; otherwise each process
            takes batches of its own.
        seed: seed of the draws of each item.
    """

    source: str
    utterances: Utterances
    classes: list[str]
    planner: PairPlanner
    loader: BatchLoader
    processes: Processes
    gather_batches: bool
    seed: int

    @property
    def spoof_index(self) -> int | None:
        """Index of the class of spoofed speech, None if there is none."""
        if self.classes[-1] == SPOOF_CLASS:
            return len(self.classes) - 1
        return None

    @property
    def speakers(self) -> int:
        """Number of speakers with bona fide speech."""
        if self.spoof_index is None:
            return len(self.classes)
        return len(self.classes) - 1

    @property
    def augmentations(self) -> list[str]:
        """Descriptions of the augmentations of waveforms; empty if there are none."""
        augmenter = self.loader.dataset.augmenter
        return [] if augmenter is None else augmenter.described()

    def plan(self, epoch: int) -> EpochPlan:
        """Return this process's part of the plan of an epoch, counted from 0.

        Raises:
            SasvError: the epoch has fewer batches than there are processes.
        """
        plan = self.planner.plan(epoch)
        rank = self.processes.rank
        world = self.processes.world
        if self.gather_batches:
            return plan.split(rank, world, self.planner.pairs)
        share = plan.share(rank, world)
        if not len(share):
            raise SasvError(
                f"an epoch has {len(plan)} batches, fewer than there are processes; use "
                "--gather-batches or fewer processes"
            )
        return share

    def batches(
        self, plan: EpochPlan, epoch: int, first: int = 0
    ) -> contextlib.AbstractContextManager[Iterator[tuple[Tensor, Tensor]]]:
        """Return the batches of a plan, for use in a ``with`` block.

        Args:
            plan: the result of ``plan`` for the epoch.
            epoch: the epoch, counted from 0, which is part of the seed of each item.
            first: index of the first batch.

        Returns:
            A context manager that yields an iterator over waveforms (items, 2, samples) and classes
            (items,).
        """
        return self.loader.batches(PlanSampler(plan, self.seed, epoch, first))


def load_training_data(
    data: DataOptions,
    batch: BatchOptions,
    seed: int,
    processes: Processes,
    device: torch.device,
    name_sources: bool = False,
) -> TrainingData:
    """Read the training table and prepare its batches.

    Args:
        data: the training data, and how they are read.
        batch: the composition of batches and epochs.
        seed: random seed.
        processes: this process among those that train together.
        device: device of the batches; for a GPU, they are copied to pinned memory.
        name_sources: whether the labels of spoofed items identify the imitated speaker (see
            PairPlanner).

    Raises:
        SasvError: table and options contradict each other.
    """
    utterances = load_utterances(data.utterances, data.where)
    if not batch.spoof_pairs:  # Stage 1 has no spoof class
        utterances = utterances.take(~utterances.spoofed)
    classes, labels = class_list(utterances)
    if batch.spoof_pairs and classes[-1] != SPOOF_CLASS:
        raise SasvError(
            f"{data.utterances}: no row has the label spoof, but --spoof-pairs {batch.spoof_pairs} "
            "needs spoofed speech"
        )
    # A gathered batch is planned as one batch for all processes.
    parts = processes.world if batch.gather_batches else 1
    planner = PairPlanner(
        labels,
        utterances.spoofed,
        utterances.attacks[0],
        spoof_class=len(classes) - 1,
        pairs=batch.pairs * parts,
        spoof_pairs=batch.spoof_pairs * parts,
        max_utterances_per_speaker=batch.max_utterances_per_speaker,
        batches_per_epoch=batch.batches_per_epoch,
        seed=seed,
        name_sources=name_sources,
    )
    augmenter = Augmenter(
        data.noises,
        data.rirs,
        data.codecs,
        data.codec_share,
        augment_share=data.augment_share,
        snr_offset=data.snr_offset,
        level_range=data.level_range,
    )
    dataset = CropDataset(
        utterances,
        data.crop_frames,
        augmenter if data.augment else None,
        augment_later=data.augment_on == "device",
    )
    loader = BatchLoader(
        dataset,
        data.num_workers,
        batch.pairs + batch.spoof_pairs,
        data.loader_timeout,
        pin=device.type == "cuda",
        peers=processes.world,
        device=device,
    )
    return TrainingData(
        source=data.utterances,
        utterances=utterances,
        classes=classes,
        planner=planner,
        loader=loader,
        processes=processes,
        gather_batches=batch.gather_batches,
        seed=seed,
    )

"""Planning an epoch of VoxCeleb2's size, before the first file is opened."""

from collections.abc import Sequence

import numpy as np

from common import header, is_quick, measure, row
from sasv.batches.plan import PairPlanner

UTTERANCES, SPEAKERS = 1_092_009, 5994


def main(words: Sequence[str] | None = None) -> None:
    utterances = 20_000 if is_quick(words, __doc__) else UTTERANCES
    speaker = np.random.default_rng(0).integers(SPEAKERS, size=utterances)
    zeros = np.zeros(utterances, np.int32)
    header(f"an epoch of {utterances:,} utterances, {SPEAKERS:,} speakers, batches of 100 pairs")
    machine = PairPlanner(speaker, zeros.astype(bool), zeros, SPEAKERS, 100)
    epochs = iter(range(100))
    seconds = measure(lambda: machine.plan(next(epochs)), 5)
    shuffled = measure(lambda: np.random.default_rng(0).permutation(utterances), 5)
    row("shuffling the rows alone (baseline)", shuffled)
    row("plan", seconds, shuffled, f"{len(machine.plan(0))} batches")


if __name__ == "__main__":
    main()

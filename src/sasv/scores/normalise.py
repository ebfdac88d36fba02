"""Adaptive symmetric score normalisation (s-norm) against a cohort of other people.

Source: Matejka et al., "Analysis of score normalization in multilingual speaker recognition",
Interspeech 2017 (adaptive s-norm 1: the top scores of each side).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from sasv.core.errors import SasvError
from sasv.core.files import atomic_path, digest_of_bytes
from sasv.scores.directions import unit, without_direction

NO_SPREAD = 1e-6
"""Cohort scores (cosines) that differ by less are equal but for rounding."""

BLOCK = 1024
"""Rows multiplied with the cohort at once, so that the memory of a million utterances is that of a
block.
"""

BLOCK_CELLS = 1 << 24
"""Scores in a block at most: with a cohort of 100,000, 64 MB."""


@dataclass(frozen=True)
class Cohort:
    """Other people to score against.

    Attributes:
        vectors: their directions, float (cohort, dimension), no longer than 1.
        source: where they come from, for records and errors.
        by: what a row is: an utterance, or the mean of a speaker.
        digest: identifies the members: two cohorts with the same digest hold the same utterances.
    """

    vectors: np.ndarray
    source: str = ""
    by: str = "utterance"
    digest: str = ""

    @classmethod
    def build(
        cls,
        vectors: np.ndarray,
        speakers: Sequence[str] | None = None,
        crops: bool = False,
        source: str = "",
        names: Sequence[str] = (),
    ) -> "Cohort":
        """Make a cohort of embeddings.

        Args:
            vectors: (utterances, dimension), raw (or multi-crop).
            speakers: speaker of each row, to average the embeddings of each; None keeps utterances
                apart.
            crops: the embeddings are multi-crop: they are not normalised.
            source: where they come from, for records and errors.
            names: names of the utterances, for the digest.

        Raises:
            SasvError: fewer than two members, members that cannot be compared, or members that are
                all the same.
        """
        where = f" of {source}" if source else ""
        if len(vectors) < 2:
            raise SasvError(
                f"a cohort of {len(vectors)}{where}: s-norm needs at least two embeddings, and "
                "preferably hundreds"
            )
        broken = int(without_direction(vectors).sum())
        if broken:
            raise SasvError(
                f"a cohort{where} with {broken} embeddings that are zero or not finite; leave "
                "their recordings out"
            )
        if speakers is not None:
            _, index = np.unique(np.array(speakers), return_inverse=True)
            sums = np.zeros((int(index.max()) + 1, vectors.shape[1]), np.float64)
            np.add.at(sums, index, vectors)
            vectors = (sums / np.bincount(index)[:, None]).astype(vectors.dtype)
            if len(vectors) < 2:
                raise SasvError(
                    f"a cohort of one speaker{where}: s-norm needs at least two speakers, and "
                    "preferably hundreds"
                )
        directions = vectors if crops else unit(vectors)
        if float(np.abs(directions - directions[0]).max()) < NO_SPREAD:
            raise SasvError(
                f"a cohort{where} of {len(directions)} equal embeddings has no spread; s-norm "
                "needs different people"
            )
        digest = digest_of_bytes("\n".join(names)) if names else ""
        return cls(directions, source, "utterance" if speakers is None else "speaker", digest)

    def save(self, path: str | Path) -> None:
        """Write it as ``.npz``."""
        with atomic_path(path) as temporary:
            np.savez(
                temporary,
                vectors=self.vectors,
                about=np.array(json.dumps([self.source, self.by, self.digest])),
            )

    @classmethod
    def load(cls, path: str | Path) -> "Cohort":
        """Read what save wrote. SasvError if it is something else."""
        try:
            with np.load(path, allow_pickle=False) as stored:
                source, by, digest = json.loads(str(stored["about"]))
                return cls(stored["vectors"], source, by, digest)
        except (OSError, ValueError, EOFError, KeyError, TypeError, BadZipFile) as error:
            raise SasvError(f"{path}: not a cohort that sasv evaluate wrote ({error})") from error

    def to_dict(self) -> dict[str, Any]:
        """Return what identifies it, as plain values."""
        return {
            "source": self.source,
            "by": self.by,
            "size": len(self.vectors),
            "digest": self.digest,
        }


def cohort_statistics(
    directions: np.ndarray, cohort: Cohort, top: int = 300
) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and unbiased standard deviation of the highest cohort scores of each row, both
    (rows,).

    Args:
        directions: (rows, dimension).
        cohort: whom to score against.
        top: how many count; 0, or more than there are, takes all.

    Raises:
        SasvError: fewer than two scores count, or those of a row are all equal.
    """
    size = len(cohort.vectors)
    top = min(top, size) if top else size
    if top < 2:
        raise SasvError("s-norm needs at least the two highest cohort scores (top 2)")
    means = np.empty(len(directions))
    deviations = np.empty(len(directions))
    block = max(1, min(BLOCK, BLOCK_CELLS // size))
    for low in range(0, len(directions), block):
        part = slice(low, low + block)
        scores = directions[part] @ cohort.vectors.T
        scores.partition(size - top, axis=1)
        best = scores[:, size - top :].astype(np.float64)
        means[part] = best.mean(axis=1)
        deviations[part] = best.std(axis=1, ddof=1)
    flat = int((deviations < NO_SPREAD).sum())
    if flat:
        raise SasvError(
            f"s-norm divides by the spread of the {top} highest cohort scores, and for {flat} of "
            f"{len(directions)} "
            "embeddings these are all equal; take a cohort of different people, or more of it "
            "(--top)"
        )
    return means, deviations


def s_norm(
    scores: np.ndarray,
    left: np.ndarray,
    right: np.ndarray,
    enrolment: np.ndarray,
    utterance: np.ndarray,
    cohort: Cohort,
    top: int = 300,
) -> np.ndarray:
    """Return adaptively normalised scores: the mean of the score standardised on both sides,
    (trials,).

    Args:
        scores: (trials,) inner products.
        left, right: directions of enrolments and of tests.
        enrolment, utterance: (trials,) rows of the two.
        cohort, top: as in cohort_statistics.
    """
    used, place = np.unique(utterance, return_inverse=True)
    speaker_mean, speaker_deviation = cohort_statistics(left, cohort, top)
    test_mean, test_deviation = cohort_statistics(right[used], cohort, top)
    by_speaker = (scores - speaker_mean[enrolment]) / speaker_deviation[enrolment]
    by_test = (scores - test_mean[place]) / test_deviation[place]
    return (by_speaker + by_test) / 2

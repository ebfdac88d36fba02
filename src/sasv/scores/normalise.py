"""Adaptive symmetric score normalisation (s-norm) against a cohort of other speakers.

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
"""Cohort scores (cosines) that differ by less than this are equal up to rounding."""

BLOCK = 1024
"""Number of rows that are multiplied with the cohort at once, to limit the memory."""

BLOCK_CELLS = 1 << 24
"""Maximum number of scores in a block (64 MB)."""


@dataclass(frozen=True)
class Cohort:
    """Embeddings of other speakers, with which scores are normalised.

    Attributes:
        vectors: length-normalised embeddings, float (cohort, dimension), of norm at most 1.
        source: origin of the embeddings, for records and errors.
        by: what a row represents: an utterance, or the mean of a speaker.
        digest: identifies the members: cohorts with the same digest have the same utterances.
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
        """Make a cohort from embeddings.

        Args:
            vectors: (utterances, dimension), raw or multi-crop embeddings.
            speakers: speaker of each row, to average the embeddings of each speaker; None keeps the
                utterances separate.
            crops: whether the embeddings are multi-crop, and therefore not normalised again.
            source: origin of the embeddings, for records and errors.
            names: names of the utterances, for the digest.

        Raises:
            SasvError: there are fewer than two members, a member is zero or not finite, or all
                members are equal.
        """
        where = f" ({source})" if source else ""
        if len(vectors) < 2:
            raise SasvError(
                f"the cohort has {len(vectors)} embeddings{where}, but s-norm needs at least two, "
                "preferably hundreds"
            )
        broken = int(without_direction(vectors).sum())
        if broken:
            raise SasvError(
                f"the cohort{where} contains {broken} embeddings that are zero or not finite; "
                "leave out their recordings"
            )
        if speakers is not None:
            _, index = np.unique(np.array(speakers), return_inverse=True)
            sums = np.zeros((int(index.max()) + 1, vectors.shape[1]), np.float64)
            np.add.at(sums, index, vectors)
            vectors = (sums / np.bincount(index)[:, None]).astype(vectors.dtype)
            if len(vectors) < 2:
                raise SasvError(
                    f"the cohort has a single speaker{where}, but s-norm needs at least two, "
                    "preferably hundreds"
                )
        directions = vectors if crops else unit(vectors)
        if float(np.abs(directions - directions[0]).max()) < NO_SPREAD:
            raise SasvError(
                f"the {len(directions)} embeddings of the cohort{where} are all equal, but s-norm "
                "needs different speakers"
            )
        digest = digest_of_bytes("\n".join(names)) if names else ""
        return cls(directions, source, "utterance" if speakers is None else "speaker", digest)

    def save(self, path: str | Path) -> None:
        """Write the cohort as an ``.npz`` file."""
        with atomic_path(path) as temporary:
            np.savez(
                temporary,
                vectors=self.vectors,
                about=np.array(json.dumps([self.source, self.by, self.digest])),
            )

    @classmethod
    def load(cls, path: str | Path) -> "Cohort":
        """Read a cohort that ``save`` wrote.

        Raises:
            SasvError: the file is not a cohort.
        """
        try:
            with np.load(path, allow_pickle=False) as stored:
                source, by, digest = json.loads(str(stored["about"]))
                return cls(stored["vectors"], source, by, digest)
        except (OSError, ValueError, EOFError, KeyError, TypeError, BadZipFile) as error:
            raise SasvError(f"{path}: not a cohort that sasv evaluate wrote ({error})") from error

    def to_dict(self) -> dict[str, Any]:
        """Return what identifies the cohort, as JSON values."""
        return {
            "source": self.source,
            "by": self.by,
            "size": len(self.vectors),
            "digest": self.digest,
        }


def cohort_statistics(
    directions: np.ndarray, cohort: Cohort, top: int = 300
) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean and the unbiased standard deviation of the highest cohort scores of each row,
    both (rows,).

    Args:
        directions: (rows, dimension), length-normalised embeddings.
        cohort: the cohort.
        top: number of highest scores to use; 0, or a number above the size of the cohort, uses all.

    Raises:
        SasvError: fewer than two scores are used, or those of a row are all equal.
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
            "embeddings these are all equal; use a cohort of different speakers, or more of its "
            "scores (--top)"
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
    """Return adaptively normalised scores, (trials,): the average of the score standardised with
    the statistics of the enrolment and of the test side.

    Args:
        scores: (trials,) inner products.
        left, right: length-normalised embeddings of enrolments (speakers, dimension) and of test
            utterances (utterances, dimension).
        enrolment, utterance: (trials,) rows of ``left`` and ``right``.
        cohort, top: as in cohort_statistics.
    """
    used, place = np.unique(utterance, return_inverse=True)
    speaker_mean, speaker_deviation = cohort_statistics(left, cohort, top)
    test_mean, test_deviation = cohort_statistics(right[used], cohort, top)
    by_speaker = (scores - speaker_mean[enrolment]) / speaker_deviation[enrolment]
    by_test = (scores - test_mean[place]) / test_deviation[place]
    return (by_speaker + by_test) / 2

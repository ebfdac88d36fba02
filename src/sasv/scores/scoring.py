"""How scores are computed from embeddings, as a value that is stored with scores and compared."""

import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sasv.core.errors import SasvError
from sasv.core.files import read_json, write_json
from sasv.scores.directions import unit, without_direction
from sasv.scores.normalise import Cohort, s_norm

Enrolment = Literal["mean", "normalised", "scores"]
"""How a speaker with several recordings is scored: with the mean of the raw embeddings (as
published), with the mean of the length-normalised embeddings, or with the mean of the scores
against each recording.
"""

ENROLMENTS = typing.get_args(Enrolment)

GATHERED = 1 << 16
"""Number of trials per step if each pair is multiplied separately."""

DENSE_CELLS = 1 << 24
"""Number of products per step if whole blocks of speakers are multiplied."""

SIDECAR = ".scoring.json"
"""Suffix of the file, next to a score file, that records how the scores were made."""


@dataclass(frozen=True)
class Scoring:
    """How scores are computed from embeddings.

    Attributes:
        enrolment: one of ENROLMENTS.
        cohort: embeddings of other speakers for adaptive s-norm; None does not normalise.
        top: number of highest cohort scores to use on each side; 0 uses all.
        crops: if not 0, each embedding is the mean of the length-normalised embeddings of this
            number of crops (multi-crop). Such embeddings are not normalised again, so that a score
            is the mean over all pairs of crops.
        crop_seconds: length of a crop in seconds.
        max_pause: pauses were shortened to this many seconds before embedding; None if they were
            kept.
    """

    enrolment: str = "mean"
    cohort: Cohort | None = None
    top: int = 300
    crops: int = 0
    crop_seconds: float = 4.0
    max_pause: float | None = None

    def __post_init__(self) -> None:
        if self.enrolment not in ENROLMENTS:
            raise SasvError(
                f"'{self.enrolment}' is not an enrolment rule; use one of: {', '.join(ENROLMENTS)}"
            )

    def directions(
        self, vectors: np.ndarray, members: Sequence[Sequence[int]]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the vectors of speakers and utterances whose inner products are the scores.

        Args:
            vectors: (utterances, dimension), raw embeddings.
            members: rows of the enrolment utterances of each speaker.

        Returns:
            (speakers, dimension) and (utterances, dimension), of norm at most 1.
        """
        tests = vectors if self.crops else unit(vectors)
        if self.enrolment == "mean" and not self.crops:
            return unit(enrolment_vectors(vectors, members)), tests
        speakers = enrolment_vectors(tests, members)
        return unit(speakers) if self.enrolment == "normalised" else speakers, tests

    def score(
        self,
        vectors: np.ndarray,
        members: Sequence[Sequence[int]],
        enrolment: np.ndarray,
        utterance: np.ndarray,
    ) -> np.ndarray:
        """Return the score of each trial, (trials,). All commands compute scores with this method.

        Args:
            vectors: (utterances, dimension), raw embeddings.
            members: rows of the enrolment utterances of each speaker.
            enrolment: (trials,) speaker of each trial, a row of ``members``.
            utterance: (trials,) test utterance of each trial, a row of ``vectors``.

        Raises:
            SasvError: an embedding is zero or not finite, so that a comparison would be
                meaningless.
        """
        used = np.zeros(len(vectors), bool)
        used[utterance] = True
        used[[row for rows in members for row in rows]] = True
        broken = int(without_direction(vectors[used]).sum())
        if broken:
            raise SasvError(f"{broken} embeddings are zero or not finite; they cannot be compared")
        left, right = self.directions(vectors, members)
        scores = products(left, right, enrolment, utterance)
        if self.cohort is None:
            return scores
        return s_norm(scores, left, right, enrolment, utterance, self.cohort, self.top)

    def to_dict(self) -> dict[str, Any]:
        """Return the record that is stored in checkpoints and next to score files: JSON values
        without embeddings.
        """
        values: dict[str, Any] = {
            "measure": "cosine",
            "enrolment": self.enrolment,
            "crops": self.crops,
        }
        if self.crops:
            values["crop_seconds"] = self.crop_seconds
        values["max_pause"] = self.max_pause
        values["cohort"] = (
            None if self.cohort is None else self.cohort.to_dict() | {"top": self.top}
        )
        return values

    def describe(self) -> str:
        """Describe the scoring in words, for errors and model cards."""
        return described(self.to_dict())


def described(record: Mapping[str, Any]) -> str:
    """Describe a record (see Scoring.to_dict) in words."""
    crops = record.get("crops", 0)
    pieces = [f"cosine, enrolment {record.get('enrolment', 'mean')}"]
    pieces.append(
        f"{crops} crops of {record.get('crop_seconds', 4.0):g} s" if crops else "whole utterances"
    )
    if record.get("max_pause") is not None:
        pieces.append(f"pauses cut to {record['max_pause']:g} s")
    cohort = record.get("cohort")
    if cohort is None:
        pieces.append("no s-norm")
    else:
        top = cohort.get("top", 0) or "all"
        pieces.append(
            f"s-norm (top {top} of {cohort.get('size')} {cohort.get('by', 'utterance')} embeddings "
            f"of {cohort.get('source') or 'a cohort'}, {str(cohort.get('digest', ''))[:8]})"
        )
    fusion = record.get("fusion")
    if fusion is not None:
        pieces.append(f"fused with a countermeasure ({fusion.get('kind')})")
    return ", ".join(pieces)


def same_scoring(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Whether the scores of two records (see Scoring.to_dict) can be compared with the same
    threshold.
    """
    return _identity(first) == _identity(second)


def unfused(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record of the score of the speaker system, given that of fused scores."""
    return {name: value for name, value in record.items() if name != "fusion"}


def _identity(record: Mapping[str, Any]) -> tuple[Any, ...]:
    crops = record.get("crops", 0)
    cohort = record.get("cohort")
    normalised = (
        None if cohort is None else (cohort.get("digest"), cohort.get("by"), cohort.get("top"))
    )
    fusion = record.get("fusion")
    fused = None if fusion is None else (fusion.get("digest"), fusion.get("countermeasure"))
    return (
        record.get("enrolment", "mean"),
        crops,
        record.get("crop_seconds", 4.0) if crops else None,
        record.get("max_pause"),
        normalised,
        fused,
    )


def sidecar(scores: str | Path) -> Path:
    """Return the path of the record of a score file: ``scores.tsv`` -> ``scores.scoring.json``."""
    path = Path(scores)
    return path.with_name(
        path.name.removesuffix(".gz").removesuffix(".tsv").removesuffix(".txt") + SIDECAR
    )


def save_scoring(scores: str | Path, scoring: Mapping[str, Any], model: str = "") -> None:
    """Write the record of how scores were made next to the score file.

    Args:
        scores: the score file.
        scoring: the result of Scoring.to_dict.
        model: fingerprint of the model.
    """
    write_json(sidecar(scores), {"scoring": dict(scoring), "model": model})


def load_scoring(scores: str | Path) -> tuple[dict[str, Any], str] | None:
    """Return (scoring, fingerprint of the model) of a score file, None if the file has no record.

    Raises:
        SasvError: the record is damaged.
    """
    path = sidecar(scores)
    if not path.exists():
        return None
    remedy = "remove it or score again"
    values = read_json(path, {"scoring": dict}, {"model": str}, remedy=remedy)
    try:
        _identity(values["scoring"])
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise SasvError(f"{path}: not a record of how scores were made; {remedy}") from error
    return values["scoring"], values.get("model", "")


def enrolment_vectors(vectors: np.ndarray, members: Sequence[Sequence[int]]) -> np.ndarray:
    """Return the mean of the embeddings in the rows of each speaker, (speakers, dimension)."""
    return np.stack([vectors[list(rows)].mean(axis=0) for rows in members])


def products(
    left: np.ndarray, right: np.ndarray, enrolment: np.ndarray, utterance: np.ndarray
) -> np.ndarray:
    """Return the inner product of each trial, (trials,) in [-1, 1].

    Args:
        left: (speakers, dimension), vectors of norm at most 1.
        right: (utterances, dimension), vectors of norm at most 1.
        enrolment: (trials,) rows of ``left``.
        utterance: (trials,) rows of ``right``.
    """
    scores = np.empty(len(enrolment), left.dtype)
    if len(left) * len(right) <= 4 * len(scores):
        # Most pairs are needed: multiply whole blocks of speakers, then select.
        order = np.argsort(enrolment, kind="stable")
        sorted_rows = enrolment[order]
        block = max(1, DENSE_CELLS // max(len(right), 1))
        for low in range(0, len(left), block):
            first, last = np.searchsorted(sorted_rows, [low, low + block])
            trials = order[first:last]
            dense = left[low : low + block] @ right.T
            scores[trials] = dense[enrolment[trials] - low, utterance[trials]]
    else:
        for low in range(0, len(scores), GATHERED):
            part = slice(low, low + GATHERED)
            scores[part] = np.einsum("td,td->t", left[enrolment[part]], right[utterance[part]])
    return np.clip(scores, -1.0, 1.0)

"""Scores of spoof heads, which distinguish spoofed from bona fide speech, computed from embeddings.
No PyTorch is needed.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from sasv.core.errors import SasvError
from sasv.scores.directions import unit


class Evidence(NamedTuple):
    """What a model says of trials, beside one score: (trials,) each, or single numbers.

    Attributes:
        speaker: log-likelihood ratio of the claimed speaker against another one.
        spoof: log-likelihood ratio of bona fide against spoofed speech.
        familiarity: from 1 (recordings like those that ``spoof`` was calibrated on) to 0.
    """

    speaker: np.ndarray
    spoof: np.ndarray
    familiarity: np.ndarray

    def llr(self, spoof_share: float) -> np.ndarray:
        """Return the log-likelihood ratio of the target against nontargets and spoofs.

        Args:
            spoof_share: weight of spoofs in the mixture of both.
        """
        other, spoofed = self.against(spoof_share)
        found: np.ndarray = -np.logaddexp(other, spoofed)
        return found

    def against(self, spoof_share: float) -> tuple[np.ndarray, np.ndarray]:
        """Return the weighted log-likelihoods of another speaker and of a spoof, against the
        target.
        """
        with np.errstate(divide="ignore"):
            shares = np.log([1 - spoof_share, spoof_share])
        return shares[0] - np.asarray(self.speaker), shares[1] - np.asarray(self.spoof)


@dataclass(frozen=True)
class SpoofHead:
    """A linear countermeasure on an embedding.

    Attributes:
        weight: (dimension,).
        bias: added to the product.
    """

    weight: np.ndarray
    bias: float = 0.0

    def scores(self, vectors: np.ndarray) -> np.ndarray:
        """Return the score of each embedding (utterances, dimension), (utterances,); higher: bona
        fide.
        """
        found: np.ndarray = unit(vectors) @ self.weight + self.bias
        return found


@dataclass(frozen=True)
class TrialClasses:
    """The three classes of a trial (target, other speaker, spoof), linear in its cosine and in its
    ``cm_score``.

    Attributes:
        weight: (3, 2).
        bias: (3,).
    """

    weight: np.ndarray
    bias: np.ndarray

    def logits(self, cosines: np.ndarray, cm_scores: np.ndarray) -> np.ndarray:
        """Return the logits (..., 3) of the classes (target, other speaker, spoof), of cosines and
        scores of the spoof head of one shape (...).
        """
        features = np.stack((cosines, cm_scores), axis=-1).astype(np.float64)
        found: np.ndarray = features @ self.weight.T.astype(np.float64) + self.bias
        return found

    def llr(
        self, cosines: np.ndarray, cm_scores: np.ndarray, spoof_share: float = 0.5
    ) -> np.ndarray:
        """Return the log-likelihood ratio of the target against both others, of the shape of the
        cosines.

        Args:
            cosines: cosine of each trial.
            cm_scores: score of the spoof head for the tested utterance of each.
            spoof_share: share of spoofs among the trials that are not of the target.

        Raises:
            SasvError: the share is no probability.
        """
        if not 0 <= spoof_share <= 1:
            raise SasvError(f"the share of spoofs is {spoof_share}; it must be from 0 to 1")
        logits = self.logits(cosines, cm_scores)
        with np.errstate(divide="ignore"):
            shares = np.log([1 - spoof_share, spoof_share])
        others = np.logaddexp(logits[..., 1] + shares[0], logits[..., 2] + shares[1])
        return np.asarray(logits[..., 0] - others)


@dataclass(frozen=True)
class ThreeClass:
    """What a model of the three-class loss says of a trial.

    Attributes:
        head: gives the ``cm_score`` of the tested utterance.
        classes: of cosine and ``cm_score``.
    """

    head: SpoofHead
    classes: TrialClasses

    def evidence(self, cosine: float, test: np.ndarray) -> Evidence:
        """Return the log-likelihood ratios of a trial: the target against another speaker, and
        against a spoof.

        Args:
            cosine: of the trial.
            test: (dimension,), embedding of the tested utterance.
        """
        target, other, spoof = self.classes.logits(np.array(cosine), self.head.scores(test))
        return Evidence(target - other, target - spoof, np.array(1.0))

"""Scores of spoof heads, which distinguish spoofed from bona fide speech, computed from embeddings.
No PyTorch is needed.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from sasv.core.errors import SasvError
from sasv.scores.directions import unit


class Evidence(NamedTuple):
    """The evidence of a model about trials; each attribute is an array (trials,) or a number.

    Attributes:
        speaker: log-likelihood ratio of the claimed speaker against another speaker.
        spoof: log-likelihood ratio of bona fide against spoofed speech.
        familiarity: similarity to the recordings with which ``spoof`` was calibrated, from 1 (very
            similar) to 0.
    """

    speaker: np.ndarray
    spoof: np.ndarray
    familiarity: np.ndarray

    def llr(self, spoof_share: float) -> np.ndarray:
        """Return the log-likelihood ratio of the target against nontargets and spoofs.

        Args:
            spoof_share: weight of spoofs in the mixture of both, from 0 to 1.
        """
        other, spoofed = self.against(spoof_share)
        found: np.ndarray = -np.logaddexp(other, spoofed)
        return found

    def against(self, spoof_share: float) -> tuple[np.ndarray, np.ndarray]:
        """Return the weighted log-likelihoods of another speaker and of a spoof, relative to the
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
        """Return the scores (utterances,) of embeddings (utterances, dimension); higher means more
        likely bona fide.
        """
        found: np.ndarray = unit(vectors) @ self.weight + self.bias
        return found


@dataclass(frozen=True)
class TrialClasses:
    """A linear classifier of trials into three classes (target, other speaker, spoof), whose inputs
    are the cosine and the ``cm_score``.

    Attributes:
        weight: (3, 2).
        bias: (3,).
    """

    weight: np.ndarray
    bias: np.ndarray

    def logits(self, cosines: np.ndarray, cm_scores: np.ndarray) -> np.ndarray:
        """Return the logits (..., 3) of the classes (target, other speaker, spoof) for cosines
        (...) and scores of the spoof head (...).
        """
        features = np.stack((cosines, cm_scores), axis=-1).astype(np.float64)
        found: np.ndarray = features @ self.weight.T.astype(np.float64) + self.bias
        return found

    def llr(
        self, cosines: np.ndarray, cm_scores: np.ndarray, spoof_share: float = 0.5
    ) -> np.ndarray:
        """Return the log-likelihood ratio (...) of the target against both other classes.

        Args:
            cosines: (...) cosine of each trial.
            cm_scores: (...) score of the spoof head for the test utterance of each trial.
            spoof_share: share of spoofs among the trials that are not target trials, from 0 to 1.

        Raises:
            SasvError: the share is not between 0 and 1.
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
    """Computes the evidence about a trial for a model trained with the three-class loss.

    Attributes:
        head: computes the ``cm_score`` of the test utterance.
        classes: classifies the trial by its cosine and ``cm_score``.
    """

    head: SpoofHead
    classes: TrialClasses

    def evidence(self, cosine: float, test: np.ndarray) -> Evidence:
        """Return the log-likelihood ratios of the target against another speaker and against a
        spoof.

        Args:
            cosine: cosine of the trial.
            test: (dimension,), embedding of the test utterance.
        """
        target, other, spoof = self.classes.logits(np.array(cosine), self.head.scores(test))
        return Evidence(target - other, target - spoof, np.array(1.0))

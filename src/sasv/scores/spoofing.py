"""Scores of the heads that tell spoofed from bona fide speech, from embeddings; no PyTorch is
needed.
"""

from dataclasses import dataclass

import numpy as np

from sasv.core.errors import SasvError
from sasv.scores.directions import unit


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
        features = np.stack((cosines, cm_scores), axis=-1).astype(np.float64)
        logits = features @ self.weight.T.astype(np.float64) + self.bias
        with np.errstate(divide="ignore"):
            shares = np.log([1 - spoof_share, spoof_share])
        others = np.logaddexp(logits[..., 1] + shares[0], logits[..., 2] + shares[1])
        return np.asarray(logits[..., 0] - others)

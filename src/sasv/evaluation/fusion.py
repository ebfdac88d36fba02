"""Fuses the scores of a speaker model and a countermeasure: by their sum, or by a fitted fusion.

These are the baselines of SASV2022 (Jung et al., "SASV 2022: the first spoofing-aware speaker
verification challenge", Interspeech 2022): the sum of both scores, and a trained combination of
the two systems.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sasv.calibration import Backend
from sasv.core.errors import SasvError
from sasv.core.files import digest_of_bytes
from sasv.metrics import DEFAULT_COSTS
from sasv.scores.quality import QUALITY
from sasv.scores.scoring import described, same_scoring, unfused

logger = logging.getLogger("sasv")

SUM = "sum"
ASV = "asv_score"
CM = "cm_score"


@dataclass(frozen=True)
class Fusion:
    """Fusion of the scores of a speaker system and of a countermeasure.

    Attributes:
        backend: computes the fused score from the columns ``asv_score`` and ``cm_score``, and from
            quality measures if it needs any.
        countermeasure: fingerprint of the countermeasure.
    """

    backend: Backend
    countermeasure: str

    @property
    def gives_llr(self) -> bool:
        """Whether the fused scores are log-likelihood ratios."""
        return self.backend.kind != SUM

    @property
    def needs_quality(self) -> bool:
        """Whether the fusion needs quality measures."""
        return bool(set(self.backend.columns) & set(QUALITY))

    def __call__(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the fused score of each trial, (trials,), for columns, name -> (trials,)."""
        return self.backend(columns)

    def record(self, scoring: Mapping[str, Any]) -> dict[str, Any]:
        """Return the record of the fused scores.

        Args:
            scoring: how the score of the speaker system was made (see Scoring.to_dict).
        """
        values = self.backend.to_dict()
        fused = {
            "kind": self.backend.kind,
            "digest": digest_of_bytes(json.dumps(values, sort_keys=True))[:16],
            "countermeasure": self.countermeasure,
        }
        return {**scoring, "fusion": fused}

    def check(self, scoring: Mapping[str, Any], model: str, name: str) -> None:
        """Check that the fusion was fitted to scores that were made in the same way.

        Args:
            scoring: how the score of the speaker system is made (see Scoring.to_dict).
            model: fingerprint of the speaker system; empty if unknown.
            name: name of the fusion, for messages.

        Raises:
            SasvError: the fusion was fitted to scores that were made in another way.
        """
        fitted = self.backend.scores
        if not fitted:
            return
        before = unfused(fitted["scoring"])
        if not same_scoring(before, scoring):
            raise SasvError(
                f"{name}: fitted to scores made with {described(before)}, but these were made with "
                f"{described(scoring)}; make both in the same way"
            )
        countermeasure = (fitted["scoring"].get("fusion") or {}).get("countermeasure")
        pairs = {
            "speaker system": (fitted.get("model"), model),
            "countermeasure": (countermeasure, self.countermeasure),
        }
        for part, (then, now) in pairs.items():
            if then and now and then != now:
                logger.info(
                    f"{name}: fitted to scores of a different {part} (or of the same one in "
                    "another precision), and only valid for that one; fit it again with sasv "
                    "calibrate"
                )


def load_fusion(name: str, countermeasure: str) -> Fusion:
    """Return a fusion.

    Args:
        name: ``sum``, or a file that ``sasv calibrate --out`` wrote.
        countermeasure: fingerprint of the countermeasure.

    Raises:
        SasvError: there is no such file, or it was fitted to other columns than the two scores.
    """
    if name == SUM:
        backend = Backend(SUM, [ASV, CM], DEFAULT_COSTS)
        return Fusion(backend, countermeasure)
    backend = Backend.load(name)
    check_columns(name, backend.columns)
    return Fusion(backend, countermeasure)


def check_columns(name: str, columns: Sequence[str]) -> None:
    """Check that a back-end reads the two scores and otherwise only quality measures.

    Raises:
        SasvError: it does not.
    """
    missing = {ASV, CM}.difference(columns)
    unknown = set(columns).difference([ASV, CM, *QUALITY])
    if missing or unknown:
        raise SasvError(
            f"{name}: fitted to {', '.join(columns)}, so it is not a fusion of a speaker system "
            f"and a countermeasure; make one with sasv calibrate --columns {ASV},{CM}"
        )

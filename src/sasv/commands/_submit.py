"""sasv submit."""

import logging
from dataclasses import dataclass
from typing import Annotated

from sasv.core.errors import SasvError
from sasv.core.options import Options, Range
from sasv.scores import read_scores, write_submission

logger = logging.getLogger("sasv")


@dataclass
class SubmitOptions(Options):
    """Write scores in the submission format of the ASVspoof 5 challenge.

    Args:
        scores: score file; its columns asv_score and cm_score are written too, if it has them.
        out: output file.
        track: 1 (countermeasure) or 2 (SASV).
        key: trial list with labels, if the score file has none; labels are not written.
    """

    scores: str
    out: str
    track: Annotated[int, Range(1, 2)] = 2
    key: str = ""


def submit(options: SubmitOptions) -> None:
    """Write the submission for a track. Raises SasvError if the scores are those of the other
    track.
    """
    scores = read_scores(options.scores, options.key)
    if options.track == 2 and scores.task == "cm":
        raise SasvError(
            f"{options.scores}: these are the scores of a countermeasure, which belong to --track 1"
        )
    write_submission(scores, options.out, options.track)
    logger.info(f"submission: {options.out}")

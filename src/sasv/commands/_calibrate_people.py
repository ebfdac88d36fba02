"""sasv calibrate --enrolled: the calibration on one's own people."""

import logging
from pathlib import Path
from typing import Any

import numpy as np

from sasv.calibration import Backend, ThreeWay
from sasv.core.errors import SasvError
from sasv.embeddings.model import Model, load_model
from sasv.evaluation.own_people import (
    ENOUGH_PEOPLE,
    ExpectedError,
    Fitting,
    columns_of,
    errors_of,
    expected_cost,
    expected_errors,
    own_trials,
)
from sasv.metrics import CostModel
from sasv.runtime.model import SUFFIX
from sasv.vocoders import ALWAYS

logger = logging.getLogger("sasv")

WORDS = {
    "miss": "the person is not accepted",
    "false_nontarget": "another person is accepted",
    "false_spoof": "a copy is accepted",
}


def fit_to_people(
    folder: str, model: str, costs: CostModel
) -> tuple[Backend, ThreeWay | None, dict[str, Any], str]:
    """Fit to the people in a folder of folders, and log which errors to expect.

    Args:
        folder: one folder of recordings for each person.
        model: checkpoint.
        costs: priors and costs.

    Returns:
        The calibration of the score, that of speaker and spoofing (None for a model without a
        three-way calibration), how the scores were made, and the fingerprint of the model.
    """
    if model.endswith(SUFFIX):
        raise SasvError(f"{model}: calibrate the checkpoint, and export it again")
    embedder = load_model(model)
    verifier = embedder.verifier()
    trials = own_trials(embedder, verifier.limits, Path(folder), ALWAYS)
    head = embedder.spoof_head() if verifier.three_way is not None else None
    count = len(trials.people)
    source = f"{count} people in {Path(folder).name}"
    axis = bool(embedder.specification.encoder_options.get("spoof_axis", False))
    columns = columns_of(trials, verifier, head)
    fitting = Fitting(trials, columns, verifier, head, costs, source, axis)
    logger.info(f"{source}: {counted(trials.labels)}; costs {costs.describe()}")
    expected = expected_errors(fitting)
    logger.info("errors to expect of people who were not fitted to, with intervals of 95 %:")
    log_errors(expected)
    after = expected_cost(expected, costs)
    if verifier.decides:
        before = errors_of(trials, trials.outcomes(verifier, np.arange(len(trials.labels))))
        logger.info("errors of the model as it is, on the same trials:")
        log_errors(before)
        cost = expected_cost(before, costs)
        logger.info(f"normalised cost: {after:.3f} expected, {cost:.3f} of the model as it is")
        if after >= cost:
            logger.warning(
                "warning: the model as it is does no worse on these people; keep it unless they "
                "are more like those to come than the speakers it was calibrated on"
            )
    if count < ENOUGH_PEOPLE:
        logger.warning(
            f"warning: {count} people are too few to know the rates of errors: where none of them "
            f"shows an error, the rate may still be {100 * 3 / count:.0f} % (3 / people, at 95 %); "
            f"{ENOUGH_PEOPLE} people show that it is below 10 %, 300 that it is below 1 %"
        )
    logger.info(
        "the copies are by vocoders that sasv can run here; other ways to make a voice may be "
        "accepted more often"
    )
    backend, three_way = fitting.parts(np.arange(len(trials.labels)))
    return backend, three_way, scoring_record(embedder), embedder.fingerprint


def scoring_record(embedder: Model) -> dict[str, Any]:
    """Return how scores of recordings are made, pauses shortened."""
    verifier = embedder.verifier()
    own = embedder.extraction.max_pause
    pause = verifier.limits.max_pause if own is None else own
    return verifier.scoring.to_dict() | {"max_pause": pause}


def counted(labels: np.ndarray) -> str:
    """Return how many trials of each kind there are, in words."""
    target, nontarget, spoof = np.bincount(labels, minlength=3)
    return f"{target} trials of the person, {nontarget} of another person, {spoof} of a copy"


def log_errors(errors: dict[str, ExpectedError]) -> None:
    """Log each rate with its interval."""
    for name, error in errors.items():
        logger.info(
            f"  {WORDS[name]}: {100 * error.rate:.1f} % ({100 * error.low:.1f} to "
            f"{100 * error.high:.1f} %; {error.people} people, {error.trials} trials)"
        )

"""sasv calibrate --enrolled: the calibration on the user's own people."""

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
    """Fit a calibration to the people in a folder, and log the error rates to expect.

    Args:
        folder: folder with one subfolder of recordings for each person.
        model: checkpoint.
        costs: priors and costs.

    Returns:
        The calibration of the score, the three-way calibration (None for a model without one), how
        the scores were made, and the fingerprint of the model.
    """
    if model.endswith(SUFFIX):
        raise SasvError(
            f"{model}: an exported model cannot be calibrated; calibrate the checkpoint, and "
            "export it again"
        )
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
    logger.info(
        "error rates to expect for people who were left out of the fit, with 95 % intervals:"
    )
    log_errors(expected)
    after = expected_cost(expected, costs)
    if verifier.decides:
        before = errors_of(trials, trials.outcomes(verifier, np.arange(len(trials.labels))))
        logger.info("error rates of the model before, on the same trials:")
        log_errors(before)
        cost = expected_cost(before, costs)
        logger.info(f"normalised cost: {after:.3f} expected, {cost:.3f} with the model before")
        if after >= cost:
            logger.warning(
                "warning: without this calibration, the model does no worse on these people; keep "
                "it as it was unless your users resemble these people more than the speakers on "
                "whom the model was calibrated"
            )
    if count < ENOUGH_PEOPLE:
        logger.warning(
            f"warning: {count} people are too few to estimate error rates: if there is no error "
            f"among them, the rate may still be {100 * 3 / count:.0f} % (3 / people, at 95 %); it "
            f"takes {ENOUGH_PEOPLE} people to show that it is below 10 %, and 300 to show that it "
            "is below 1 %"
        )
    logger.info(
        "the copies are made with the vocoders that sasv can run here; speech from other systems "
        "may be accepted more often"
    )
    backend, three_way = fitting.parts(np.arange(len(trials.labels)))
    return backend, three_way, scoring_record(embedder), embedder.fingerprint


def scoring_record(embedder: Model) -> dict[str, Any]:
    """Return how scores of recordings are made, with pauses shortened."""
    verifier = embedder.verifier()
    own = embedder.extraction.max_pause
    pause = verifier.limits.max_pause if own is None else own
    return verifier.scoring.to_dict() | {"max_pause": pause}


def counted(labels: np.ndarray) -> str:
    """Return how many trials of each kind there are, in words."""
    target, nontarget, spoof = np.bincount(labels, minlength=3)
    return f"{target} trials of the person, {nontarget} of another person, {spoof} of a copy"


def log_errors(errors: dict[str, ExpectedError]) -> None:
    """Log each error rate with its interval."""
    for name, error in errors.items():
        logger.info(
            f"  {WORDS[name]}: {100 * error.rate:.1f} % ({100 * error.low:.1f} to "
            f"{100 * error.high:.1f} %; {error.people} people, {error.trials} trials)"
        )

"""sasv verify."""

import json
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from sasv.calibration import Backend
from sasv.core.errors import SasvError
from sasv.core.options import Options, Range
from sasv.embeddings.model import load_model
from sasv.scores.quality import quality_measures
from sasv.weights.catalogue import DEFAULT


@dataclass
class VerifyOptions(Options):
    """Decide whether a recording is bona fide speech of the enrolled speaker.

    Args:
        recordings: ENROL... TEST: one or more recordings of the speaker, then the one to decide.
        model: checkpoint; left out, the model that comes with sasv.
        threshold: accept from this score on; unset takes the calibration or the threshold of the checkpoint.
        json: print JSON.
        device: cpu, cuda, or auto.
    """

    recordings: list[str]
    model: str = DEFAULT
    threshold: Annotated[float | None, Range()] = None
    json: bool = False
    device: str = "auto"


def verify(options: VerifyOptions) -> dict[str, Any]:
    """Compare a test recording with enrolment recordings; print and return decision, score, LLR, costs, threshold."""
    if len(options.recordings) < 2:
        raise SasvError("verify needs at least two recordings: ENROL... TEST")
    model = load_model(options.model, options.device)
    specification = model.specification
    backend = Backend.from_dict(specification.calibration) if specification.calibration else None
    threshold = specification.threshold if options.threshold is None else options.threshold
    if threshold is None and backend is None:
        raise SasvError(
            f"{options.model}: carries no threshold; give --threshold, or let sasv calibrate choose one on development "
            "trials"
        )
    *enrol, test = options.recordings
    wave = model.read(test)
    vector = model.embed_many([wave])[0]
    score = model.score(model.enrol(enrol), vector)
    accepted = threshold is not None and score >= threshold
    result: dict[str, Any] = {
        "decision": "",
        "score": score,
        "threshold": threshold,
        "threshold_source": specification.threshold_source if options.threshold is None else "given",
        "enrolment": enrol,
        "test": test,
    }
    calibrated = ""
    if backend is not None:
        seconds, count = np.array([len(wave) / specification.sample_rate]), np.array([len(enrol)])
        llr = float(backend({"score": np.array([score])} | quality_measures(seconds, count, vector[None]))[0])
        bayes = backend.costs.bayes_threshold
        result |= {"llr": llr, "llr_threshold": bayes, "costs": backend.costs.describe()}
        calibrated = f"; LLR {llr:.2f}, accepted from {bayes:.2f} by the costs {backend.costs.describe()}"
        if options.threshold is None:
            accepted = llr >= bayes
    result["decision"] = "accept" if accepted else "reject"
    against = "" if threshold is None else f" {'>=' if score >= threshold else '<'} threshold {threshold:.4f}"
    print(json.dumps(result) if options.json else f"{result['decision']}: score {score:.4f}{against}{calibrated}")
    return result

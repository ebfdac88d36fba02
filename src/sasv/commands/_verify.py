"""sasv verify."""

import json
from dataclasses import dataclass
from typing import Any

from sasv.core.errors import SasvError
from sasv.embeddings.model import load_model


@dataclass
class VerifyOptions:
    """Decide whether a recording is bona fide speech of the enrolled speaker.

    Args:
        recordings: ENROL... TEST: one or more recordings of the speaker, then the one to decide.
        model: checkpoint.
        threshold: accept from this score on; unset takes the threshold of the checkpoint.
        json: print JSON.
        device: cpu, cuda, or auto.
    """

    recordings: list[str]
    model: str
    threshold: float | None = None
    json: bool = False
    device: str = "auto"


def verify(options: VerifyOptions) -> dict[str, Any]:
    """Compare a test recording with enrolment recordings; print and return decision, score and threshold."""
    if len(options.recordings) < 2:
        raise SasvError("verify needs at least two recordings: ENROL... TEST")
    model = load_model(options.model, options.device)
    threshold = model.specification.threshold if options.threshold is None else options.threshold
    if threshold is None:
        raise SasvError(
            f"{options.model}: carries no threshold; give --threshold (from sasv evaluate on development trials)"
        )
    *enrol, test = options.recordings
    score = model.score(model.enrol(enrol), model.embed(test))
    result = {
        "decision": "accept" if score >= threshold else "reject",
        "score": score,
        "threshold": threshold,
        "threshold_source": model.specification.threshold_source if options.threshold is None else "given",
        "enrolment": enrol,
        "test": test,
    }
    sign = ">=" if score >= threshold else "<"
    print(
        json.dumps(result)
        if options.json
        else f"{result['decision']}: score {score:.4f} {sign} threshold {threshold:.4f}"
    )
    return result

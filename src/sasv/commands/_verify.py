"""sasv verify."""

import logging
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np

from sasv.audio import AUTO
from sasv.commands._loading import load_any
from sasv.core.errors import SasvError, Undecided
from sasv.core.options import Options, Range
from sasv.decision import Decision, Outcome, Recording, SpeechLimits, Verifier
from sasv.decision.outcome import SASV
from sasv.metrics import cost_model
from sasv.runtime.windows import any_recording
from sasv.scores import Cohort
from sasv.weights.catalogue import DEFAULT

logger = logging.getLogger("sasv")


@dataclass
class VerifyOptions(Options):
    """Decide whether a recording is bona fide speech of the enrolled speaker.

    Args:
        recordings: ENROL... TEST: one or more recordings of the speaker, then the one to decide on;
            with --store, the latter alone.
        model: checkpoint, or ONNX file that sasv export wrote; by default the model that comes
            with sasv.
        threshold: score from which a recording is accepted; by default the calibration or the
            threshold of the checkpoint.
        costs: name of a cost model, or six numbers, for a model with the three-class loss, which
            decides by its log-likelihood ratio; by default asvspoof5.
        min_speech: seconds of speech that each recording must contain, and all enrolment recordings
            together; by default the limits of the checkpoint (0.75 s and 1 s); 0 compares anything.
        cohort: cohort.npz that sasv evaluate wrote, for a model whose threshold is for s-norm
            scores.
        channel: channel to use of recordings with several: mean, loudest, or a number counted from
            0; auto takes the mean, or the loudest channel if the channels cancel each other.
        store: store of voiceprints (see sasv enrol) that the claimed speaker is enrolled in. The
            speaker's voiceprint with the highest score decides, and the comparison is recorded.
        speaker: claimed speaker, for --store.
        tenant: customer to whom the speaker belongs, for --store.
        key: file with the key of the store; by default the key in the environment variable
            SASV_STORE_KEY.
        json: print JSON.
        device: cpu, cuda, or auto.
    """

    recordings: list[str]
    model: str = DEFAULT
    threshold: Annotated[float | None, Range()] = None
    costs: str = ""
    min_speech: Annotated[float | None, Range(0)] = None
    cohort: str = ""
    channel: str = AUTO
    store: str = ""
    speaker: str = ""
    tenant: str = "default"
    key: str = ""
    json: bool = False
    device: str = "auto"


def verify(options: VerifyOptions) -> dict[str, Any]:
    """Compare a test recording with enrolment recordings; return the decision with the reasons for
    it.

    Raises:
        Undecided: the decision is inconclusive, because a recording contains too little speech or
            its embedding is not finite; nothing was compared.
    """
    if bool(options.store) != bool(options.speaker):
        raise SasvError("--store and --speaker, the claimed speaker, can only be used together")
    if options.store and len(options.recordings) != 1:
        raise SasvError("with --store, sasv verify takes a single recording, the one to decide on")
    if not options.store and len(options.recordings) < 2:
        raise SasvError("sasv verify needs at least two recordings: sasv verify ENROL... TEST")
    model = load_any(options.model, options.device, options.channel)
    verifier = model.verifier(Cohort.load(options.cohort) if options.cohort else None)
    if options.threshold is not None:
        verifier = verifier.with_threshold(options.threshold)
    if options.costs:
        if verifier.calibration is not None or verifier.three_class is None:
            raise SasvError(
                f"{options.model}: --costs is for an uncalibrated model with the three-class loss; "
                "for another model, calibrate it for these costs with sasv calibrate --costs"
            )
        verifier = replace(verifier, costs=cost_model(options.costs))
    if not verifier.decides:
        raise SasvError(
            f"{options.model}: the model has no threshold; give --threshold, or let sasv calibrate "
            "choose one on development trials"
        )
    if options.min_speech is not None:
        verifier = replace(verifier, limits=limits_with(verifier.limits, options.min_speech))
    recordings = [any_recording(model, path, verifier.limits) for path in options.recordings]
    *enrolment, test = recordings
    if options.store:
        decision = _against_store(options, model.fingerprint, verifier, test)
    else:
        decision = verifier.decide(enrolment, test)
    result = decision.to_dict() | {
        "enrolment": options.recordings[:-1] or options.speaker,
        "test": options.recordings[-1],
        "recordings": [recording.to_dict() for recording in recordings],
    }
    if decision.outcome is Outcome.INCONCLUSIVE:
        why = [reason.text for reason in decision.reasons if reason.fatal or decision.scores]
        compared = "" if decision.scores else ", nothing was compared"
        raise Undecided(f"inconclusive{compared}: {'; '.join(why)}", result)
    for reason in decision.reasons[1:]:
        logger.info(f"warning: {reason.text}")
    return result


def _against_store(
    options: VerifyOptions, fingerprint: str, verifier: Verifier, test: Recording
) -> Decision:
    """Return the decision with the highest score over the voiceprints of the claimed speaker, and
    record it.
    """
    from sasv.store import VoiceprintStore
    from sasv.store.keys import read_key

    store = VoiceprintStore(options.store, read_key(options.key), create=False)
    try:
        held = store.of(options.speaker, options.tenant)
        if not held:
            raise SasvError(f"{options.speaker}: not enrolled in {store.path}")
        usable = [stored for stored in held if stored.model == fingerprint]
        if not usable:
            raise SasvError(
                f"the voiceprint of {options.speaker} was made by another model; enrol the speaker "
                f"again with {options.model}"
            )
        decisions = [verifier.decide(stored.voiceprint.recordings, test) for stored in usable]
        scores = [decision.scores.get(SASV, -np.inf) for decision in decisions]
        best = int(np.argmax(scores))
        store.used(usable[best].id, decisions[best].outcome.value)
        return decisions[best]
    finally:
        store.close()


def limits_with(limits: SpeechLimits, min_speech: float) -> SpeechLimits:
    """Return limits with a different minimum of speech, both for each recording and for the whole
    enrolment.
    """
    return replace(limits, min_test=min_speech, min_enrolment=min_speech)

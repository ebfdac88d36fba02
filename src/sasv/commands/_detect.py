"""sasv detect."""

from dataclasses import dataclass, replace
from typing import Annotated, Any

from sasv.audio import AUTO
from sasv.commands._loading import load_any
from sasv.core.errors import SasvError
from sasv.core.options import Options, Range
from sasv.decision import SpeechLimits, detect_spoof
from sasv.metrics import cost_model
from sasv.runtime.windows import any_recording
from sasv.weights.catalogue import DEFAULT


@dataclass
class DetectOptions(Options):
    """Decide whether recordings are bona fide or spoofed speech, without a claim about the speaker.

    Args:
        recordings: recordings to decide on.
        model: checkpoint with a spoof head and a three-way calibration, or the ONNX file of such a
            model that sasv export wrote; by default the model that comes with sasv.
        costs: name of a cost model, or six numbers: the prior of bona fide speech, 0, the prior of
            spoofed speech, then the costs of a miss, 0, and of an accepted spoof.
        min_speech: seconds of speech that each recording must contain; by default the limit of the
            checkpoint (0.75 s); 0 decides on anything.
        channel: channel to use of recordings with several: mean, loudest, or a number counted from
            0; auto takes the mean, or the loudest channel if the channels cancel each other.
        json: print JSON.
        device: cpu, cuda, or auto.
    """

    recordings: list[str]
    model: str = DEFAULT
    costs: str = "track1"
    min_speech: Annotated[float | None, Range(0)] = None
    channel: str = AUTO
    json: bool = False
    device: str = "auto"


def detect(options: DetectOptions) -> list[dict[str, Any]]:
    """Return the verdict on each recording, with the reasons for it."""
    if not options.recordings:
        raise SasvError("sasv detect needs at least one recording")
    costs = cost_model(options.costs)
    model = load_any(options.model, options.device, options.channel)
    verifier = model.verifier()
    if verifier.three_way is None:
        raise SasvError(
            f"{options.model}: the model has no calibrated spoof score; train it with --spoof-head "
            "linear, then calibrate it with sasv calibrate --kind three-way"
        )
    limits: SpeechLimits = verifier.limits
    if options.min_speech is not None:
        limits = replace(limits, min_test=options.min_speech)
    results = []
    for path in options.recordings:
        recording = any_recording(model, path, limits)
        verdict = detect_spoof(verifier.three_way, recording, limits, costs)
        results.append(verdict | recording.to_dict())
    return results

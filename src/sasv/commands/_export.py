"""sasv export."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sasv.checkpoints import load_checkpoint
from sasv.core.errors import SasvError
from sasv.core.options import Options, Seed
from sasv.embeddings.model import Model
from sasv.evaluation.protocol import load_protocol
from sasv.export.cost import Trials, some_recordings
from sasv.export.export import export_model
from sasv.export.sherpa import export_for_sherpa


@dataclass
class ExportOptions(Options):
    """Export a model as one ONNX file that takes waveforms, and check that it gives the same
    results.

    The file contains front-end, network, and spoof head as one graph without complex numbers. Its
    inputs are samples (batch, time), of any size, and lengths (batch,); its metadata contains the
    specification, with threshold and calibration. sasv verify uses the file without PyTorch.

    Args:
        model: checkpoint.
        out: the ONNX file.
        int8: quantise the weights and activations of the network to eight bits; the ranges of the
            activations are measured on the recordings of --utterances. Layers that would move the
            embeddings, or the error rates by more than 0.2 points, compute in single precision.
        utterances: utterance table of development recordings, for --int8.
        enrolments: enrolment table; with --trials, the error rates of the model before and after
            are computed.
        trials: trial table.
        seed: random seed for choosing the recordings that --int8 measures.
        sherpa: write a file for sherpa-onnx instead, which computes the features itself; possible
            for models with 80 Kaldi filter banks. The file contains no decision and no
            countermeasure.
    """

    model: str
    out: str
    int8: bool = False
    utterances: str = ""
    enrolments: str = ""
    trials: str = ""
    seed: Seed = 0
    sherpa: bool = False


def export(options: ExportOptions) -> dict[str, Any]:
    """Export a model; return the proof of the export, and the error rates if trials are given.

    Raises:
        SasvError: the results of the exported model differ; nothing was written.
    """
    if options.sherpa:
        if options.int8 or options.utterances:
            raise SasvError("--sherpa cannot be combined with --int8 or --utterances")
        return {"out": options.out} | export_for_sherpa(load_checkpoint(options.model), options.out)
    if options.int8 and not options.utterances:
        raise SasvError(
            "--int8 measures the ranges of features on recordings; give --utterances, the table "
            "of development recordings"
        )
    if (options.enrolments or options.trials) and not options.utterances:
        raise SasvError("--enrolments and --trials need --utterances, the table of recordings")
    protocol = None
    if options.utterances:
        protocol = load_protocol(options.utterances, options.enrolments, options.trials)
    checkpoint = load_checkpoint(options.model)
    recordings = None
    trials = None
    if protocol is not None:
        model = Model(checkpoint)
        if options.int8:
            recordings = some_recordings(model, protocol.utterances.paths, options.seed)
        if protocol.trials is not None:
            trials = Trials(model, protocol)
    record = export_model(checkpoint, options.out, recordings, trials)
    result: dict[str, Any] = {
        "out": options.out,
        "opset": record.opset,
        "precision": record.precision,
        "megabytes": round(Path(options.out).stat().st_size / 1e6, 3),
        "proof": record.proof,
    }
    if trials is not None:
        result["before"] = trials.before
        result["after"] = trials.after
    return result

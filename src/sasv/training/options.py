"""Options of training: at once the YAML file, the flags of ``sasv train``, and what a notebook passes."""

from dataclasses import dataclass, field
from typing import Literal


@dataclass
class TrainOptions:
    """Train an encoder on a table of utterances.

    The defaults are the published Stage 1 (VoxCeleb2; Interspeech 2023 paper, section 4).

    Args:
        utterances: training table (TSV).
        out: run folder; the model becomes ``model.safetensors`` in it.
        where: keep the rows with this ``column=value``, for instance ``split=train``.
        dev_utterances: table of the development utterances; empty takes the training table, all rows.
        dev_enrolments: development enrolments; empty trains without selection.
        dev_trials: development trials.
        encoder: ecapa-tdnn, ska-tdnn or mfa-conformer.
        sizes: sizes that differ from the published ones, for instance ``{channels: 256}``.
        init: checkpoint to start from (ours or published).
        loss: aamsoftmaxproto (Stage 1), sasv or sasv-symmetric (Stages 2 and 3), or another loss.
        margin: angular margin of the classification loss, radians.
        scale: scale of the classification loss.
        epochs: epochs to train.
        batches: batches an epoch; 0 takes what the pairs of different speakers fill.
        speakers: bona fide pairs a batch, all of different speakers.
        spoofs: spoofed pairs a batch (Stages 2 and 3).
        most: at most so many utterances of a speaker an epoch.
        frames: crop length in frames of 10 ms.
        highest: highest learning rate.
        lowest: lowest learning rate.
        cycle: epochs of a cosine cycle.
        warmup: warm-up epochs of each cycle.
        decay: factor on the peak after each cycle.
        schedule: cosine (with restarts), step, exponential, or cyclic.
        optimiser: adamw, adam, adamp (needs sasv[optimisers]), or sgd.
        weight_decay: of the optimiser.
        clip: largest norm of the gradient; 0 does not clip.
        accumulate: batches whose gradients make one step.
        margin_warmup: epochs over which the margin rises from 0 to its value.
        augment: SpecAugment, and the waveform augmentations whose folders are given.
        noises: MUSAN folder (noise, speech, music), or any folder of noise.
        rirs: folder of room impulse responses.
        precision: float32, bfloat16 (autocast), or float16 (autocast and scaled gradients).
        metric: development metric that chooses the model; auto is SASV-EER where there are spoofed trials, else SV-EER.
        evaluate_every: epochs between evaluations on the development trials.
        save_minutes: minutes between saved states within an epoch (each epoch's end is saved too).
        workers: loader processes.
        device: cpu, cuda, or auto.
        seed: of everything drawn.
        licence: licence of the model, written into it.
    """

    utterances: str
    out: str
    where: str = ""
    dev_utterances: str = ""
    dev_enrolments: str = ""
    dev_trials: str = ""
    encoder: str = "ecapa-tdnn"
    sizes: dict[str, int] = field(default_factory=dict)
    init: str = ""
    loss: str = "aamsoftmaxproto"
    margin: float = 0.2
    scale: float = 30.0
    epochs: int = 100
    batches: int = 0
    speakers: int = 100
    spoofs: int = 0
    most: int = 600
    frames: int = 200
    highest: float = 1e-3
    lowest: float = 1e-8
    cycle: int = 25
    warmup: int = 10
    decay: float = 0.5
    schedule: Literal["cosine", "step", "exponential", "cyclic"] = "cosine"
    optimiser: Literal["adamw", "adam", "adamp", "sgd"] = "adamw"
    weight_decay: float = 1e-7
    clip: float = 0.0
    accumulate: int = 1
    margin_warmup: int = 0
    augment: bool = True
    noises: str = ""
    rirs: str = ""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    metric: Literal["auto", "sasv_eer", "sv_eer", "spf_eer"] = "auto"
    evaluate_every: int = 1
    save_minutes: float = 10.0
    workers: int = 2
    device: str = "auto"
    seed: int = 0
    licence: str = "unknown"

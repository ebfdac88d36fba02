"""Options of training: at once the YAML file, the flags of ``sasv train``, and what a notebook passes."""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from sasv.core.options import (
    Count,
    NonNegativeFloat,
    Options,
    PositiveFloat,
    PositiveInt,
    Probability,
    Range,
    Seed,
)


@dataclass
class TrainOptions(Options):
    """Train an encoder on a table of utterances.

    The defaults are the published Stage 1 (VoxCeleb2; Interspeech 2023 paper, section 4).

    Args:
        utterances: training table (TSV).
        out: run folder; the model becomes ``model.safetensors`` in it.
        where: keep the rows with this ``column=value``, for instance ``split=train``; several are separated by ``;``.
        dev_utterances: table of the development utterances; empty takes the training table, all rows.
        dev_enrolments: development enrolments; empty trains without selection.
        dev_trials: development trials.
        encoder: name of an encoder.
        sizes: sizes that differ from the published ones, for instance ``{channels: 256}``.
        frontend: front-end of the encoder; empty takes that of its publication.
        frontend_options: options of the front-end that differ from its defaults.
        init: checkpoint to start from (ours or published).
        keep_classes: the classes that the checkpoint of init has too (by name: speakers, spoof) keep their rows of the
            loss head; as published, a head of other classes begins anew as a whole.
        loss: aamsoftmaxproto (Stage 1), sasv or sasv-symmetric (Stages 2 and 3), or another loss.
        margin: angular margin of the classification loss, radians.
        margin_start: margin from which the warm-up rises.
        margin_warmup: epochs over which the margin rises to its value.
        scale: scale of the classification loss.
        epochs: epochs to train.
        batches: batches an epoch: paper takes what the pairs of different speakers fill, spoofs a whole pass over the
            spoofed pairs, a number as many.
        speakers: bona fide pairs a batch and process, all of different speakers.
        spoofs: spoofed pairs a batch and process (Stages 2 and 3).
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
        augment: SpecAugment, and the waveform augmentations whose folders are given.
        codecs: telephone and codec conditions, one of which each crop passes with probability codec_share: 8khz, mulaw,
            alaw (nothing more needed), g722, opus, mp3 (need sasv[m4a]).
        codec_share: see codecs.
        noises: MUSAN folder (noise, speech, music), or any folder of noise.
        rirs: folder of room impulse responses.
        gather: many processes: the loss is that of the items of all of them, which then have different speakers.
        global_statistics: many processes: batch norm over all of them.
        average: ema averages the weights after every step, swa after every epoch; averaged weights are the ones
            evaluated and saved, their batch-norm statistics recomputed.
        ema_decay: of ema.
        average_from: whole epochs before averaging begins.
        statistics_batches: batches for the batch-norm statistics of averaged weights.
        compile: torch.compile the encoder (half a minute to begin with).
        channels_last: memory format of two-dimensional convolutions (SKA-TDNN).
        precision: float32, bfloat16 (autocast), or float16 (autocast and scaled gradients).
        metric: development metric that chooses the model; auto is SASV-EER where there are spoofed trials, else SV-EER.
        evaluate_every: epochs between evaluations on the development trials.
        save_minutes: minutes between saved states within an epoch (each epoch's end is saved too).
        allow_changed: go on although options changed since the last state; its epoch then begins anew.
        tensorboard: write TensorBoard files into the run folder (needs sasv[tensorboard]).
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
    sizes: Annotated[dict[str, Any], Range()] = field(default_factory=dict)
    frontend: str = ""
    frontend_options: Annotated[dict[str, Any], Range()] = field(default_factory=dict)
    init: str = ""
    keep_classes: bool = False
    loss: str = "aamsoftmaxproto"
    margin: Annotated[float, Range(0, 3.14)] = 0.2
    margin_start: Annotated[float, Range(0, 3.14)] = 0.0
    margin_warmup: Count = 0
    scale: PositiveFloat = 30.0
    epochs: PositiveInt = 100
    batches: Annotated[int | Literal["paper", "spoofs"], Range(1)] = "paper"
    speakers: PositiveInt = 100
    spoofs: Count = 0
    most: Count = 600
    frames: PositiveInt = 200
    highest: PositiveFloat = 1e-3
    lowest: NonNegativeFloat = 1e-8
    cycle: PositiveInt = 25
    warmup: Count = 10
    decay: PositiveFloat = 0.5
    schedule: Literal["cosine", "step", "exponential", "cyclic"] = "cosine"
    optimiser: Literal["adamw", "adam", "adamp", "sgd"] = "adamw"
    weight_decay: NonNegativeFloat = 1e-7
    clip: NonNegativeFloat = 0.0
    accumulate: PositiveInt = 1
    augment: bool = True
    codecs: list[str] = field(default_factory=list)
    codec_share: Probability = 0.5
    noises: str = ""
    rirs: str = ""
    gather: bool = False
    global_statistics: bool = False
    average: Literal["none", "ema", "swa"] = "none"
    ema_decay: Annotated[float, Range(0, below=1)] = 0.999
    average_from: Count = 0
    statistics_batches: PositiveInt = 50
    compile: bool = False
    channels_last: bool = False
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    metric: Literal["auto", "sasv_eer", "sv_eer", "spf_eer"] = "auto"
    evaluate_every: PositiveInt = 1
    save_minutes: NonNegativeFloat = 10.0
    allow_changed: bool = False
    tensorboard: bool = False
    workers: Count = 2
    device: str = "auto"
    seed: Seed = 0
    licence: str = "unknown"

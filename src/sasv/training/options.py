"""Options of training, which are also the keys of the YAML file and the flags of ``sasv train``.

The options form groups. ``TrainOptions`` inherits from all groups, so that flags and keys remain
flat, and it can be passed to a function that expects a single group, such as ``ScheduleOptions``.
"""

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from sasv.core.errors import SasvError
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
from sasv.core.registry import listing
from sasv.encoders import ENCODERS
from sasv.frontends import FRONTENDS
from sasv.losses import LOSSES

Angle = Annotated[float, Range(0, 3.14)]
"""An angle between two vectors, in radians."""


@dataclass(kw_only=True)
class DataOptions(Options):
    """The training data, and how they are read.

    Args:
        utterances: training table.
        where: train on the rows with this ``column=value``, for instance ``split=train``; several
            conditions are separated by ``;``.
        crop_frames: length of a training crop, in feature frames of 10 ms.
        augment: apply SpecAugment, and the waveform augmentations whose folders are given.
        augment_on: where noise, reverberation, speed, and level are applied: cpu, by the workers
            that read; or device, by the device that trains, to whole batches, with the same draws.
            Codecs are applied by the workers.
        augment_share: probability that a crop gets one of the waveform augmentations.
        snr_offset: decibels to add to the published signal-to-noise ratios.
        level_range: maximum random change of the level of a crop, up or down, in decibels; samples
            beyond full scale are clipped.
        spec_augment: apply SpecAugment if augment is set; false leaves it out.
        noises: folder of noise to add: MUSAN (noise, speech, music), or any folder of audio.
        rirs: folder of room impulse responses.
        codecs: telephone and codec conditions: resampled, 8khz, mulaw, alaw (which need no extra),
            g722, opus, mp3 (which need sasv[m4a]). A crop passes through one of them with the
            probability codec_share.
        codec_share: probability that a crop passes through one of the codecs.
        num_workers: DataLoader workers: processes that read and augment audio; 0 reads in the
            training process.
        loader_timeout: seconds without a batch after which training ends with an error; 0 waits
            forever.
    """

    utterances: str
    where: str = ""
    crop_frames: PositiveInt = 200
    augment: bool = True
    augment_on: Literal["cpu", "device"] = "cpu"
    augment_share: Probability = 1.0
    snr_offset: Annotated[float, Range(-60, 60)] = 0.0
    level_range: Annotated[float, Range(0, 60)] = 0.0
    spec_augment: bool = True
    noises: str = ""
    rirs: str = ""
    codecs: list[str] = field(default_factory=list)
    codec_share: Probability = 0.5
    num_workers: Count = 2
    loader_timeout: NonNegativeFloat = 600.0


@dataclass(kw_only=True)
@listing(encoders=ENCODERS, frontends=FRONTENDS)
class ModelOptions(Options):
    """The network, its initial weights, and the arithmetic of training.

    Args:
        encoder: one of {encoders}, or one that another package registers.
        encoder_options: options of the encoder that differ from the published ones, for instance
            ``{channels: 256}``.
        frontend: front-end of the encoder ({frontends}); by default that of its publication.
        frontend_options: options of the front-end that differ from its defaults.
        init: checkpoint to start from (of sasv, or in a published format).
        keep_classes: keep the weights of the loss head for classes (speakers and spoof, by name)
            that the checkpoint given by init has too. By default a head with other classes is
            initialised from scratch, as published.
        freeze_batch_norm: keep the batch-norm statistics of the checkpoint given by init, and
            normalise by them in training too.
        precision: float32, bfloat16 (autocast), or float16 (autocast and scaled gradients).
        tf32: let a GPU round the inputs of float32 products and convolutions to TF32: faster, with
            10 bits of mantissa instead of 23.
        deterministic: use deterministic algorithms only, so that training on a GPU is reproducible
            to the byte; slower. (Training on a CPU always is.)
        compile: compile the encoder with torch.compile (takes half a minute at the start).
        compile_mode: mode of torch.compile; reduce-overhead replays CUDA graphs, which helps where
            starting the kernels takes longer than computing them.
        channels_last: on a GPU, use the channels-last memory format for convolutions, which is
            faster in half precision; it has no effect on a CPU.
    """

    encoder: str = "ecapa-tdnn"
    encoder_options: dict[str, Any] = field(default_factory=dict)
    frontend: str = ""
    frontend_options: dict[str, Any] = field(default_factory=dict)
    init: str = ""
    keep_classes: bool = False
    freeze_batch_norm: bool = False
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    tf32: bool = False
    deterministic: bool = False
    compile: bool = False
    compile_mode: Literal["default", "reduce-overhead", "max-autotune"] = "default"
    channels_last: bool = False


@dataclass(kw_only=True)
@listing(losses=LOSSES)
class LossOptions(Options):
    """The loss.

    Args:
        loss: aamsoftmaxproto (Stage 1), sasv (Stages 2 and 3), anchored (Stage 2 from a strong
            encoder on little data), or another of {losses}.
        margin: margin of the loss; for AAM-softmax an angle in radians.
        margin_start: margin at the start of its warm-up.
        margin_warmup_epochs: epochs over which the margin rises to its value.
        scale: scale of the cosines before the softmax.
        loss_options: further options of the loss (docs/concepts/training.md).
        spoof_head: a second head on the embedding, trained beside the loss, which scores speech as
            bona fide or spoofed: linear, or ocsoftmax (one-class). ``sasv evaluate`` writes its
            score as cm_score.
        spoof_head_weight: weight of the loss of the spoof head.
    """

    loss: str = "aamsoftmaxproto"
    margin: Angle = 0.2
    margin_start: Angle = 0.0
    margin_warmup_epochs: Count = 0
    scale: PositiveFloat = 30.0
    loss_options: dict[str, Any] = field(default_factory=dict)
    spoof_head: Literal["none", "linear", "ocsoftmax"] = "none"
    spoof_head_weight: PositiveFloat = 1.0


@dataclass(kw_only=True)
class BatchOptions(Options):
    """What a batch and an epoch consist of.

    Args:
        pairs: bona fide pairs per batch and process, all of different speakers.
        spoof_pairs: spoofed pairs per batch and process (Stages 2 and 3).
        batches_per_epoch: a number; or paper, which ends an epoch when the remaining pairs no
            longer fill a batch with different speakers, as published; or spoofs, one pass over all
            spoofed pairs.
        max_utterances_per_speaker: maximum number of utterances per speaker and epoch; 0 takes all.
        gather_batches: with several processes, compute the loss over the gathered batch of all of
            them; its bona fide pairs are then all of different speakers.
        sync_batch_norm: with several processes, compute batch-norm statistics over all of them.
    """

    pairs: PositiveInt = 100
    spoof_pairs: Count = 0
    batches_per_epoch: Annotated[int | Literal["paper", "spoofs"], Range(1)] = "paper"
    max_utterances_per_speaker: Count = 600
    gather_batches: bool = False
    sync_batch_norm: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batches_per_epoch == "spoofs" and not self.spoof_pairs:
            raise SasvError(
                "--batches-per-epoch spoofs makes an epoch one pass over the spoofed pairs, but "
                "--spoof-pairs is 0; set --spoof-pairs, or use --batches-per-epoch paper"
            )
        if self.max_utterances_per_speaker == 1:
            raise SasvError(
                "--max-utterances-per-speaker is 1, but a pair needs at least 2; 0 takes all"
            )


@dataclass(kw_only=True)
class ScheduleOptions(Options):
    """The learning rate of each epoch.

    Args:
        epochs: epochs to train.
        schedule: cosine (with restarts), step, exponential, or cyclic.
        max_lr: peak learning rate.
        min_lr: lowest learning rate.
        cycle_epochs: epochs of a cycle of the schedule.
        warmup_epochs: epochs of linear warm-up: of each cycle with cosine, at the start with step
            and exponential.
        lr_decay: factor by which the peak learning rate is multiplied after each cycle.
    """

    epochs: PositiveInt = 100
    schedule: Literal["cosine", "step", "exponential", "cyclic"] = "cosine"
    max_lr: PositiveFloat = 1e-3
    min_lr: NonNegativeFloat = 1e-8
    cycle_epochs: PositiveInt = 25
    warmup_epochs: Count = 10
    lr_decay: PositiveFloat = 0.5


@dataclass(kw_only=True)
class OptimiserOptions(Options):
    """The optimiser and its steps.

    Args:
        optimiser: adamw, adam, adamp (needs sasv[optimisers]), or sgd.
        weight_decay: weight decay of the optimiser.
        max_grad_norm: clip the gradient to this norm; 0 does not clip.
        accumulate_batches: number of batches whose gradients are accumulated for one step.
    """

    optimiser: Literal["adamw", "adam", "adamp", "sgd"] = "adamw"
    weight_decay: NonNegativeFloat = 1e-7
    max_grad_norm: NonNegativeFloat = 0.0
    accumulate_batches: PositiveInt = 1


@dataclass(kw_only=True)
class AverageOptions(Options):
    """Averaged weights.

    Args:
        weight_average: ema averages the weights after every step, swa after every epoch. The
            averaged weights are the ones that are evaluated and saved, with batch-norm statistics
            computed for them.
        ema_decay: decay of ema.
        average_start_epoch: number of epochs before averaging begins.
        batch_norm_batches: number of batches over which the batch-norm statistics of averaged
            weights are computed.
    """

    weight_average: Literal["none", "ema", "swa"] = "none"
    ema_decay: Annotated[float, Range(0, below=1)] = 0.999
    average_start_epoch: Count = 0
    batch_norm_batches: PositiveInt = 50


@dataclass(kw_only=True)
class SelectionOptions(Options):
    """How the best epoch is chosen.

    Args:
        dev_utterances: table of the development utterances; by default the training table with all
            its rows.
        dev_enrolments: development enrolments; without them the last epoch is taken.
        dev_trials: development trials.
        metric: development metric by which the model is chosen; auto takes SASV-EER if there are
            spoofed trials, and otherwise SV-EER.
        evaluate_every: number of epochs between evaluations on the development trials.
        min_anchor_cosine: with the loss anchored, training ends after an epoch in which the mean
            cosine of bona fide speech with the anchor is lower than this, and the model is that of
            the best earlier epoch.
    """

    dev_utterances: str = ""
    dev_enrolments: str = ""
    dev_trials: str = ""
    metric: Literal["auto", "sasv_eer", "sv_eer", "spf_eer"] = "auto"
    evaluate_every: PositiveInt = 1
    min_anchor_cosine: Annotated[float, Range(-1, 1)] = -1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if bool(self.dev_trials) != bool(self.dev_enrolments):
            raise SasvError(
                "--dev-trials and --dev-enrolments belong together; give both or neither"
            )


@dataclass(kw_only=True)
class RunOptions(Options):
    """Where a run is stored, where it is computed, and its seed.

    Args:
        out: run folder, in which the trained model is ``model.safetensors``.
        save_minutes: minutes between saved states within an epoch (the end of each epoch is saved
            too).
        allow_changed: resume although options have changed since the last saved state; the
            interrupted epoch is then started again.
        tensorboard: write TensorBoard files into the run folder (needs sasv[tensorboard]).
        device: cpu, cuda, or auto.
        seed: random seed.
        licence: licence of the model, written into it.
    """

    out: str
    save_minutes: NonNegativeFloat = 10.0
    allow_changed: bool = False
    tensorboard: bool = False
    device: str = "auto"
    seed: Seed = 0
    licence: str = "unknown"


@dataclass(kw_only=True)
class TrainOptions(
    SelectionOptions,
    AverageOptions,
    OptimiserOptions,
    ScheduleOptions,
    BatchOptions,
    LossOptions,
    ModelOptions,
    DataOptions,
    RunOptions,
):
    """Train an encoder on a table of utterances.

    The defaults are the published Stage 1 (VoxCeleb2; Interspeech 2023 paper, section 4).
    """

    RENAMED: ClassVar[dict[str, str]] = {
        "sizes": "encoder_options",
        "margin_warmup": "margin_warmup_epochs",
        "batches": "batches_per_epoch",
        "speakers": "pairs",
        "spoofs": "spoof_pairs",
        "most": "max_utterances_per_speaker",
        "frames": "crop_frames",
        "highest": "max_lr",
        "lowest": "min_lr",
        "cycle": "cycle_epochs",
        "warmup": "warmup_epochs",
        "decay": "lr_decay",
        "clip": "max_grad_norm",
        "accumulate": "accumulate_batches",
        "gather": "gather_batches",
        "global_statistics": "sync_batch_norm",
        "average": "weight_average",
        "average_from": "average_start_epoch",
        "statistics_batches": "batch_norm_batches",
        "workers": "num_workers",
    }

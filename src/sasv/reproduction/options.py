"""Options of a plan, which are both the flags of ``sasv reproduce`` and the input of the planners.

As in ``sasv.training.options``, they form groups, and the options of the command inherit from all
groups.
"""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from sasv.core.options import Count, NonNegativeFloat, Options, Range, Seed


@dataclass(kw_only=True)
class CorporaOptions(Options):
    """The published corpora as distributed.

    Args:
        voxceleb2: folder of VoxCeleb2.
        asvspoof2019: folder of ASVspoof2019 LA.
        voxceleb1: folder of VoxCeleb1, on whose list O the best epoch of Stage 1 and of Stage 2 on
            VoxCeleb2 is chosen; without it, the last epoch is taken.
        noises: folder of MUSAN, for Stage 1 and Stage 2 on VoxCeleb2.
        rirs: folder of room impulse responses.
    """

    voxceleb2: str = ""
    asvspoof2019: str = ""
    voxceleb1: str = ""
    noises: str = ""
    rirs: str = ""


@dataclass(kw_only=True)
class SmallSpeechOptions(Options):
    """Speech that takes the place of the published corpora at scale tiny.

    Args:
        corpus: speech for scale tiny: a folder in the layout of LibriSpeech, or one with
            utterances.tsv; by default synthetic speakers are rendered.
        voices: number of synthetic speakers to render.
        attacks: vocoders that make the spoofed speech of Stage 3, at scale tiny.
        unseen: vocoder that makes the spoofed test trials and is not used in training, at scale
            tiny.
    """

    corpus: str = ""
    voices: Annotated[int, Range(8)] = 80
    attacks: list[str] = field(default_factory=lambda: ["world"])
    unseen: str = "source-filter"


@dataclass(kw_only=True)
class StageOptions(Options):
    """Options of the training of every stage.

    Args:
        encoder_options: options of the encoder beside those of the scale, such as the pretrained
            backbone of a self-supervised one (--encoder-options.backbone FOLDER).
        epochs: epochs of every stage; 0 takes those of its recipe.
        batches_per_epoch: batches per epoch; 0 takes those of the recipe.
        pairs: bona fide pairs per batch, and as many spoofed pairs; 0 takes those of the recipe.
        precision: float32, bfloat16, or float16.
        num_workers: DataLoader workers of each training; scale tiny uses one.
        licence: licence of the models, written into them.
    """

    encoder_options: dict[str, Any] = field(default_factory=dict)
    epochs: Count = 0
    batches_per_epoch: Count = 0
    pairs: Count = 0
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    num_workers: Count = 8
    licence: str = "unknown"


@dataclass(kw_only=True)
class PlanOptions(StageOptions, SmallSpeechOptions, CorporaOptions):
    """All options on which a plan depends.

    Args:
        scale: full, or tiny, which runs anywhere with small encoders, few epochs, and little data;
            if its protocol is generated, nontarget and spoofed trials have the ratio of
            ASVspoof2019 LA (33,327 to 63,882).
        vocoders: vocoders that make the copies of Stage 2; by default griffin-lim, source-filter,
            and world, and at scale tiny without corpora griffin-lim and world.
        weights: path of the weights of a vocoder, by its name (--weights.hifi-gan PATH).
        out: output folder of all steps.
        device: cpu, cuda, or auto.
        tflops: sustained speed in TFLOP/s, for the estimates; 0 assumes 100 on a GPU and 0.15 on a
            CPU.
        seed: random seed.
    """

    scale: Literal["full", "tiny"] = "full"
    vocoders: list[str] = field(default_factory=list)
    weights: dict[str, str] = field(default_factory=dict)
    out: str = "reproduction"
    device: str = "auto"
    tflops: NonNegativeFloat = 0.0
    seed: Seed = 0

"""What a plan is made for: the values that ``sasv reproduce`` and ``sasv demo`` give to a
planner.
"""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Corpora:
    """Folders of the corpora as distributed; "" where one is not given.

    Attributes:
        voxceleb2: training speech of Stages 1 and 2.
        asvspoof2019: ASVspoof2019 LA: Stages 2 and 3, and the evaluation.
        voxceleb1: development trials of Stages 1 and 2 (list O).
        noises: MUSAN, or any noise.
        rirs: room impulse responses.
    """

    voxceleb2: str = ""
    asvspoof2019: str = ""
    voxceleb1: str = ""
    noises: str = ""
    rirs: str = ""

    @property
    def given(self) -> bool:
        """Whether the speech of the table is that of the published corpora."""
        return bool(self.voxceleb2 or self.asvspoof2019)


@dataclass(frozen=True)
class SmallSpeech:
    """Speech that plays both corpora at scale tiny.

    Attributes:
        corpus: folder of speech; "" renders synthetic speakers.
        voices: synthetic speakers to render.
        attacks: vocoders of the spoofed speech of Stage 3.
        unseen: vocoder of the spoofed test trials, which no stage learns from.
    """

    corpus: str = ""
    voices: int = 80
    attacks: tuple[str, ...] = ("world",)
    unseen: str = "source-filter"


@dataclass(frozen=True)
class TrainSettings:
    """Values of every training; 0 leaves those of its recipe.

    Attributes:
        epochs: epochs of every stage.
        batches_per_epoch: batches of an epoch.
        pairs: bona fide pairs of a batch, and as many spoofed ones.
        precision: float32, bfloat16 or float16.
        num_workers: DataLoader workers, at full scale.
        licence: of the models.
    """

    epochs: int = 0
    batches_per_epoch: int = 0
    pairs: int = 0
    precision: str = "float32"
    num_workers: int = 8
    licence: str = "unknown"


@dataclass(frozen=True)
class Settings:
    """What a plan is made for.

    Attributes:
        out: folder of all steps.
        corpora: the published corpora.
        speech: what stands in for them at scale tiny.
        training: values of every training.
        vocoders: makers of the copies of Stage 2; none takes those of the scale.
        weights: vocoder -> its weights.
        device: cpu, cuda, or auto.
        tflops: sustained speed for the estimates, TFLOP a second; 0 takes that of the device.
        seed: of everything that is drawn.
    """

    out: Path
    corpora: Corpora = Corpora()
    speech: SmallSpeech = SmallSpeech()
    training: TrainSettings = TrainSettings()
    vocoders: tuple[str, ...] = ()
    weights: dict[str, str] = field(default_factory=dict)
    device: str = "auto"
    tflops: float = 0.0
    seed: int = 0

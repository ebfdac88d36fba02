"""Estimates the cost of a plan from named constants with their sources.

Measured times are in docs/results.md. The estimates of hours are only shown in the plan; nothing
depends on them.
"""

VOXCELEB2_HOURS = 2360.0
"""Hours of speech in VoxCeleb2 dev (Chung et al., Interspeech 2018)."""

VOXCELEB2_UTTERANCES = 1_092_009
"""Utterances of VoxCeleb2 dev."""

ASVSPOOF2019_HOURS = 6.0
"""Hours of bona fide speech in ASVspoof2019 LA, train and dev (Wang et al., Computer Speech and
Language 2020).
"""

SMALL_HOURS = 1.0
"""Maximum number of hours of speech that are copied at scale tiny."""

SMALL_SPOOFED_HOURS = 0.2
"""Hours of speech of each part of the small corpus that is copied at scale tiny."""

EVALUATION_UTTERANCES = 120_000
"""Utterances embedded for the ASVspoof2019 LA evaluation: trials and enrolments, rounded up."""

SMALL_EVALUATION_UTTERANCES = 500
"""The same at scale tiny."""

FLAC_BYTES_PER_SECOND = 16.9e3
"""Size of a copy at 16 kHz as 16-bit FLAC, measured on copies of speech by the vocoders that need
no weights.
"""

COPY_SPEED = 40.0
"""Speed of a vocoder on one core as a multiple of real time (docs/results.md)."""

GPU_TFLOPS = 100.0
"""Sustained speed of training on a data-centre GPU in TFLOP/s; --tflops overrides it."""

CPU_TFLOPS = 0.15
"""The same for two CPU cores."""

TRAINING_PASSES = 3
"""A training step costs three times a forward pass, because the backward pass costs twice as
much.
"""

CROP_FRAMES = 200
"""Length of the training crop, in frames of 10 ms, to which the GFLOP of the encoders refer."""

ASVSPOOF2019_BATCHES = {"train": 63, "train+dev": 38}
"""Batches of an epoch of all pairs of ASVspoof2019 LA at the sizes of the published batches."""

PREPARE_HOURS = {"voxceleb2": 0.1, "asvspoof2019": 0.02, "voxceleb1": 0.05}
"""Hours to check a corpus and write its tables."""

TABLE_GIGABYTES = 0.2
"""Disk that the tables of a corpus take, at most."""

RENDER_HOURS = 0.02
"""Hours to render the synthetic speakers."""

RENDER_GIGABYTES = 0.15
"""Disk that they take."""

MODEL_GIGABYTES = 0.6
"""Disk of a training: model, best model, optimiser state."""

SMALL_MODEL_GIGABYTES = 0.01
"""The same at scale tiny."""

EVALUATION_GIGABYTES = 0.1
"""Disk of an evaluation: embeddings and scores."""


def train_hours(gflop: float, epochs: int, crops: float, frames: int, tflops: float) -> float:
    """Return the hours of a training.

    Args:
        gflop: cost of a crop of ``CROP_FRAMES``, forward and backward, in GFLOP.
        epochs: number of epochs.
        crops: number of crops per epoch.
        frames: length of a crop in frames of 10 ms.
        tflops: sustained speed in TFLOP/s.
    """
    return epochs * crops * gflop * frames / CROP_FRAMES / (1e3 * tflops) / 3600


def evaluation_hours(gflop: float, utterances: int, tflops: float) -> float:
    """Return the hours of embedding utterances of about the length of a crop, forward only."""
    return train_hours(gflop / TRAINING_PASSES, 1, utterances, CROP_FRAMES, tflops)


def copy_cost(hours: float, copies: int) -> tuple[float, float]:
    """Return the hours and gigabytes that ``copies`` copies of ``hours`` hours of speech take."""
    return hours * copies / COPY_SPEED, hours * copies * 3600 * FLAC_BYTES_PER_SECOND / 1e9


def sustained_tflops(given: float) -> float:
    """Return the speed in TFLOP/s for the estimates: the given one or, if it is 0, that of this
    type of device.
    """
    if given:
        return given
    import torch

    return GPU_TFLOPS if torch.cuda.is_available() else CPU_TFLOPS

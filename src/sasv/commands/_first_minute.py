"""The first minute of the demonstration: four verdicts of the model that comes with sasv."""

import logging
from importlib.resources import as_file, files

import numpy as np

from sasv.audio import RATE
from sasv.embeddings.model import Model, load_model
from sasv.vocoders import make_vocoder
from sasv.weights.catalogue import DEFAULT

logger = logging.getLogger("sasv")

VOICES = files("sasv.corpora") / "voices"
SPEAKER = "slt_arctic_a0009.flac"
OTHER = "awb_arctic_a0007.flac"
"""A sentence of each of two people of CMU ARCTIC. They are recordings, because the model takes
synthetic voices, such as the others of the demonstration, for spoofs.
"""

VOCODER = "source-filter"
HISS_LEVEL = 0.01


def first_minute(device: str = "auto", seed: int = 0) -> dict[str, str]:
    """Enrol a person, decide on four recordings, and log the verdicts.

    Args:
        device: device on which the model runs.
        seed: random seed of the hiss.

    Returns:
        description of the recording -> outcome.
    """
    model = load_model(DEFAULT, device)
    verifier = model.verifier()
    sentence = voice(model, SPEAKER)
    enrolment = [model.recording(sentence[: len(sentence) // 2], verifier.limits, "enrolment")]
    tests = tested_waves(sentence[len(sentence) // 2 :], voice(model, OTHER), seed)
    found = {}
    logger.info("A person is enrolled by the first half of a sentence; the model says:")
    for title, wave in tests.items():
        decision = verifier.decide(enrolment, model.recording(wave, verifier.limits, title))
        found[title] = decision.outcome.value
        reasons = "; ".join(reason.text for reason in decision.reasons)
        logger.info(f"  {title}: {decision.outcome.value.replace('_', ' ')} ({reasons})")
    return found


def voice(model: Model, name: str) -> np.ndarray:
    """Return the samples of a recording that comes with sasv, (samples,) at 16 kHz."""
    with as_file(VOICES / name) as path:
        return model.read(str(path))


def tested_waves(own: np.ndarray, other: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Return the four tested waveforms under their descriptions."""
    hiss = np.random.default_rng(seed).standard_normal(3 * RATE).astype(np.float32)
    return {
        "the rest of the sentence": own,
        "another person": other,
        f"a copy of the rest by the {VOCODER} vocoder": make_vocoder(VOCODER)(own, RATE),
        "hiss": HISS_LEVEL * hiss,
    }

"""The first minute of the demonstration: four verdicts of the model that comes with sasv."""

import logging
from pathlib import Path

import numpy as np

from sasv.audio import RATE
from sasv.corpora.synthetic import render
from sasv.embeddings.model import Model, load_model
from sasv.vocoders import make_vocoder
from sasv.weights.catalogue import DEFAULT

logger = logging.getLogger("sasv")

SPEAKER = 2
OTHER = 0
VOICES = 5
SENTENCES = 4
"""Sentences of each voice: all but the last enrol it, and the last one is tested."""

VOCODER = "source-filter"
HISS_LEVEL = 0.01


def first_minute(out: Path, device: str = "auto", seed: int = 0) -> dict[str, str]:
    """Render a few voices, enrol one of them, decide on four recordings, and log the verdicts.

    Args:
        out: folder for the voices.
        device: device on which the model runs.
        seed: random seed of the hiss.

    Returns:
        description of the recording -> outcome.

    Raises:
        MissingExtra: espeak-ng is not installed.
    """
    root = render(out, VOICES, SENTENCES)
    model = load_model(DEFAULT, device)
    verifier = model.verifier()
    voices = sorted((root / "synthetic").iterdir())
    own = sorted(voices[SPEAKER].rglob("*.flac"))
    other = sorted(voices[OTHER].rglob("*.flac"))
    enrolment = [model.recording(path) for path in own[:-1]]
    tests = tested_waves(model, own[-1], other[-1], seed)
    found = {}
    logger.info(
        f"{voices[SPEAKER].name} is enrolled by {len(enrolment)} sentences; the model says:"
    )
    for title, wave in tests.items():
        decision = verifier.decide(enrolment, model.recording(wave, verifier.limits, title))
        found[title] = decision.outcome.value
        reasons = "; ".join(reason.text for reason in decision.reasons)
        logger.info(f"  {title}: {decision.outcome.value.replace('_', ' ')} ({reasons})")
    return found


def tested_waves(model: Model, own: Path, other: Path, seed: int) -> dict[str, np.ndarray]:
    """Return the four tested waveforms under their descriptions."""
    wave = model.read(str(own))
    hiss = np.random.default_rng(seed).standard_normal(3 * RATE).astype(np.float32)
    return {
        "another sentence of the speaker": wave,
        "another person": model.read(str(other)),
        f"a copy of the sentence by the {VOCODER} vocoder": make_vocoder(VOCODER)(wave, RATE),
        "hiss": HISS_LEVEL * hiss,
    }

"""The systems under test: a model of sasv, or any function of Python.

A function takes one recording, float32 samples at 16 kHz, and returns a vector, which is compared
by the cosine; or it takes two recordings, one that is enrolled and the tested one, and returns a
score, high for the same speaker and bona fide speech.
"""

import importlib
import inspect
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import soxr

from sasv.audio import RATE
from sasv.core.errors import SasvError, reason_of
from sasv.core.files import digest_of_bytes
from sasv.decision import Outcome, Recording, SpeechLimits, Verifier
from sasv.decision.outcome import SASV
from sasv.runtime.embedder import Embedder

CALLABLE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
"""``module:function``."""

ANY_SPEECH = SpeechLimits(
    min_enrolment=0.0,
    min_test=0.0,
    min_snr=-1e9,
    max_clipped=1.0,
    min_bandwidth=0.0,
    min_level=-1e9,
)
"""Limits that every recording holds: error rates without a threshold are those of all
recordings."""


class System:
    """A system under test that compares embeddings.

    Attributes:
        name: for reports.
        text: what the user gave.
        verifier: what it decides by; its limits are those of the system.
        compares: recordings are compared by a function, not by embeddings.
    """

    compares = False

    def __init__(self, name: str, text: str, verifier: Verifier):
        self.name = name
        self.text = text
        self.verifier = verifier

    @property
    def identity(self) -> str:
        """What changes whenever the system may compute something else."""
        raise NotImplementedError

    def embed(self, wave: np.ndarray, name: str) -> Recording:
        """Return what a verifier takes of a recording.

        Args:
            wave: (samples,) at 16 kHz.
            name: of the recording, for messages.

        Raises:
            AudioError: the recording cannot be embedded.
            SasvError: the system is broken.
        """
        raise NotImplementedError


class ModelSystem(System):
    """A checkpoint or an exported model, used as ``sasv verify`` uses it."""

    def __init__(self, name: str, text: str, model: Embedder, verifier: Verifier):
        super().__init__(name, text, verifier)
        self.model = model
        own = verifier.limits
        self.limits = replace(
            ANY_SPEECH, max_pause=own.max_pause, min_self_agreement=own.min_self_agreement
        )

    @property
    def identity(self) -> str:
        """Fingerprint of the network, and how recordings become embeddings."""
        limits = self.limits
        return (
            f"{self.model.fingerprint} {self.model.extraction} {limits.max_pause} "
            f"{limits.min_self_agreement}"
        )

    def embed(self, wave: np.ndarray, name: str) -> Recording:
        """Return what a verifier takes of a recording."""
        rate = self.model.specification.sample_rate
        if rate != RATE:
            wave = soxr.resample(wave, RATE, rate)
        return self.model.recording(wave, self.limits, name)


class FunctionSystem(System):
    """A function of Python.

    Args:
        name: for reports.
        text: ``module:function``.
        function: from samples to a vector, or from two recordings to a score.
        compares: whether it is the latter.
    """

    def __init__(self, name: str, text: str, function: Callable[..., Any], compares: bool):
        super().__init__(name, text, Verifier())
        self.function = function
        self.compares = compares
        self.size = 0

    @property
    def identity(self) -> str:
        """The name and the digest of the file that the function stands in: weights that it reads
        from elsewhere are not seen.
        """
        try:
            source = inspect.getsourcefile(inspect.unwrap(self.function))
            data = Path(source).read_bytes() if source else b""
        except (TypeError, OSError):
            data = b""
        return f"{self.text} {digest_of_bytes(data)}"

    def embed(self, wave: np.ndarray, name: str) -> Recording:
        """Return the vector of a recording."""
        found = self._called(name, wave)
        if found.ndim != 1 and found.size == max(found.shape, default=0):
            found = found.reshape(-1)
        if found.ndim != 1 or len(found) < 2:
            raise SasvError(
                f"{self.text}: returned an array of shape {found.shape} for {name}; it has to "
                "return one vector"
            )
        if self.size and len(found) != self.size:
            raise SasvError(
                f"{self.text}: returned {len(found)} numbers for {name}, and {self.size} for the "
                "recording before; all vectors have to have one size"
            )
        self.size = len(found)
        if not found.any():
            raise SasvError(f"{self.text}: returned a vector of zeros for {name}")
        return Recording(name, found.astype(np.float32), len(wave) / RATE)

    def score(self, enrolment: np.ndarray, test: np.ndarray, name: str) -> float:
        """Return the score of two recordings.

        Args:
            enrolment: (samples,) at 16 kHz, of the claimed speaker.
            test: (samples,) at 16 kHz.
            name: of both, for messages.
        """
        found = self._called(name, enrolment, test)
        if found.size != 1:
            raise SasvError(
                f"{self.text}: returned an array of shape {found.shape} for {name}; of two "
                "recordings it has to return one number"
            )
        return float(found.reshape(-1)[0])

    def _called(self, name: str, *waves: np.ndarray) -> np.ndarray:
        """Return what the function gives as finite numbers."""
        try:
            value = self.function(*(wave.copy() for wave in waves))
            if hasattr(value, "detach"):  # a tensor of PyTorch
                value = value.detach().cpu().numpy()
            found = np.asarray(value, np.float64)
        except Exception as error:
            raise SasvError(f"{self.text}: failed on {name}: {reason_of(error)}") from error
        if not np.isfinite(found).all():
            raise SasvError(
                f"{self.text}: returned a number that is not finite (NaN or infinite) for {name}"
            )
        return found


def is_function(text: str) -> bool:
    """Whether a system is given as ``module:function``."""
    return bool(CALLABLE.fullmatch(text)) and not Path(text).exists()


def load_function(text: str, name: str = "") -> FunctionSystem:
    """Import ``module:function``; modules are looked for in the working folder as well.

    Args:
        text: ``module:function``.
        name: for reports; left out, ``text``.

    Raises:
        SasvError: there is no such module or function, it cannot be imported, or it takes neither
            one nor two recordings.
    """
    module_name, _, path = text.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module_name}.".startswith(f"{error.name}."):
            raise SasvError(
                f"{text}: there is no module {error.name}, neither in {here} nor among the "
                "installed packages; for a file system.py in this folder write system:FUNCTION"
            ) from error
        raise SasvError(f"{text}: importing {module_name} failed: {reason_of(error)}") from error
    except Exception as error:
        raise SasvError(f"{text}: importing {module_name} failed: {reason_of(error)}") from error
    for part in path.split("."):
        if not hasattr(found, part):
            raise SasvError(f"{text}: the module {module_name} has no {path}")
        found = getattr(found, part)
    return FunctionSystem(name or text, text, found, recordings_taken(text, found) == 2)


def recordings_taken(text: str, function: Any) -> int:
    """Return how many recordings a function takes, 1 or 2. SasvError if it is neither."""
    if not callable(function):
        raise SasvError(f"{text}: is {type(function).__name__}, not a function")
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError) as error:
        raise SasvError(
            f"{text}: its parameters are not known; wrap it in a function of one recording (to a "
            "vector) or of two (to a score)"
        ) from error
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    needed = [
        one
        for one in parameters
        if one.default is inspect.Parameter.empty
        and one.kind in (*positional, inspect.Parameter.KEYWORD_ONLY)
    ]
    if len(needed) not in (1, 2) or any(one.kind not in positional for one in needed):
        names = ", ".join(one.name for one in needed) or "none"
        raise SasvError(
            f"{text}: its parameters without a default are: {names}; a system takes one recording "
            "and returns a vector, or takes two and returns a score"
        )
    return len(needed)


def decision_on(
    verifier: Verifier, enrolment: Sequence[Recording], test: Recording
) -> tuple[float, Outcome | None]:
    """Return the number that a system decides by, and its outcome, None if it has no threshold.

    A recording that does not hold the system's limits has a number as well, and the outcome
    inconclusive. The number is NaN where there is nothing to compare.

    Args:
        verifier: of the system.
        enrolment: recordings of the claimed speaker.
        test: the tested recording.
    """
    decides = verifier.decides
    deciding = verifier if decides else verifier.with_threshold(0.0)
    open_limits = replace(ANY_SPEECH, min_agreement=verifier.limits.min_agreement)
    decision = replace(deciding, limits=open_limits).decide(enrolment, test)
    by_ratio = decision.llrs and not deciding.given
    number = (decision.llrs if by_ratio else decision.scores).get(SASV, float("nan"))
    if not decides:
        return number, None
    limits = verifier.limits
    if limits.enrolment_faults(enrolment) or limits.faults(test):
        return number, Outcome.INCONCLUSIVE
    return number, decision.outcome


def own_threshold(verifier: Verifier) -> tuple[float | None, str]:
    """Return the number from which a system accepts, and where it comes from in words; None if it
    has no threshold.
    """
    if not verifier.decides:
        return None, ""
    bounds = verifier.decide([], Recording("nothing", None, 0.0))
    if bounds.llr_thresholds and not verifier.given:
        return bounds.llr_thresholds[SASV], f"log-likelihood ratio; {bounds.threshold_source}"
    return bounds.thresholds[SASV], bounds.threshold_source

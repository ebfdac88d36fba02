"""The systems to test: models of sasv, and any Python functions.

A function takes one recording, float32 samples at 16 kHz, and returns a vector, which is compared
by the cosine; or it takes an enrolment and a test recording and returns a score, which is high for
bona fide speech of the same speaker.
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
from sasv.decision import ANY_SPEECH, Outcome, Recording, Verifier
from sasv.decision.outcome import SASV
from sasv.runtime.embedder import Embedder

CALLABLE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
"""``module:function``."""


class System:
    """A system under test that compares embeddings.

    Attributes:
        name: for reports.
        text: the option as the user gave it.
        verifier: how it decides; its limits are those of the system.
        compares: whether a function compares two recordings, instead of embeddings being compared.
    """

    compares = False

    def __init__(self, name: str, text: str, verifier: Verifier):
        self.name = name
        self.text = text
        self.verifier = verifier

    @property
    def identity(self) -> str:
        """A string that changes if the results of the system may change."""
        raise NotImplementedError

    def embed(self, wave: np.ndarray, name: str) -> Recording:
        """Return the input of a verifier for a recording.

        Args:
            wave: (samples,) at 16 kHz.
            name: of the recording, for messages.

        Raises:
            AudioError: the recording cannot be embedded.
            SasvError: the system failed.
        """
        raise NotImplementedError


class ModelSystem(System):
    """A checkpoint or an exported model, used in the same way as by ``sasv verify``."""

    def __init__(self, name: str, text: str, model: Embedder, verifier: Verifier):
        super().__init__(name, text, verifier)
        self.model = model
        own = verifier.limits
        self.limits = replace(
            ANY_SPEECH, max_pause=own.max_pause, min_self_agreement=own.min_self_agreement
        )

    @property
    def identity(self) -> str:
        """Fingerprint of the network and of the settings for embedding."""
        limits = self.limits
        return (
            f"{self.model.fingerprint} {self.model.extraction} {limits.max_pause} "
            f"{limits.min_self_agreement}"
        )

    def embed(self, wave: np.ndarray, name: str) -> Recording:
        """Return the input of a verifier for a recording."""
        rate = self.model.specification.sample_rate
        if rate != RATE:
            wave = soxr.resample(wave, RATE, rate)
        return self.model.recording(wave, self.limits, name)


class FunctionSystem(System):
    """A Python function.

    Args:
        name: for reports.
        text: ``module:function``.
        function: returns a vector for samples, or a score for two recordings.
        compares: whether it takes two recordings.
    """

    def __init__(self, name: str, text: str, function: Callable[..., Any], compares: bool):
        super().__init__(name, text, Verifier())
        self.function = function
        self.compares = compares
        self.size = 0

    @property
    def identity(self) -> str:
        """The name of the function and the digest of its source file. Weights that it reads from
        other files are not included.
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
                f"{self.text}: returned an array of shape {found.shape} for {name}, but must "
                "return a vector"
            )
        if self.size and len(found) != self.size:
            raise SasvError(
                f"{self.text}: returned {len(found)} numbers for {name}, but {self.size} for the "
                "recording before; all vectors must have the same size"
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
            name: name of both, for messages.
        """
        found = self._called(name, enrolment, test)
        if found.size != 1:
            raise SasvError(
                f"{self.text}: returned an array of shape {found.shape} for {name}, but must "
                "return a single number for two recordings"
            )
        return float(found.reshape(-1)[0])

    def _called(self, name: str, *waves: np.ndarray) -> np.ndarray:
        """Return the result of the function as finite numbers."""
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
    """Import ``module:function``. Modules in the working folder are found as well.

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
                f"{text}: there is no module {error.name} in {here} or among the installed "
                "packages; for a file system.py in this folder, write system:FUNCTION"
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
    """Return the number of recordings that a function takes, 1 or 2. Raises SasvError if it takes
    another number.
    """
    if not callable(function):
        raise SasvError(
            f"{text}: this is an object of type {type(function).__name__}, not a function"
        )
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError) as error:
        raise SasvError(
            f"{text}: its parameters are unknown; wrap it in a function that takes one recording "
            "and returns a vector, or takes two and returns a score"
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
    """Return the number used for the decision, and its outcome, which is None if there is no
    threshold.

    For a recording that does not meet the limits of the system, there is a number as well, and the
    outcome is inconclusive. The number is NaN if there is nothing to compare.

    Args:
        verifier: verifier of the system.
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
    """Return the threshold of a system and its origin in words. The threshold is None if there is
    none.
    """
    if not verifier.decides:
        return None, ""
    bounds = verifier.decide([], Recording("nothing", None, 0.0))
    if bounds.llr_thresholds and not verifier.given:
        return bounds.llr_thresholds[SASV], f"log-likelihood ratio; {bounds.threshold_source}"
    return bounds.thresholds[SASV], bounds.threshold_source

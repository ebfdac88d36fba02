"""Error rates of a system under each condition, with intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np

from sasv.core.errors import SasvError
from sasv.decision import Outcome, Recording
from sasv.metrics.curve import NONTARGET, SPOOF, TARGET, Points
from sasv.metrics.intervals import Difference, Interval, Samples, differences, percentiles
from sasv.metrics.intervals import samples_of as resampled
from sasv.metrics.summary import Values
from sasv.stress.conditions import CLEAN
from sasv.stress.passing import Passed
from sasv.stress.speech import Claim
from sasv.stress.systems import System, decision_on, own_threshold

FEWEST_SPEAKERS = 5
"""Of fewer speakers there are no intervals: they would say more than is known."""

LEVEL = 0.95

MISS = "miss"
INCONCLUSIVE = "inconclusive"
OTHERS = "others"
SV_EER = "sv_eer"
EERS = {"sasv_eer": (NONTARGET, SPOOF), SV_EER: (NONTARGET,), "spf_eer": (SPOOF,)}
"""What targets are set against in each equal error rate."""


class Threshold(NamedTuple):
    """From which number a system accepts.

    Attributes:
        value: the number.
        source: where it comes from, in words.
        own: whether it is the system's own, and was not chosen on this very speech.
    """

    value: float
    source: str
    own: bool


@dataclass
class Heard:
    """What a system says of all claims after one condition.

    Attributes:
        numbers: (claims,) what it decides by; NaN where there is none.
        outcomes: (claims,) verdicts; None of a system without a threshold.
        reasons: recording -> why it could not be used.
    """

    numbers: np.ndarray
    outcomes: list[Outcome | None]
    reasons: dict[str, str] = field(default_factory=dict)

    def accepted(self, threshold: Threshold) -> np.ndarray:
        """Return (claims,) whether each is accepted."""
        if any(outcome is not None for outcome in self.outcomes):
            return np.array([outcome is Outcome.ACCEPT for outcome in self.outcomes])
        found: np.ndarray = np.nan_to_num(self.numbers, nan=-np.inf) >= threshold.value
        return found

    @property
    def inconclusive(self) -> np.ndarray:
        """(claims,) whether each got no verdict."""
        undecided = np.array([one is Outcome.INCONCLUSIVE for one in self.outcomes])
        found: np.ndarray = undecided | ~np.isfinite(self.numbers)
        return found

    @property
    def ranks(self) -> np.ndarray:
        """(claims,) numbers that are all finite: what could not be heard lies below all others,
        because it is not accepted.
        """
        known = self.numbers[np.isfinite(self.numbers)]
        lowest = float(known.min()) - 1.0 if len(known) else 0.0
        return np.where(np.isfinite(self.numbers), self.numbers, lowest)


class Rates:
    """Error rates of some claims, in percent: a ``Measurable``.

    Args:
        numbers: (claims,) finite, high for acceptance.
        accepted: (claims,) verdicts.
        inconclusive: (claims,) claims without a verdict.
        labels: (claims,) 0 target, 1 nontarget, 2 spoof.
        attacks: (claims,) attack of each spoof.
    """

    def __init__(
        self,
        numbers: np.ndarray,
        accepted: np.ndarray,
        inconclusive: np.ndarray,
        labels: np.ndarray,
        attacks: np.ndarray,
    ):
        self._labels = labels
        self.accepted = accepted
        self.inconclusive = inconclusive
        self.rows = {OTHERS: np.flatnonzero(labels == NONTARGET)}
        spoofs = labels == SPOOF
        for attack in sorted(set(attacks[spoofs].tolist())):
            self.rows[attack] = np.flatnonzero(spoofs & (attacks == attack))
        self.targets = np.flatnonzero(labels == TARGET)
        self.parts = {
            name: self._points(numbers, rows) for name, rows in self.rows.items() if len(rows)
        }
        self.all = Points(numbers, labels)

    def _points(self, numbers: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, Points]:
        chosen = np.concatenate([self.targets, rows])
        kinds = np.repeat(np.array([TARGET, NONTARGET], np.int8), [len(self.targets), len(rows)])
        return chosen, Points(numbers[chosen], kinds)

    @property
    def labels(self) -> np.ndarray:
        """(claims,) 0 target, 1 nontarget, 2 spoof."""
        return self._labels

    def __call__(self, weights: np.ndarray | None = None) -> Values:
        """Return the rates by name; None where claims of a kind are missing.

        ``miss`` and ``inconclusive`` are shares of the targets; ``accepted.others`` and
        ``accepted.ATTACK`` of the claims by others and by spoofs; ``sasv_eer``, ``sv_eer``,
        ``spf_eer``, and ``eer.ATTACK`` set targets against these.
        """
        found: Values = {
            MISS: share(~self.accepted, self.targets, weights),
            INCONCLUSIVE: share(self.inconclusive, self.targets, weights),
        }
        found |= equal_errors(self.all, weights, EERS)
        for name, rows in self.rows.items():
            found[f"accepted.{name}"] = share(self.accepted, rows, weights)
        for name, (chosen, points) in self.parts.items():
            if name != OTHERS:
                own = None if weights is None else weights[chosen]
                found |= equal_errors(points, own, {f"eer.{name}": (NONTARGET,)})
        return found


def share(marked: np.ndarray, rows: np.ndarray, weights: np.ndarray | None) -> float | None:
    """Return the share of some claims that are marked, in percent; None of none."""
    counts = np.ones(len(rows)) if weights is None else weights[rows]
    total = counts.sum()
    return float(100 * (counts * marked[rows]).sum() / total) if total else None


def equal_errors(
    points: Points, weights: np.ndarray | None, kinds: Mapping[str, tuple[int, ...]]
) -> Values:
    """Return equal error rates in percent; None where claims are missing.

    Args:
        points: the claims.
        weights: how often each counts.
        kinds: name of a rate -> what targets are set against.
    """
    try:
        curve = points.curve(weights)
    except SasvError:
        return dict.fromkeys(kinds)
    found = {name: curve.eer(*against) for name, against in kinds.items()}
    return {name: None if one is None else 100 * one.rate for name, one in found.items()}


@dataclass
class Measured:
    """A system after one condition.

    Attributes:
        values: rates by name (see Rates).
        intervals: their intervals; empty of few speakers.
        samples: the rates in the resamples.
        against: system -> differences of these rates from those of the first system.
        unheard: recordings that could not be used, with the reasons.
    """

    values: Values
    intervals: dict[str, Interval | None]
    samples: Samples
    against: dict[str, dict[str, Difference]] = field(default_factory=dict)
    unheard: dict[str, str] = field(default_factory=dict)


@dataclass
class Result:
    """A system after all conditions."""

    system: System
    threshold: Threshold
    heard: dict[str, Heard]
    measured: dict[str, Measured]


@dataclass(frozen=True)
class Claims:
    """All claims of a test as arrays, the same after each condition."""

    rows: Sequence[Claim]

    @cached_property
    def labels(self) -> np.ndarray:
        """(claims,) 0 target, 1 nontarget, 2 spoof."""
        return np.array([claim.label for claim in self.rows], np.int8)

    @cached_property
    def attacks(self) -> np.ndarray:
        """(claims,) attack of each."""
        return np.array([claim.attack for claim in self.rows])

    @cached_property
    def speakers(self) -> np.ndarray:
        """(claims,) index of the claimed speaker."""
        return np.unique([claim.speaker for claim in self.rows], return_inverse=True)[1]

    def speakers_of(self, kind: str) -> int:
        """Return how many claimed speakers have claims of a kind: ``miss`` (the targets),
        ``others``, an attack, or an empty text for all spoofs.
        """
        if kind == MISS:
            chosen = self.labels == TARGET
        elif kind == OTHERS:
            chosen = self.labels == NONTARGET
        else:
            chosen = self.labels == SPOOF
            if kind:
                chosen &= self.attacks == kind
        return len(set(self.speakers[chosen].tolist()))

    @property
    def kinds(self) -> dict[str, int]:
        """Claims by others, and by each attack -> their number."""
        found = {OTHERS: int((self.labels == NONTARGET).sum())}
        for attack in sorted(set(self.attacks[self.labels == SPOOF].tolist())):
            found[attack] = int(((self.labels == SPOOF) & (self.attacks == attack)).sum())
        return found


def hear(
    system: System,
    claims: Claims,
    passed: Mapping[tuple[str, str], Passed],
    enrolments: Mapping[str, Sequence[str]],
    conditions: Sequence[str],
) -> dict[str, Heard]:
    """Return what a system says of all claims after each condition.

    Args:
        system: the system.
        claims: all claims.
        passed: (recording, condition) -> what the system made of it.
        enrolments: speaker -> recordings.
        conditions: their names.
    """
    if system.compares:
        return {name: compared(system, claims, passed, name) for name in conditions}
    enrolled = {
        speaker: [
            one
            for one in (passed[name, CLEAN] for name in names)
            if isinstance(one, Recording) and one.vector is not None
        ]
        for speaker, names in enrolments.items()
    }
    found = {}
    for condition in conditions:
        heard = Heard(np.full(len(claims.rows), np.nan), [])
        for row, claim in enumerate(claims.rows):
            test = passed[claim.recording, condition]
            outcome = Outcome.INCONCLUSIVE if system.verifier.decides else None
            if isinstance(test, Recording) and test.vector is not None and enrolled[claim.speaker]:
                heard.numbers[row], outcome = decision_on(
                    system.verifier, enrolled[claim.speaker], test
                )
            elif isinstance(test, str):
                heard.reasons[claim.recording] = test
            heard.outcomes.append(outcome)
        found[condition] = heard
    return found


def compared(
    system: System,
    claims: Claims,
    passed: Mapping[tuple[str, str], Passed],
    condition: str,
) -> Heard:
    """Return what a function of two recordings says of all claims after a condition."""
    numbers = np.full(len(claims.rows), np.nan)
    heard = Heard(numbers, [])
    seen: dict[str, int] = {}
    for row, claim in enumerate(claims.rows):
        scores = passed[claim.recording, condition]
        if isinstance(scores, str):
            heard.reasons[claim.recording] = scores
        elif isinstance(scores, np.ndarray):
            numbers[row] = scores[seen.get(claim.recording, 0)]
            seen[claim.recording] = seen.get(claim.recording, 0) + 1
        outcome = None
        if system.verifier.threshold is not None:
            outcome = Outcome.REJECT
            if numbers[row] >= system.verifier.threshold:
                outcome = Outcome.ACCEPT
            elif np.isnan(numbers[row]):
                outcome = Outcome.INCONCLUSIVE
        heard.outcomes.append(outcome)
    return heard


def threshold_of(system: System, claims: Claims, clean: Heard) -> Threshold:
    """Return the threshold of a system: its own, or the one at which, on the recordings as they
    are, it misses targets as often as it accepts other people.
    """
    value, source = own_threshold(system.verifier)
    if value is not None:
        return Threshold(value, source, True)
    points = Points(clean.ranks, claims.labels)
    found = points.curve().eer(NONTARGET)
    if found is None:
        raise SasvError(
            f"{system.name}: carries no threshold, and without claims by other people none can be "
            "chosen; give --threshold"
        )
    text = (
        "none of its own: the threshold at its equal error rate between targets and other people, "
        "on this very speech without a condition, so its errors are understated"
    )
    return Threshold(found.threshold, text, False)


def measure(
    systems: Sequence[tuple[System, Mapping[str, Heard]]],
    claims: Claims,
    repeats: int,
    seed: int,
) -> list[Result]:
    """Measure systems on the same claims, and compare each with the first.

    Args:
        systems: each with what it says after each condition.
        claims: all claims.
        repeats: resamples of the claimed speakers for intervals and tests; 0 for none.
        seed: of the resamples.
    """
    speakers = claims.speakers
    count = len(np.unique(speakers))
    if count < FEWEST_SPEAKERS:
        repeats = 0
    results = []
    for system, heard in systems:
        threshold = threshold_of(system, claims, heard[CLEAN])
        measured = {}
        for condition, one in heard.items():
            rates = Rates(
                one.ranks,
                one.accepted(threshold),
                one.inconclusive,
                claims.labels,
                claims.attacks,
            )
            samples = resampled([rates], speakers, repeats, seed)[0] if repeats else {}
            values = rates()
            spans = percentiles(samples, repeats, LEVEL) if repeats else {}
            spans = {
                name: widened(values[name], span, claims.speakers_of(kind_of(name)))
                for name, span in spans.items()
            }
            measured[condition] = Measured(values, spans, samples, unheard=one.reasons)
        results.append(Result(system, threshold, dict(heard), measured))
    first = results[0]
    for other in results[1:]:
        for condition, found in other.measured.items():
            base = first.measured[condition]
            if repeats:
                found.against[first.system.name] = differences(
                    base.values, found.values, base.samples, found.samples, repeats, LEVEL
                )
    return results


def widened(value: float | None, span: Interval | None, speakers: int) -> Interval | None:
    """Return the interval of a rate; None of few speakers.

    A resample cannot show what has not happened: where a rate is 0 or 100 % in every one of them,
    the interval is that of as many observations without an exception as there are speakers (Clopper
    and Pearson, 1934).

    Args:
        value: the rate.
        span: its interval over resamples.
        speakers: number of speakers with such claims.
    """
    if span is None or value is None or speakers < FEWEST_SPEAKERS:
        return None
    if span[0] < span[1]:
        return span
    bound = 100 * (1 - ((1 - LEVEL) / 2) ** (1 / speakers))
    if value == 0:
        return 0.0, bound
    return (100 - bound, 100.0) if value == 100 else span


def rate_name(kind: str) -> str:
    """Return the name of the error rate of a kind of claims."""
    return MISS if kind == MISS else f"accepted.{kind}"


def eer_name(kind: str) -> str:
    """Return the name of the equal error rate of a kind of claims."""
    return {MISS: "", OTHERS: SV_EER}.get(kind, f"eer.{kind}")


def kind_of(name: str) -> str:
    """Return the kind of claims that a rate is of; empty for all spoofs."""
    if name in (MISS, INCONCLUSIVE):
        return MISS
    if name == SV_EER:
        return OTHERS
    return name.partition(".")[2]

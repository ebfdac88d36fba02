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
"""Minimum number of speakers for intervals, which would be misleading for fewer."""

LEVEL = 0.95

MISS = "miss"
INCONCLUSIVE = "inconclusive"
OTHERS = "others"
SV_EER = "sv_eer"
EERS = {"sasv_eer": (NONTARGET, SPOOF), SV_EER: (NONTARGET,), "spf_eer": (SPOOF,)}
"""Classes against which targets are compared in each equal error rate."""


class Threshold(NamedTuple):
    """The threshold of a system.

    Attributes:
        value: scores of at least this value are accepted.
        source: origin of the threshold, in words.
        own: whether it is the system's own threshold, rather than chosen on the test speech.
    """

    value: float
    source: str
    own: bool


@dataclass
class Heard:
    """The results of a system for all claims under one condition.

    Attributes:
        numbers: (claims,) scores or log-likelihood ratios used for the decision; NaN if there is
            none.
        outcomes: (claims,) verdicts; None for a system without a threshold.
        reasons: recording -> reason why it could not be used.
    """

    numbers: np.ndarray
    outcomes: list[Outcome | None]
    reasons: dict[str, str] = field(default_factory=dict)

    def accepted(self, threshold: Threshold) -> np.ndarray:
        """Return whether each claim is accepted, (claims,)."""
        if any(outcome is not None for outcome in self.outcomes):
            return np.array([outcome is Outcome.ACCEPT for outcome in self.outcomes])
        found: np.ndarray = np.nan_to_num(self.numbers, nan=-np.inf) >= threshold.value
        return found

    @property
    def inconclusive(self) -> np.ndarray:
        """(claims,) whether there was no verdict."""
        undecided = np.array([one is Outcome.INCONCLUSIVE for one in self.outcomes])
        found: np.ndarray = undecided | ~np.isfinite(self.numbers)
        return found

    @property
    def ranks(self) -> np.ndarray:
        """(claims,) finite numbers. Recordings that could not be used have a lower number than all
        others, because they are not accepted.
        """
        known = self.numbers[np.isfinite(self.numbers)]
        lowest = float(known.min()) - 1.0 if len(known) else 0.0
        return np.where(np.isfinite(self.numbers), self.numbers, lowest)


class Rates:
    """Error rates of some claims, in percent: a ``Measurable``.

    Args:
        numbers: (claims,) finite numbers, higher for acceptance.
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
        """Return the rates by name; None if there are no claims of a kind.

        ``miss`` and ``inconclusive`` are shares of the target claims. ``accepted.others`` and
        ``accepted.ATTACK`` are shares of the claims by other people and by the spoofs of an attack.
        ``sasv_eer``, ``sv_eer``, ``spf_eer``, and ``eer.ATTACK`` are equal error rates of targets
        against these.
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
    """Return the percentage of claims that are marked, or None if there are no claims."""
    counts = np.ones(len(rows)) if weights is None else weights[rows]
    total = counts.sum()
    return float(100 * (counts * marked[rows]).sum() / total) if total else None


def equal_errors(
    points: Points, weights: np.ndarray | None, kinds: Mapping[str, tuple[int, ...]]
) -> Values:
    """Return equal error rates in percent, or None if claims are missing.

    Args:
        points: the claims.
        weights: weight of each claim.
        kinds: name of a rate -> classes against which targets are compared.
    """
    try:
        curve = points.curve(weights)
    except SasvError:
        return dict.fromkeys(kinds)
    found = {name: curve.eer(*against) for name, against in kinds.items()}
    return {name: None if one is None else 100 * one.rate for name, one in found.items()}


@dataclass
class Measured:
    """The error rates of a system under one condition.

    Attributes:
        values: rates by name (see Rates).
        intervals: their intervals; empty if there are few speakers.
        samples: the rates in the bootstrap samples.
        against: system -> differences of these rates from those of the first system.
        unheard: recording -> reason why it could not be used.
    """

    values: Values
    intervals: dict[str, Interval | None]
    samples: Samples
    against: dict[str, dict[str, Difference]] = field(default_factory=dict)
    unheard: dict[str, str] = field(default_factory=dict)


@dataclass
class Result:
    """The results of a system under all conditions."""

    system: System
    threshold: Threshold
    heard: dict[str, Heard]
    measured: dict[str, Measured]


@dataclass(frozen=True)
class Claims:
    """All claims of a test as arrays, the same under each condition."""

    rows: Sequence[Claim]

    @cached_property
    def labels(self) -> np.ndarray:
        """(claims,) 0 target, 1 nontarget, 2 spoof."""
        return np.array([claim.label for claim in self.rows], np.int8)

    @cached_property
    def attacks(self) -> np.ndarray:
        """(claims,) attack of each claim."""
        return np.array([claim.attack for claim in self.rows])

    @cached_property
    def speakers(self) -> np.ndarray:
        """(claims,) index of the claimed speaker."""
        return np.unique([claim.speaker for claim in self.rows], return_inverse=True)[1]

    def speakers_of(self, kind: str) -> int:
        """Return the number of claimed speakers with claims of a kind: ``miss`` (the targets),
        ``others``, an attack, or "" for all spoofs.
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
        """Number of claims by other people, and of spoofs of each attack."""
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
    """Return the results of a system for all claims under each condition.

    Args:
        system: the system.
        claims: all claims.
        passed: (recording, condition) -> output of the system.
        enrolments: speaker -> recordings.
        conditions: names of the conditions.
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
    """Return the results of a function of two recordings for all claims under a condition."""
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
    """Return the threshold of a system: its own, or the one at which, on unchanged recordings, it
    misses targets as often as it accepts other people.
    """
    value, source = own_threshold(system.verifier)
    if value is not None:
        return Threshold(value, source, True)
    points = Points(clean.ranks, claims.labels)
    found = points.curve().eer(NONTARGET)
    if found is None:
        raise SasvError(
            f"{system.name}: the system has no threshold, and none can be chosen because there are "
            "no claims by other people; give --threshold"
        )
    text = (
        "the system has none of its own, so this is the threshold at its equal error rate between "
        "targets and other people on this speech without a condition; its errors are therefore "
        "understated"
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
        systems: each system with its results under each condition.
        claims: all claims.
        repeats: number of bootstrap samples over claimed speakers for intervals and tests; 0 for
            none.
        seed: random seed of the bootstrap.
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
    """Return the interval of a rate, or None if there are few speakers.

    If a rate is 0 or 100 % in every bootstrap sample, resampling cannot give an interval. The
    interval is then the exact one of Clopper and Pearson (1934), with one observation for each
    speaker.

    Args:
        value: the rate.
        span: its bootstrap interval.
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
    """Return the kind of claims to which a rate refers; "" for all spoofs."""
    if name in (MISS, INCONCLUSIVE):
        return MISS
    if name == SV_EER:
        return OTHERS
    return name.partition(".")[2]

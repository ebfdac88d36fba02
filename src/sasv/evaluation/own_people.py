"""Trials among the user's own people, with copies as spoofs, and the error rates to expect for
them.
"""

import logging
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sasv.audio import read_audio
from sasv.calibration import Backend, ThreeWay, fit_backend, fit_three_way
from sasv.calibration.three_way import CM_SCORE, NORM
from sasv.core.errors import AudioError, MissingExtra, SasvError, listed
from sasv.core.progress import Progress
from sasv.corpora import folder as speaker_folders
from sasv.decision import Outcome, Recording, SpeechLimits, Verifier
from sasv.decision.recording import bandwidths_of
from sasv.decision.verifier import SCORE
from sasv.metrics import CostModel
from sasv.metrics.curve import NONTARGET, SPOOF, TARGET
from sasv.runtime.embedder import Embedder
from sasv.runtime.windows import any_recording
from sasv.scores.quality import BANDWIDTH, ENROLMENT_BANDWIDTH, Bandwidths
from sasv.scores.spoofing import SpoofHead
from sasv.tables import drawn_impostors
from sasv.vocoders import Vocoder, make_vocoder

logger = logging.getLogger("sasv")

LEAST_PEOPLE = 4
"""Minimum number of people: two to fit to, and two to measure on."""

ENOUGH_PEOPLE = 30
"""Number of people that shows an error rate to be low. If none of n people has an error, the rate
may still be 3/n (at 95 %), which is 10 % for this number.
"""

MOST_RECORDINGS = 10
"""Maximum number of recordings of each person; if there are more, they are chosen at even
distances.
"""

ENROLMENTS = 3
"""Number of enrolment recordings of each person, or one fewer than there are recordings."""

IMPOSTORS = 3
"""Number of recordings of each other person that are tested against a person."""

FOLDS = 5
COPY_SECONDS = 30.0
"""Only this many seconds from the start of a recording are copied."""

QUANTILE = 1.96
"""Quantile of the normal distribution for intervals of 95 %."""

KINDS = {TARGET: "miss", NONTARGET: "false_nontarget", SPOOF: "false_spoof"}


class Sample(NamedTuple):
    """A recording, or a copy of one.

    Attributes:
        person: the person who speaks, or who is imitated.
        recording: what the model computes from the recording.
        attack: vocoder of a copy; empty for a recording.
        source: row of the recording that was copied; for a recording, its own row.
    """

    person: int
    recording: Recording
    attack: str
    source: int


@dataclass(frozen=True)
class OwnTrials:
    """Trials among people.

    Attributes:
        people: the names of the people.
        samples: recordings and copies.
        members: rows of the enrolment samples, one array for each trial.
        tested: (trials,) row of the tested sample.
        claimed: (trials,) the claimed person.
        labels: (trials,) 0 target, 1 nontarget, 2 spoof.
    """

    people: list[str]
    samples: list[Sample]
    members: list[list[int]]
    tested: np.ndarray
    claimed: np.ndarray
    labels: np.ndarray

    @property
    def vectors(self) -> np.ndarray:
        """(samples, dimension), raw embeddings."""
        return np.stack([np.asarray(one.recording.vector) for one in self.samples])

    @property
    def attacks(self) -> np.ndarray:
        """(trials,) vocoder of the tested copy; empty if a recording is tested."""
        names = np.array([one.attack for one in self.samples])
        found: np.ndarray = names[self.tested]
        return found

    @property
    def testers(self) -> np.ndarray:
        """(trials,) the person of the tested sample."""
        people = np.array([one.person for one in self.samples])
        found: np.ndarray = people[self.tested]
        return found

    @property
    def bandwidths(self) -> Bandwidths:
        """Bandwidths of the tested samples and of the enrolments, (trials,) each, in Hz."""
        pairs = [
            bandwidths_of(
                [self.samples[row].recording for row in members], self.samples[tested].recording
            )
            for members, tested in zip(self.members, self.tested)
        ]
        return Bandwidths(*np.array(pairs, np.float64).T)

    def scores(self, verifier: Verifier) -> np.ndarray:
        """Return the scores that a verifier computes, (trials,)."""
        rows = np.arange(len(self.tested))
        return verifier.scoring.score(self.vectors, self.members, rows, self.tested)

    def outcomes(self, verifier: Verifier, trials: np.ndarray) -> list[Outcome]:
        """Return the decisions of a verifier on some trials, given as rows."""
        return [
            verifier.decide(
                [self.samples[row].recording for row in self.members[trial]],
                self.samples[self.tested[trial]].recording,
            ).outcome
            for trial in trials
        ]


@dataclass(frozen=True)
class ExpectedError:
    """An error rate with an interval of 95 %.

    The sample consists of people, not of trials, because the trials of one person are similar. The
    interval is the Wilson interval for the mean of their rates, under the assumption that all
    trials of a person are errors or none is, which gives the widest interval.

    Attributes:
        rate: mean of the rates of the people.
        low, high: ends of the interval.
        people: number of claimed people.
        trials: number of trials.
    """

    rate: float
    low: float
    high: float
    people: int
    trials: int

    @classmethod
    def of(cls, errors: np.ndarray, people: np.ndarray) -> "ExpectedError":
        """Compute the rate and its interval.

        Args:
            errors: (trials,) whether each is an error.
            people: (trials,) the claimed person.
        """
        rates = [errors[people == one].mean() for one in np.unique(people)]
        count = len(rates)
        rate = float(np.mean(rates))
        square = QUANTILE**2
        middle = (rate + square / (2 * count)) / (1 + square / count)
        spread = QUANTILE * np.sqrt(rate * (1 - rate) / count + square / (4 * count**2))
        spread /= 1 + square / count
        low = max(0.0, float(middle - spread))
        high = min(1.0, float(middle + spread))
        return cls(rate, low if rate > 0 else 0.0, high if rate < 1 else 1.0, count, len(errors))


def own_trials(
    embedder: Embedder, limits: SpeechLimits, folder: Path, vocoders: Sequence[str]
) -> OwnTrials:
    """Embed the recordings of people, copy them with vocoders, and draw trials.

    Each recording, and each of its copies, is tested once against the other recordings of its
    person. Recordings of the other people are tested against each person.

    Args:
        embedder: the model.
        limits: requirements on recordings; those that do not meet them are left out and logged.
        folder: folder with one subfolder for each person.
        vocoders: names of the vocoders that make copies; those whose package is not installed are
            left out.

    Raises:
        SasvError: there are fewer than four people, or one has fewer than two usable recordings.
    """
    paths = recordings_of(folder)
    people = sorted(paths)
    samples: list[Sample] = []
    makers = available(vocoders)
    with Progress("embed", sum(map(len, paths.values()))) as progress:
        for person, name in enumerate(people):
            for path in paths[name]:
                samples += _sampled(embedder, limits, path, person, len(samples), makers)
                progress.add()
    recorded: list[list[int]] = [[] for _ in people]
    for row, sample in enumerate(samples):
        if not sample.attack:
            recorded[sample.person].append(row)
    _check_several(folder, people, [len(rows) for rows in recorded], "with speech")
    return drawn(people, samples, recorded)


def available(vocoders: Sequence[str]) -> dict[str, Vocoder]:
    """Return the vocoders whose packages are installed: name -> vocoder."""
    found = {}
    for name in vocoders:
        try:
            found[name] = make_vocoder(name)
        except MissingExtra as error:
            logger.warning(f"no copies are made with {name}: {error}")
    return found


def recordings_of(folder: Path) -> dict[str, list[str]]:
    """Return the recordings in the subfolders of a folder: name of the person -> paths.

    Raises:
        SasvError: there are fewer than four people, or one has a single recording.
    """
    found: dict[str, list[str]] = {}
    for row in speaker_folders.read(folder).utterances:
        found.setdefault(row.speaker, []).append(str(folder / row.path))
    _check_several(folder, list(found), [len(paths) for paths in found.values()], "")
    if len(found) < LEAST_PEOPLE:
        raise SasvError(
            f"{folder}: the folder contains recordings of {len(found)} people, but at least "
            f"{LEAST_PEOPLE} are needed, two to fit a calibration and two to measure it, and "
            f"{ENOUGH_PEOPLE} for useful error rates"
        )
    for name, paths in found.items():
        if len(paths) > MOST_RECORDINGS:
            rows = np.linspace(0, len(paths) - 1, MOST_RECORDINGS).round().astype(int)
            found[name] = [paths[row] for row in rows]
    return found


def _check_several(folder: Path, people: Sequence[str], counts: Sequence[int], what: str) -> None:
    """Raise SasvError if a person has fewer than two recordings."""
    few = [name for name, count in zip(people, counts) if count < 2]
    if few:
        kind = f" {what}" if what else ""
        raise SasvError(
            f"{folder}: there are fewer than two recordings{kind} of {listed(few)}, one to enrol "
            "and one to test; add recordings, or move these people to another folder"
        )


def _sampled(
    embedder: Embedder,
    limits: SpeechLimits,
    path: str,
    person: int,
    row: int,
    makers: dict[str, Vocoder],
) -> list[Sample]:
    """Return a recording and its copies; if it cannot be compared, log why and return nothing."""
    try:
        recording = any_recording(embedder, path, limits)
    except AudioError as error:
        logger.warning(f"left out: {error}")
        return []
    faults = limits.faults(recording)
    if faults:
        logger.warning(f"left out: {faults[0].text}")
        return []
    found = [Sample(person, recording, "", row)]
    rate = embedder.specification.sample_rate
    channel = embedder.extraction.channel
    wave = read_audio(path, 0, round(COPY_SECONDS * rate), rate, channel=channel)
    for name, vocoder in makers.items():
        copy = vocoder(wave, rate, zlib.crc32(name.encode()))
        copied = embedder.recording(copy, limits, f"{path} by {name}")
        if not limits.faults(copied):
            found.append(Sample(person, copied, name, row))
    return found


def drawn(people: list[str], samples: list[Sample], recorded: list[list[int]]) -> OwnTrials:
    """Draw the trials.

    Args:
        people: their names.
        samples: recordings and copies.
        recorded: for each person, the rows of the recordings.
    """
    members: list[list[int]] = []
    tested: list[int] = []
    claimed: list[int] = []
    labels: list[int] = []

    def add(person: int, without: int, test: int, label: int) -> None:
        rows = recorded[person]
        start = without % len(rows)
        members.append([row for row in rows[start:] + rows[:start] if row != without][:ENROLMENTS])
        tested.append(test)
        claimed.append(person)
        labels.append(label)

    for row, sample in enumerate(samples):
        label = SPOOF if sample.attack else TARGET
        add(sample.person, sample.source, row, label)
    rng = np.random.default_rng(0)
    for person, own in enumerate(recorded):
        most = IMPOSTORS * (len(people) - 1)
        for count, row in enumerate(drawn_impostors(dict(enumerate(recorded)), person, most, rng)):
            add(person, own[count % len(own)], row, NONTARGET)
    return OwnTrials(
        people, samples, members, np.array(tested), np.array(claimed), np.array(labels)
    )


def columns_of(
    trials: OwnTrials, verifier: Verifier, head: SpoofHead | None
) -> dict[str, np.ndarray]:
    """Return the columns for the fit, each (trials,): ``score`` and, with a spoof head,
    ``cm_score`` and ``norm`` of the tested sample, and the bandwidths of both sides.
    """
    columns = {SCORE: trials.scores(verifier)}
    if head is not None:
        vectors = trials.vectors
        columns[CM_SCORE] = head.scores(vectors)[trials.tested]
        columns[NORM] = np.linalg.norm(vectors, axis=1)[trials.tested]
        sides = trials.bandwidths
        columns |= {BANDWIDTH: sides.tested, ENROLMENT_BANDWIDTH: sides.enrolled}
    return columns


@dataclass(frozen=True)
class Fitting:
    """How a calibration is fitted to trials.

    Attributes:
        trials: the trials.
        columns: the columns of all trials (see ``columns_of``).
        verifier: computes the scores, and has the requirements on recordings.
        head: spoof head of the model, for a three-way calibration; None for a calibration of the
            score.
        costs: priors and costs.
        source: description of the trials.
        spoof_axis: see ThreeWay.
    """

    trials: OwnTrials
    columns: dict[str, np.ndarray]
    verifier: Verifier
    head: SpoofHead | None
    costs: CostModel
    source: str
    spoof_axis: bool = False

    def parts(self, rows: np.ndarray) -> tuple[Backend, ThreeWay | None]:
        """Return the calibration of the score, and the three-way calibration, fitted to some
        trials.
        """
        columns = {name: values[rows] for name, values in self.columns.items()}
        labels = self.trials.labels[rows]
        score = {SCORE: columns[SCORE]}
        backend = fit_backend(score, labels, self.costs, source=self.source)
        if self.head is None:
            return backend, None
        attacks = self.trials.attacks[rows]
        before = self.verifier.three_way
        three_way = fit_three_way(
            columns,
            labels,
            attacks.tolist(),
            self.costs,
            self.source,
            self.spoof_axis,
            None if before is None else before.calibration.narrow,
        )
        return backend, three_way

    def fitted(self, rows: np.ndarray) -> Verifier:
        """Return the verifier with a calibration that is fitted to some trials."""
        backend, three_way = self.parts(rows)
        found = Verifier(self.verifier.scoring, limits=self.verifier.limits).calibrated(backend)
        if self.head is not None and three_way is not None:
            found = found.with_three_way(three_way, self.head)
        return found


def expected_errors(fitting: Fitting) -> dict[str, ExpectedError]:
    """Return the errors on people who were left out of the fit. Each person is left out once.

    The fit uses neither recordings of the claimed person nor copies of them, but it may use the
    other people who are tested against this person.
    """
    trials = fitting.trials
    folds = min(FOLDS, len(trials.people) // 2)
    outcomes = np.empty(len(trials.tested), object)
    for fold in range(folds):
        held_out = trials.claimed % folds == fold
        touched = held_out | (trials.testers % folds == fold)
        verifier = fitting.fitted(np.flatnonzero(~touched))
        rows = np.flatnonzero(held_out)
        outcomes[rows] = trials.outcomes(verifier, rows)
    return errors_of(trials, outcomes)


def errors_of(trials: OwnTrials, outcomes: np.ndarray | list[Outcome]) -> dict[str, ExpectedError]:
    """Return the rate of each kind of error: ``miss``, ``false_nontarget``, ``false_spoof``."""
    accepted = np.array([outcome is Outcome.ACCEPT for outcome in outcomes])
    found = {}
    for label, name in KINDS.items():
        rows = trials.labels == label
        if rows.any():
            wrong = ~accepted[rows] if label == TARGET else accepted[rows]
            found[name] = ExpectedError.of(wrong, trials.claimed[rows])
    return found


def expected_cost(errors: dict[str, ExpectedError], costs: CostModel) -> float:
    """Return the cost of decisions with these error rates, divided by the cost of accepting
    everything or of rejecting everything, whichever is lower.
    """
    rates = [errors[name].rate if name in errors else 0.0 for name in KINDS.values()]
    return float(np.dot(costs.weights, rates)) / costs.default

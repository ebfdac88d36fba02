"""The speech of a stress test: enrolments, and the tested recordings.

Speakers and recordings are drawn with a seed. Recordings that cannot be read or contain too little
speech are left out in advance, so that all systems are tested on the same recordings.
"""

import logging
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sasv.audio import AUTO, RATE, check_speech, measure, read_audio
from sasv.audio.speech import net_speech
from sasv.core.errors import AudioError, SasvError, listed
from sasv.core.progress import Progress
from sasv.corpora.folder import read as read_folder
from sasv.storage import joined
from sasv.tables import (
    NONE,
    TRIAL_LABELS,
    Table,
    Utterances,
    drawn_impostors,
    load_enrolments,
    load_trials,
    load_utterances,
    needed_utterances,
)

logger = logging.getLogger("sasv")

ENROL = 3
"""Maximum number of enrolment recordings of a speaker; for a speaker with few recordings, half of
them are used.
"""

FEWEST = 2
"""Minimum number of speakers, because claims by other people are needed."""

TARGET, NONTARGET, SPOOF = range(len(TRIAL_LABELS))


@dataclass(frozen=True)
class Sizes:
    """Limits on the amount of speech in a test.

    Attributes:
        speakers: maximum number of speakers; 0 takes all.
        recordings: maximum number of tested recordings of a speaker, and of each attack on a
            speaker.
        impostors: maximum number of claims to be a speaker with recordings of other people.
        min_speech: seconds of speech that a recording must contain; 0 accepts anything.
        max_seconds: use at most this many seconds from the beginning of each recording.
        seed: random seed of all draws.
    """

    speakers: int = 20
    recordings: int = 2
    impostors: int = 20
    min_speech: float = 0.75
    max_seconds: float = 6.0
    seed: int = 0


class Claim(NamedTuple):
    """A claim that ``recording`` is bona fide speech of ``speaker``. The label is an index of
    ``TRIAL_LABELS``.
    """

    speaker: str
    recording: str
    label: int
    attack: str = NONE


@dataclass(frozen=True)
class Speech:
    """The speech of a test.

    Attributes:
        utterances: all recordings for enrolment or test.
        enrolments: speaker -> recordings.
        claims: the claims to decide on.
    """

    utterances: Utterances
    enrolments: dict[str, list[str]]
    claims: list[Claim]

    @property
    def targets(self) -> Utterances:
        """The tested bona fide recordings of enrolled speakers, in the order of the table."""
        wanted = {claim.recording for claim in self.claims if claim.label == TARGET}
        return self.utterances.take(np.array([name in wanted for name in self.utterances.ids]))


def find_speech(
    place: str, where: str, enrolments: str, trials: str, sizes: Sizes, channel: str = AUTO
) -> Speech:
    """Return the speech of a test.

    Args:
        place: folder with one subfolder for each speaker, or an utterance table (or the folder of
            ``utterances.tsv``).
        where: use only the rows with this ``column=value``.
        enrolments: enrolment table; empty draws enrolments.
        trials: trial table, all of whose trials are used; empty draws claims.
        sizes: limits on the amount of speech.
        channel: channel of recordings to use, if the table does not say.

    Raises:
        SasvError: the speech does not exist, or there are too few speakers with enough recordings.
    """
    table = load_speech(place, where)
    if trials:
        return of_trials(table, enrolments, trials)
    hearing = Hearing(table, sizes, channel)
    rng = np.random.default_rng([sizes.seed, 19])
    given = dict[str, list[str]]()
    if enrolments:
        loaded = load_enrolments(enrolments)
        given = dict(zip(loaded.speakers, loaded.utterances))
        unknown = [name for names in given.values() for name in names if name not in table.rows]
        if unknown:
            raise SasvError(
                f"{enrolments}: {listed(unknown)} is missing in {place}; give the utterance table "
                "of these enrolments"
            )
    bona_fide: dict[str, list[str]] = {}
    spoofed: dict[tuple[str, str], list[str]] = {}
    cells = zip(table.table.texts("speaker"), table.ids, table.spoofed, table.attack_texts)
    for speaker, name, is_spoof, attack in cells:
        if is_spoof:
            spoofed.setdefault((speaker, attack_name(attack, SPOOF)), []).append(name)
        else:
            bona_fide.setdefault(speaker, []).append(name)
    candidates = sorted(given or bona_fide)
    most = sizes.speakers or len(candidates)
    enrolled: dict[str, list[str]] = {}
    tested: dict[str, list[str]] = {}
    short = []
    with Progress("look for speech", min(most, len(candidates)), "speakers") as progress:
        for at in rng.permutation(len(candidates)).tolist():
            if len(enrolled) == most:
                break
            speaker = candidates[at]
            found = recordings_of(speaker, bona_fide, given, sizes, hearing)
            if found is None:
                short.append(speaker)
                continue
            enrolled[speaker], tested[speaker] = found
            progress.add()
    describe_left_out(hearing, short, len(candidates), len(enrolled))
    if len(enrolled) < FEWEST:
        lost = f"; left out: {hearing.described()}" if hearing.reasons else ""
        raise SasvError(
            f"{place}: {len(enrolled)} speaker{'s' * (len(enrolled) != 1)} with a recording to "
            "enrol and another to test, but at least two are needed for claims by other people; "
            f"add the speech of more people, one folder each{lost}"
        )
    claims = drawn_claims(enrolled, tested, spoofed, sizes, rng)
    needed = {claim.recording for claim in claims}.union(*enrolled.values())
    kept = table.take(np.array([name in needed for name in table.ids]))
    return Speech(with_seconds(kept), dict(sorted(enrolled.items())), claims)


def load_speech(place: str, where: str) -> Utterances:
    """Return the utterance table of a folder with one subfolder for each speaker, or an existing
    table.
    """
    path = Path(place)
    if path.is_dir() and (path / "utterances.tsv").is_file():
        path = path / "utterances.tsv"
    if not path.is_dir():
        table = load_utterances(path, where)
        if not len(table):
            raise SasvError(
                f"{place}: contains no utterance{f' with {where}' if where else ''}; check the "
                "path and --where"
            )
        return table
    if where:
        raise SasvError(
            f"{place}: --where selects rows of a table, but this is a folder of recordings; leave "
            "out --where"
        )
    lists = read_folder(path)
    root = str(path.resolve())
    columns = {
        "utterance": [row.utterance for row in lists.utterances],
        "path": [joined(root, row.path) for row in lists.utterances],
        "speaker": [row.speaker for row in lists.utterances],
    }
    return Utterances(Table.build(columns, place))


def with_seconds(table: Utterances) -> Utterances:
    """Return a table with the length of each recording, from which the time for copies is
    estimated.
    """
    if table.seconds is not None:
        return table
    seconds = []
    for path in table.paths:
        try:
            seconds.append(f"{measure(path).seconds:.3f}")
        except AudioError:  # of a spoof; it is reported when it is processed
            seconds.append("0")
    return Utterances(table.table.with_column("seconds", seconds))


def of_trials(table: Utterances, enrolments: str, trials: str) -> Speech:
    """Return the speech of a given protocol."""
    if not enrolments:
        raise SasvError("--trials needs --enrolments, the table of enrolment recordings")
    enrolled = load_enrolments(enrolments)
    claims = load_trials(trials)
    needed = needed_utterances(table, enrolled, claims)
    cells = zip(
        claims.table.texts("speaker"),
        claims.table.texts("utterance"),
        claims.labels.tolist(),
        [attack_name(attack, label) for attack, label in zip(claims.attack_texts, claims.labels)],
    )
    claimed = set(claims.speakers[1])
    members = dict(zip(enrolled.speakers, enrolled.utterances))
    return Speech(
        needed,
        {name: members[name] for name in sorted(claimed)},
        [Claim(*row) for row in cells],
    )


def read_beginning(path: str, seconds: float, channel: str) -> np.ndarray:
    """Return the first seconds of a recording, float32 (samples,) at 16 kHz. Raises AudioError if
    it cannot be read or is silent.
    """
    wave = read_audio(path, samples=round(seconds * RATE), channel=channel)
    return check_speech(wave, path)


def attack_name(attack: str, label: int) -> str:
    """Return the name of the attack of a claim, or ``spoof`` if a spoof has none."""
    return TRIAL_LABELS[SPOOF] if label == SPOOF and attack == NONE else attack


class Hearing:
    """Determines which recordings contain enough speech, and stores the reasons for the others.

    Args:
        table: all recordings.
        sizes: limits on the amount of speech.
        channel: channel to use, if the table does not say.
    """

    def __init__(self, table: Utterances, sizes: Sizes, channel: str):
        self.table = table
        self.least = sizes.min_speech
        self.max_seconds = sizes.max_seconds
        self.channel = channel
        self.reasons: dict[str, str] = {}
        self.heard: set[str] = set()

    def described(self) -> str:
        """Return a text with the number of recordings that cannot be used, and the reasons."""
        count = len(self.reasons)
        why = "cannot be read"
        if self.least:
            why += f" or hold{'s' * (count == 1)} less than {self.least:g} s of speech"
        return (
            f"{count} recording{'s' * (count != 1)} that {why} "
            f"({listed(list(self.reasons.values()), 3)})"
        )

    def usable(self, name: str) -> bool:
        """Whether a recording can be read and contains enough speech."""
        if name in self.heard:
            return True
        if name in self.reasons:
            return False
        row = self.table.rows[name]
        path = self.table.path(row)
        channel = self.table.channel(row)
        try:
            wave = read_beginning(
                path, self.max_seconds, self.channel if channel == AUTO else channel
            )
        except AudioError as error:
            self.reasons[name] = str(error)
            return False
        if self.least:
            seconds = net_speech(wave).net_seconds
            if seconds < self.least:
                self.reasons[name] = f"{path}: {seconds:.2f} s of speech"
                return False
        self.heard.add(name)
        return True


def recordings_of(
    speaker: str,
    bona_fide: dict[str, list[str]],
    given: dict[str, list[str]],
    sizes: Sizes,
    hearing: Hearing,
) -> tuple[list[str], list[str]] | None:
    """Return the enrolment and the test recordings of a speaker, or None if there are too few."""
    drawn = zlib.crc32(speaker.encode("utf-8", "surrogateescape"))
    rng = np.random.default_rng([sizes.seed, drawn])
    own = bona_fide.get(speaker, [])
    enrolment = [name for name in given.get(speaker, []) if hearing.usable(name)]
    if given and not enrolment:
        return None
    rest = [name for name in own if name not in given.get(speaker, [])]
    wanted = sizes.recordings + (0 if given else ENROL)
    found: list[str] = []
    for at in rng.permutation(len(rest)).tolist():
        if len(found) == wanted:
            break
        if hearing.usable(rest[at]):
            found.append(rest[at])
    if not given:
        count = min(ENROL, len(found) // 2)
        enrolment = found[:count]
        found = found[count:]
    return (enrolment, found[: sizes.recordings]) if enrolment and found else None


def drawn_claims(
    enrolled: dict[str, list[str]],
    tested: dict[str, list[str]],
    spoofed: dict[tuple[str, str], list[str]],
    sizes: Sizes,
    rng: np.random.Generator,
) -> list[Claim]:
    """Return the claims to be each speaker: with the speaker's own recordings, recordings of
    others, and the spoofs of the table.
    """
    claims = []
    for speaker in sorted(enrolled):
        claims += [Claim(speaker, name, TARGET) for name in tested[speaker]]
        impostors = drawn_impostors(tested, speaker, sizes.impostors, rng)
        claims += [Claim(speaker, name, NONTARGET) for name in impostors]
        for (claimed, attack), names in sorted(spoofed.items()):
            if claimed == speaker:
                chosen = sorted(rng.permutation(len(names))[: sizes.recordings].tolist())
                claims += [Claim(speaker, names[row], SPOOF, attack) for row in chosen]
    return claims


def describe_left_out(
    hearing: Hearing, short: Sequence[str], candidates: int, enrolled: int
) -> None:
    """Log the recordings and speakers that are not tested, with the reasons."""
    if hearing.reasons:
        logger.info(f"left out: {hearing.described()}")
    if short:
        logger.info(
            f"left out: {len(short)} speaker{'s' * (len(short) != 1)} without a recording to "
            "enrol and another to test "
            f"({listed(short, 3)})"
        )
    rest = candidates - len(short) - enrolled
    if rest:
        logger.info(
            f"{enrolled} of {candidates} speakers are tested, drawn at random; --speakers 0 takes "
            "all"
        )

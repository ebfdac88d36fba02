"""Runs a stress test: speech, copies, conditions, systems, and measurements."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sasv.audio import AUTO, write_audio
from sasv.batches.augment import audio_files
from sasv.core.errors import AudioError, SasvError, listed
from sasv.core.outputs import refuse_inside_speech
from sasv.core.progress import Progress
from sasv.stress.conditions import (
    CLEAN,
    Condition,
    Surroundings,
    apply_condition,
    chosen_conditions,
)
from sasv.stress.copies import Copy, make_copies, plan_copies, vocoders_here
from sasv.stress.measure import FEWEST_SPEAKERS, MISS, OTHERS, Claims, Result, hear, measure
from sasv.stress.passing import File, Passage, pass_all
from sasv.stress.speech import SPOOF, TARGET, Claim, Sizes, Speech, find_speech
from sasv.stress.systems import FunctionSystem, System

logger = logging.getLogger("sasv")


@dataclass(frozen=True)
class Settings:
    """The settings of a stress test.

    Attributes:
        place: folder with one subfolder for each speaker, or an utterance table.
        out: folder of the results.
        where: use only the rows of the table with this ``column=value``.
        enrolments: enrolment table, or empty.
        trials: trial table, or empty.
        sizes: numbers of speakers and recordings to test.
        conditions: names of the conditions; by default all that are possible.
        vocoders: names of the vocoders; by default all that are available.
        no_copies: make no copies.
        weights: vocoder -> path of its weights.
        noises: folder of noise, or empty.
        rirs: folder of impulse responses, or empty.
        repeats: number of bootstrap samples for intervals and tests.
        listen: number of recordings to listen to for each attack and condition.
        channel: channel of recordings to use.
        shard: part of the work, ``i/n``, or empty.
        workers: number of processes that make copies.
        device: device for neural vocoders.
    """

    place: str
    out: Path
    where: str = ""
    enrolments: str = ""
    trials: str = ""
    sizes: Sizes = field(default_factory=Sizes)
    conditions: Sequence[str] = ()
    vocoders: Sequence[str] = ()
    no_copies: bool = False
    weights: Mapping[str, str] = field(default_factory=dict)
    noises: str = ""
    rirs: str = ""
    repeats: int = 1000
    listen: int = 2
    channel: str = AUTO
    shard: str = ""
    workers: int = 1
    device: str = "cpu"


@dataclass
class StressTest:
    """A finished stress test.

    Attributes:
        settings: the settings of the test.
        speech: the speech.
        conditions: name -> condition.
        vocoders: names of the vocoders that made copies.
        claims: all claims, including those of copies.
        results: the results of the systems, the tested system first.
        listening: (kind, condition) -> recordings to listen to, relative to the folder of results,
            the worst error of the first system first.
    """

    settings: Settings
    speech: Speech
    conditions: Mapping[str, Condition]
    vocoders: Sequence[str]
    claims: Claims
    results: list[Result]
    listening: dict[tuple[str, str], list[str]]


def run_stress(systems: Sequence[System], settings: Settings) -> StressTest | None:
    """Run or resume a stress test; return it, or None while other shards are still working.

    Args:
        systems: the tested system, and those with which it is compared.
        settings: the settings of the test.

    Raises:
        SasvError: the speech, a condition, a vocoder, or a system cannot be used.
    """
    sizes = settings.sizes
    noises = audio_files(settings.noises) if settings.noises else []
    rirs = audio_files(settings.rirs) if settings.rirs else []
    conditions, left_out = chosen_conditions(
        settings.conditions, Surroundings(noises, rirs, ["other speakers"])
    )
    for reason in left_out:
        logger.info(f"left out: the conditions {reason}")
    vocoders: list[str] = []
    if not settings.no_copies:
        vocoders = vocoders_here(settings.vocoders, settings.weights)
    speech = find_speech(
        settings.place,
        settings.where,
        settings.enrolments,
        settings.trials,
        sizes,
        settings.channel,
    )
    refuse_inside_speech(settings.out, speech.utterances.paths)
    targets = speech.targets
    plan, copies = plan_copies(targets, vocoders, settings.out / "copies", sizes.seed)
    claims = Claims([*speech.claims, *claims_of_copies(speech, copies)])
    files = files_of(speech, copies, claims, list(conditions), settings.channel)
    passage = passage_of(speech, files, noises, rirs, sizes)
    for system in systems:
        try_out(system, files, passage)
    logger.info(opening(speech, claims, conditions, vocoders, files, len(systems)))
    make_copies(
        plan,
        targets,
        vocoders,
        settings.weights,
        settings.out / "copies",
        sizes.seed,
        settings.shard,
        settings.workers,
        settings.device,
    )
    heard = []
    for system in systems:
        folder = settings.out / "systems" / folder_name(system.name)
        passed = pass_all(system, files, passage, folder / "parts", settings.shard)
        if passed is not None:
            found = hear(system, claims, passed, speech.enrolments, list(conditions))
            heard.append((system, found))
    if len(heard) < len(systems):
        return None
    results = measure(heard, claims, settings.repeats, sizes.seed)
    test = StressTest(settings, speech, conditions, vocoders, claims, results, {})
    test.listening = write_listening(test, files, passage)
    return test


def claims_of_copies(speech: Speech, copies: Sequence[Copy]) -> list[Claim]:
    """Return the claims of copies. Each is claimed to be the speaker of its original."""
    made: dict[str, list[Copy]] = {}
    for copy in copies:
        made.setdefault(copy.source, []).append(copy)
    return [
        Claim(claim.speaker, copy.name, SPOOF, copy.vocoder)
        for claim in speech.claims
        if claim.label == TARGET
        for copy in made.get(claim.recording, [])
    ]


def files_of(
    speech: Speech,
    copies: Sequence[Copy],
    claims: Claims,
    conditions: Sequence[str],
    channel: str,
) -> list[File]:
    """Return all recordings to process. No condition is applied to those that are only used for
    enrolment.
    """
    claimed: dict[str, list[str]] = {}
    for claim in claims.rows:
        claimed.setdefault(claim.recording, []).append(claim.speaker)
    table = speech.utterances
    speakers = table.table.texts("speaker")
    files = []
    for row, name in enumerate(table.ids):
        own = table.channel(row)
        tested = tuple(claimed.get(name, ()))
        files.append(
            File(
                name,
                table.path(row),
                channel if own == AUTO else own,
                name,
                speakers[row],
                tuple(conditions) if tested else (CLEAN,),
                tested,
            )
        )
    originals = {file.name: file for file in files}
    for copy in copies:
        files.append(
            File(
                copy.name,
                copy.path,
                AUTO,
                copy.source,
                originals[copy.source].speaker,
                tuple(conditions),
                tuple(claimed[copy.name]),
            )
        )
    return files


def passage_of(
    speech: Speech, files: Sequence[File], noises: Sequence[str], rirs: Sequence[str], sizes: Sizes
) -> Passage:
    """Return the settings for all recordings. Babble consists of the bona fide recordings of other
    speakers.
    """
    table = speech.utterances
    spoofed = dict(zip(table.ids, table.spoofed.tolist()))
    bona_fide = [file for file in files if file.name in spoofed and not spoofed[file.name]]
    around = {}
    for speaker in {file.speaker for file in files}:
        others = [file.path for file in bona_fide if file.speaker != speaker]
        around[speaker] = Surroundings(noises, rirs, others)
    named = {file.name: file for file in files}
    enrolments = {
        speaker: [named[name] for name in names] for speaker, names in speech.enrolments.items()
    }
    return Passage(around, enrolments, sizes.max_seconds, sizes.seed)


def try_out(system: System, files: Sequence[File], passage: Passage) -> None:
    """Call a function with one recording before the long computation, so that a mistake is found at
    once.
    """
    if not isinstance(system, FunctionSystem):
        return
    wave = passage.wave(files[0])
    if system.compares:
        system.score(wave, wave, f"{files[0].path} and itself")
    else:
        system.embed(wave, files[0].path)


def opening(
    speech: Speech,
    claims: Claims,
    conditions: Mapping[str, Condition],
    vocoders: Sequence[str],
    files: Sequence[File],
    systems: int,
) -> str:
    """Return a description of the work to do."""
    count = sum(len(file.conditions) for file in files)
    kinds = claims.kinds
    attacks = ", ".join(name for name in kinds if name != OTHERS)
    targets = int((claims.labels == TARGET).sum())
    text = (
        f"{len(speech.enrolments)} speakers: {targets} target claims, {kinds[OTHERS]} by other "
        f"people, {sum(kinds.values()) - kinds[OTHERS]} spoofed ({attacks or 'none'}), each under "
        f"{len(conditions)} conditions: {count:,} recordings to process"
    )
    if systems > 1:
        text += f" through each of {systems} systems"
    if len(speech.enrolments) < FEWEST_SPEAKERS:
        text += (
            f"; with fewer than {FEWEST_SPEAKERS} speakers there are no intervals and no tests, "
            "and the rates are not reliable"
        )
    return text


def folder_name(name: str) -> str:
    """Return the folder of a system."""
    kept = "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in name)
    return kept.strip(".") or "system"


def write_listening(
    test: StressTest, files: Sequence[File], passage: Passage
) -> dict[tuple[str, str], list[str]]:
    """Write recordings to listen to: the worst errors of the tested system for each attack and
    condition. Return their paths.
    """
    named = {file.name: file for file in files}
    first = test.results[0]
    kinds = [MISS, *(name for name in test.claims.kinds if name != OTHERS)]
    found: dict[tuple[str, str], list[str]] = {}
    if not test.settings.listen:
        return found
    with Progress("listen", len(kinds) * len(test.conditions), "conditions") as progress:
        for condition in test.conditions:
            ranks = first.heard[condition].ranks
            for kind in kinds:
                rows = [
                    row
                    for row, claim in enumerate(test.claims.rows)
                    if (claim.label == TARGET if kind == MISS else claim.attack == kind)
                ]
                rows.sort(key=lambda row: (ranks[row] if kind == MISS else -ranks[row], row))
                chosen = list(dict.fromkeys(test.claims.rows[row].recording for row in rows))
                paths = []
                for number, name in enumerate(chosen[: test.settings.listen], 1):
                    label = "bonafide" if kind == MISS else folder_name(kind)
                    place = f"listen/{condition}/{label}-{number}_{folder_name(name)}.flac"
                    if write_heard(test.settings.out / place, named[name], condition, passage):
                        paths.append(place)
                found[kind, condition] = paths
                progress.add()
    return found


def write_heard(path: Path, file: File, condition: str, passage: Passage) -> bool:
    """Write the input of a system for a recording; return whether it could be read."""
    try:
        wave = passage.wave(file)
        around = passage.around[file.speaker]
        heard = apply_condition(condition, wave, passage.seed, file.source, around)
    except AudioError:
        return False
    write_audio(path, heard)
    return True


def check_names(systems: Sequence[System]) -> None:
    """Raise SasvError if two systems have the same name or the same folder."""
    names = [folder_name(system.name) for system in systems]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SasvError(
            f"two systems have the name {listed(twice)}; give them different names with NAME=SYSTEM"
        )

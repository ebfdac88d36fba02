"""sasv stress."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from sasv.audio import AUTO
from sasv.commands._loading import load_any
from sasv.core.errors import SasvError
from sasv.core.options import (
    BootstrapCount,
    Count,
    NonNegativeFloat,
    Options,
    PositiveFloat,
    Range,
    Seed,
)
from sasv.core.registry import listing
from sasv.scores import Cohort
from sasv.stress.conditions import CONDITIONS
from sasv.stress.pages import write_pages
from sasv.stress.run import Settings, StressTest, check_names, run_stress
from sasv.stress.speech import Sizes
from sasv.stress.systems import ModelSystem, System, is_function, load_function
from sasv.vocoders import VOCODERS
from sasv.weights.catalogue import DEFAULT

NO_VOCODERS = "none"


@dataclass
@listing(vocoders=VOCODERS, conditions=CONDITIONS)
class StressOptions(Options):
    """Test how robust a verification system is. It is tested with copies made by every available
    vocoder, and with bona fide and spoofed speech under codecs, telephone bands, noise,
    reverberation, changes of level, clipping, and with shorter speech. The report lists the weakest
    points first.

    An interrupted test is resumed by the same command. The conditions are applied to the tested
    recordings; enrolments are not changed.

    Args:
        speech: folder with one folder of recordings for each speaker, or an utterance table.
        out: output folder, for report.html, report.md, report.json, report.tsv, recordings to
            listen to, copies, and the scores of each system.
        system: system to test: a checkpoint, an ONNX file that sasv export wrote, or
            module:function, a function that takes one recording (float32 samples at 16 kHz) and
            returns a vector, or takes an enrolment and a test recording and returns a score.
            NAME=SYSTEM gives it a name. By default the model that comes with sasv.
        against: systems to compare it with, in the same forms.
        threshold: score from which the tested system accepts; by default its own threshold. For a
            system without one, the threshold at its equal error rate on this speech is used, and
            the report says so.
        enrolments: enrolment table, if the speech is a table; by default enrolments are drawn.
        trials: trial table, all of whose trials are used; by default trials are drawn.
        where: use only the rows of the table with this ``column=value``.
        conditions: one or more of {conditions}; by default all that are possible. Recordings
            without any condition (clean) are always tested.
        vocoders: vocoders that make copies, of {vocoders} (not those named after a codec or a
            band); by default all that are available; none makes no copies. Spoofed rows of a table
            are tested as well.
        weights: path of the weights of a vocoder, by its name (--weights.hifi-gan PATH).
        noises: folder of noise, for two further conditions.
        rirs: folder of room impulse responses, for a further condition.
        speakers: maximum number of speakers, drawn at random; 0 takes all.
        recordings: maximum number of tested recordings of each speaker, and of each attack on a
            speaker.
        impostors: maximum number of trials with recordings of other people for each speaker.
        max_seconds: use at most this many seconds from the beginning of each recording.
        min_speech: seconds of speech that a recording must contain to be used; 0 uses anything.
        listen: number of recordings to listen to for each attack and condition.
        intervals: number of bootstrap samples over speakers for 95 % intervals and tests; 0
            computes none.
        cohort: cohort.npz that sasv evaluate wrote, for a system whose threshold is for s-norm
            scores.
        channel: channel to use of recordings with several: mean, loudest, or a number counted from
            0; auto takes the mean, or the loudest channel if the channels cancel each other.
        num_workers: number of processes that make copies on the CPU.
        shard: part of the work to do, as ``i/n``; by default the rank that torchrun gives. The
            shard that finishes last writes the report.
        seed: random seed, for the choice of recordings, the copies, and the conditions.
        device: cpu, cuda, or auto.
    """

    speech: str
    out: str = "stress"
    system: str = DEFAULT
    against: list[str] = field(default_factory=list)
    threshold: Annotated[float | None, Range()] = None
    enrolments: str = ""
    trials: str = ""
    where: str = ""
    conditions: list[str] = field(default_factory=list)
    vocoders: list[str] = field(default_factory=list)
    weights: dict[str, str] = field(default_factory=dict)
    noises: str = ""
    rirs: str = ""
    speakers: Count = 20
    recordings: Annotated[int, Range(1)] = 2
    impostors: Count = 20
    max_seconds: PositiveFloat = 6.0
    min_speech: NonNegativeFloat = 0.75
    listen: Count = 2
    intervals: BootstrapCount = 1000
    cohort: str = ""
    channel: str = AUTO
    num_workers: Count = 1
    shard: str = ""
    seed: Seed = 0
    device: str = "auto"


def stress(options: StressOptions) -> StressTest | None:
    """Run a stress test and write its report; return the report, or None while other shards are
    still working.
    """
    systems = [load_system(options.system, options, options.threshold)]
    systems += [load_system(text, options) for text in options.against]
    check_names(systems)
    sizes = Sizes(
        options.speakers,
        options.recordings,
        options.impostors,
        options.min_speech,
        options.max_seconds,
        options.seed,
    )
    no_copies = options.vocoders == [NO_VOCODERS]
    settings = Settings(
        place=options.speech,
        out=Path(options.out),
        where=options.where,
        enrolments=options.enrolments,
        trials=options.trials,
        sizes=sizes,
        conditions=options.conditions,
        vocoders=[] if no_copies else options.vocoders,
        no_copies=no_copies,
        weights=options.weights,
        noises=options.noises,
        rirs=options.rirs,
        repeats=options.intervals,
        listen=options.listen,
        channel=options.channel,
        shard=options.shard,
        workers=options.num_workers,
        device=options.device,
    )
    test = run_stress(systems, settings)
    if test is not None:
        write_pages(test)
    return test


def load_system(text: str, options: StressOptions, threshold: float | None = None) -> System:
    """Load a system.

    Args:
        text: a checkpoint, an exported model, or ``module:function``, each with or without
            ``NAME=``.
        options: options of the command.
        threshold: threshold to use instead of the system's own.
    """
    name, equals, given = text.partition("=")
    if not equals or Path(text).exists():  # a path may itself contain an equals sign
        name = ""
        given = text
    if not given:
        raise SasvError(
            "the name of a system is empty; give a checkpoint, an ONNX file, or module:function"
        )
    system: System
    if is_function(given):
        system = load_function(given, name)
    else:
        model = load_any(given, options.device, options.channel)
        cohort = Cohort.load(options.cohort) if options.cohort else None
        verifier = model.verifier(cohort)
        system = ModelSystem(name or Path(given).stem, given, model, verifier)
    if threshold is not None:
        system.verifier = system.verifier.with_threshold(threshold)
    return system

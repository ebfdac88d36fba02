"""Trials with damaged audio files, checkpoints, tables, and score files."""

import importlib.util
import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from conftest import buzz
from faults import damage
from faults.foreign import foreign_files
from faults.running import NOT_FINITE, Fault, Trial
from sasv.audio import measure, read_audio, read_speech, write_audio
from sasv.calibration.backend import Backend, Linear
from sasv.checkpoints import Checkpoint, Specification, save_checkpoint
from sasv.commands import MetricsOptions, VerifyOptions, metrics, verify
from sasv.decision import Verifier
from sasv.encoders import make_encoder, preset
from sasv.metrics import cost_model
from sasv.scores import read_scores
from sasv.tables import check_trials, load_enrolments, load_trials, load_utterances

RATE = 16000
SECONDS = 1.5
VERIFY_SHARE = 25
"""One in this many damaged recordings is processed by the complete ``sasv verify``."""
MAX_SECONDS = 300.0

CONTAINERS = {
    "m4a": ("aac", "ipod", RATE),
    "aac": ("aac", "adts", RATE),
    "webm": ("libopus", "webm", 48000),
    "amr": ("libopencore_amrnb", "amr", 8000),
    "wma": ("wmav2", "asf", RATE),
}
"""Undamaged files written by PyAV: suffix -> codec, container, sample rate in Hz."""

SOUNDFILES = {
    "wav": ("WAV", "PCM_16"),
    "float.wav": ("WAV", "FLOAT"),
    "gsm.wav": ("WAV", "GSM610"),
    "flac": ("FLAC", "PCM_16"),
    "ogg": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "aiff": ("AIFF", "PCM_16"),
    "sph": ("NIST", "PCM_16"),
    "au": ("AU", "PCM_16"),
}
"""Undamaged files written by libsndfile: suffix -> format, subtype."""


def speech(seed: int, pitch: float = 120.0, seconds: float = SECONDS) -> np.ndarray:
    """Return a speech-like signal: a voice of varying pitch in syllables.

    The signal is float32 of shape (samples,) at 16 kHz.
    """
    samples = int(seconds * RATE)
    time = np.arange(samples) / RATE
    syllables = np.clip(1.3 * np.sin(2 * np.pi * 4 * time) + 0.5, 0, 1).astype(np.float32)
    return 0.5 * buzz(samples, pitch, seed, 0.01, vibrato=0.1) * syllables


def encoded(wave: np.ndarray, codec: str, form: str, rate: int) -> bytes:
    """Return the bytes of a file written by PyAV."""
    import av

    stream_bytes = io.BytesIO()
    with av.open(stream_bytes, "w", format=form) as container:
        stream = container.add_stream(codec, rate=rate, layout="mono")
        whole = np.round(np.clip(wave, -1, 1) * 32767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(whole[None], format="s16", layout="mono")
        frame.rate = RATE
        resampler = av.AudioResampler(
            format=stream.format, layout="mono", rate=rate, frame_size=stream.frame_size
        )
        for piece in [*resampler.resample(frame), *resampler.resample(None), None]:
            container.mux(stream.encode(piece))
    return stream_bytes.getvalue()


def written(wave: np.ndarray, form: str, subtype: str) -> bytes:
    """Return the bytes of a file written by libsndfile."""
    stream = io.BytesIO()
    soundfile.write(stream, wave, RATE, format=form, subtype=subtype)
    return stream.getvalue()


def tiny_checkpoint(encoder: str) -> Checkpoint:
    """Return an untrained model with a few thousand weights and a threshold."""
    torch.manual_seed(0)
    module = make_encoder(encoder, preset(encoder, "test"))
    part = Linear(["score"], [1.0], 0.0)
    backend = Backend("logistic", ["score"], cost_model("asvspoof5"), [part], "faults")
    verifier = Verifier(threshold=0.5, threshold_source="faults")
    if encoder == "ska-tdnn":
        verifier = verifier.calibrated(backend)
    specification = Specification(
        **module.description(),
        classes=["a", "b", "spoof"],
        spoof_index=2,
        scoring=verifier.scoring.to_dict(),
        decision=verifier.decision_record(),
        licence="CC0-1.0",
        training={"epoch": 1},
    )
    return Checkpoint(specification, module.state_dict())


@dataclass
class Seeds:
    """The undamaged files that the trials start from, written once below a folder."""

    folder: Path

    @cached_property
    def audio(self) -> dict[str, bytes]:
        """Audio files: suffix -> bytes."""
        wave = speech(0)
        made = {name: written(wave, *layout) for name, layout in SOUNDFILES.items()}
        if importlib.util.find_spec("av") is None:
            return made
        for name, layout in CONTAINERS.items():
            try:
                made[name] = encoded(wave, *layout)
            except ValueError:  # this build of FFmpeg lacks the encoder
                continue
        return made

    @cached_property
    def recordings(self) -> list[str]:
        """Paths of two undamaged recordings."""
        paths = [self.folder / f"good{number}.wav" for number in range(2)]
        for number, path in enumerate(paths):
            write_audio(path, speech(number, 100 + 50 * number))
        return [str(path) for path in paths]

    @cached_property
    def model(self) -> str:
        """Path of a tiny checkpoint in the format of sasv."""
        path = self.folder / "tiny.safetensors"
        save_checkpoint(path, tiny_checkpoint("ecapa-tdnn"))
        return str(path)

    @cached_property
    def checkpoints(self) -> dict[str, bytes]:
        """Checkpoints of each published encoder in the format of sasv and in the published format:
        file name -> bytes.
        """
        made = {}
        for encoder in ("ecapa-tdnn", "ska-tdnn", "mfa-conformer"):
            for suffix in (".safetensors", ".model"):
                path = self.folder / f"{encoder}{suffix}"
                save_checkpoint(path, tiny_checkpoint(encoder))
                made[path.name] = path.read_bytes()
        return made

    @cached_property
    def tables(self) -> dict[str, tuple[str, str]]:
        """Tables: kind of table -> (text, separator)."""
        rng = np.random.default_rng(0)
        names = [f"s{speaker}-{number}" for speaker in range(3) for number in range(4)]
        copies = [f"{name}~world" for name in names[::2]]
        rows = [(name, f"audio/{name}.wav", name[:2], "bonafide", "-", "1.5") for name in names]
        rows += [(name, f"audio/{name}.wav", name[:2], "spoof", "world", "1.5") for name in copies]
        trials = [
            (claim, name, "target" if name.startswith(claim) else "nontarget", "-")
            for claim in ("s0", "s1", "s2")
            for name in names[1::2]
        ]
        trials += [(name[:2], name, "spoof", "world") for name in copies]
        means = {"target": 0.7, "nontarget": 0.1, "spoof": 0.4}
        scored = [(*row, f"{means[row[2]] + 0.2 * rng.standard_normal():.6f}") for row in trials]
        tables = {
            "utterances": (("utterance", "path", "speaker", "label", "attack", "seconds"), rows),
            "enrolments": (
                ("speaker", "utterances"),
                [(f"s{at}", f"s{at}-0,s{at}-2") for at in range(3)],
            ),
            "trials": (("speaker", "utterance", "label", "attack"), trials),
            "scores": (("speaker", "utterance", "label", "attack", "score"), scored),
        }
        made = {}
        for name, (header, cells) in tables.items():
            made[name] = ("".join("\t".join(row) + "\n" for row in (header, *cells)), "\t")
        made["scores.csv"] = (made["scores"][0].replace("\t", ","), ",")
        made["kaldi"] = ("".join(f"{row[0]} {row[1]} {row[4]} {row[2]}\n" for row in scored), " ")
        for name, (text, _) in made.items():
            (self.folder / f"good-{name}.tsv").write_text(text)
        return made

    @cached_property
    def foreign(self) -> dict[str, tuple[tuple[str, str], ...]]:
        """Files of other toolkits and challenges: layout -> (text, separator) of the score file and
        of the key, if there is one.

        They are written as ``LAYOUT-0`` and ``LAYOUT-1``.
        """
        made = foreign_files()
        for name, files in made.items():
            for number, (text, _) in enumerate(files):
                (self.folder / f"{name}-{number}").write_text(text)
        return made


def check_finite(value: Any, what: str) -> None:
    """Raise Fault if a JSON value contains a number that is not finite."""
    try:
        json.dumps(value, allow_nan=False, default=float)
    except ValueError as error:
        raise Fault(NOT_FINITE, f"{what}: {error}") from error


# Audio


def try_audio(path: Path, make: Callable[[], bytes], number: int, seeds: Seeds) -> None:
    """Read a damaged recording in the way of prepare, train, embed, or verify."""
    path.write_bytes(make())
    try:
        if number % VERIFY_SHARE == 0:
            options = VerifyOptions(
                [*seeds.recordings, str(path)], model=seeds.model, min_speech=0, device="cpu"
            )
            check_finite(verify(options), "verdict")
            return
        how = number % 3
        if how == 0:
            info = measure(path)
            check_finite([info.rate, info.samples, info.seconds], "length")
            return
        if how == 1:
            wave = read_audio(path, samples=8000, place=0.37, max_seconds=MAX_SECONDS)
        else:
            wave = read_speech(path, 1600, MAX_SECONDS)
        if not np.isfinite(wave).all():
            raise Fault(NOT_FINITE, "samples")
        if len(wave) > (MAX_SECONDS + 1) * RATE:
            raise AssertionError(f"{len(wave)} samples are more than were allowed")
    finally:
        path.unlink()


def audio_trials(count: int, seed: int, seeds: Seeds) -> Iterator[Trial]:
    """Yield trials with damaged recordings."""
    names = sorted(seeds.audio)
    kinds = [*damage.BYTES, "suffix swapped"]
    for number in range(count):
        rng = np.random.default_rng([seed, 1, number])
        name = names[number % len(names)]
        kind = kinds[int(rng.integers(len(kinds)))]
        suffix = name
        harm = kind
        if kind == "suffix swapped":
            suffix = names[int(rng.integers(len(names)))]
            harm = [*damage.BYTES, ""][int(rng.integers(len(damage.BYTES) + 1))]
        make = partial(damage.damaged, harm, seeds.audio[name], rng)
        path = seeds.folder / f"damaged.{suffix}"
        yield Trial(
            f"audio {number}: {name}, {kind}", kind, partial(try_audio, path, make, number, seeds)
        )


# Checkpoints


def _typed(rng: np.random.Generator, data: bytes) -> bytes:
    """Change one or two fields of the specification."""

    def change(value: Any) -> Any:
        for _ in range(rng.integers(1, 3)):
            value = damage.change_field(value, rng)
        return value

    return damage.with_specification(data, change)


def _header(rng: np.random.Generator, data: bytes) -> bytes:
    """Change types, shapes or offsets in the header of a safetensors file."""
    return damage.with_header(data, lambda value: damage.change_field(value, rng))


def _text(rng: np.random.Generator, data: bytes) -> bytes:
    """Replace the specification with other text: deep, long, invalid, or of another type."""
    texts = (
        "[" * 100_000,
        '{"a":' * 50_000,
        "[]",
        "null",
        '"x"',
        "{" + '"a": 1, ' * 9,
        '{"encoder": "ecapa-tdnn"}',
    )
    text = texts[int(rng.integers(len(texts)))]
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"]["sasv"] = text
    whole = json.dumps(header).encode() if rng.integers(2) else text.encode()
    return struct.pack("<Q", len(whole)) + whole + data[8 + length :]


def _weights(rng: np.random.Generator, data: bytes) -> bytes:
    """Replace weights with NaN, zeros, or numbers of extreme size."""
    (length,) = struct.unpack("<Q", data[:8])
    body = np.frombuffer(data, np.uint8, offset=8 + length).copy()
    floats = body[: len(body) // 4 * 4].view(np.float32)
    value = (np.nan, 0.0, np.inf, 3e38, -3e38, 1e-40, 1e20)[int(rng.integers(7))]
    start, stop = sorted(int(at) for at in rng.integers(len(floats) + 1, size=2))
    floats[0 if rng.integers(2) else start : stop] = value
    return data[: 8 + length] + body.tobytes()


def _members(data: bytes) -> list[tuple[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return [(entry.filename, archive.read(entry)) for entry in archive.infolist()]


def _archive(members: list[tuple[str, bytes]], compression: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression, compresslevel=1) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return stream.getvalue()


class _Called:
    """An object whose pickle calls a function when it is loaded."""

    def __init__(self, function: Callable[..., Any], *values: Any):
        self.call = (function, values)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


def hostile_pickles() -> list[bytes]:
    """Return pickles that allocate memory, call functions, or recurse."""
    import os

    bomb = pickle.dumps(_Called(os.system, "touch /tmp/sasv-was-here"), 2)
    # In protocol 5: BYTEARRAY8 and BINBYTES8 with a stated length of 10 GB, and a LONG4 of 2 GB.
    promises = [
        b"\x80\x05\x96" + struct.pack("<Q", 10**10),
        b"\x80\x05\x8e" + struct.pack("<Q", 10**10),
        b"\x80\x05\x8d" + struct.pack("<Q", 10**10),
        b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1),
    ]
    return [
        pickle.dumps(_Called(bytearray, 10**10), 2),
        pickle.dumps(_Called(bytes, 10**10), 2),
        pickle.dumps(_Called(list, range(10**9)), 2),
        pickle.dumps(_Called(eval, "1+1"), 2),
        bomb,
        *promises,
        b"\x80\x02" + b"(" * 10**5 + b".",
        b"\x80\x02" + b"]" + b"\x85" * 200_000 + b".",
        b"\x80\x02}q\x00r\xff\xff\xff\x7f.",
        b"\x80\x02]q\x00" + b"h\x00a" * 100_000 + b".",
        b"",
        b".",
    ]


def _zip(rng: np.random.Generator, data: bytes) -> bytes:
    """Rewrite the archive with one fault: a hostile pickle, compressed members, a decompression
    bomb, a missing, renamed, damaged, shortened or doubled member, or a wrong CRC.
    """
    members = _members(data)
    at = int(rng.integers(len(members)))
    name, content = members[at]
    root = name.split("/")[0]
    choice = int(rng.integers(8))
    if choice == 0:
        pool = hostile_pickles()
        hostile = pool[int(rng.integers(len(pool)))]
        return _archive(
            [(one, hostile if one.endswith("data.pkl") else kept) for one, kept in members]
        )
    if choice == 1:
        return _archive(members, zipfile.ZIP_DEFLATED)
    if choice == 2:
        members[at] = (name, bytes(40_000_000))
        return _archive(members, zipfile.ZIP_DEFLATED)
    if choice == 3:
        members.pop(at)
        return _archive(members)
    if choice == 4:
        renamed = ("../" * 5 + "x", "/x", f"{root}/data/999", "x", f"{root}\\data.pkl")[
            int(rng.integers(5))
        ]
        members[at] = (renamed, content)
        return _archive(members)
    if choice == 5:
        members[at] = (name, damage.flip_bits(bytearray(content or b"\0"), rng))
        return _archive(members)
    if choice == 6:
        members[at] = (name, content[: len(content) // 2] if rng.integers(2) else content + content)
        return _archive(members)
    whole = bytearray(_archive(members))
    found = whole.find(b"PK\x01\x02")
    whole[found + 16 : found + 20] = rng.bytes(4)
    return bytes(whole)


def _bare_pickle(rng: np.random.Generator, data: bytes) -> bytes:
    """Return a hostile pickle instead of the archive."""
    pool = hostile_pickles()
    return pool[int(rng.integers(len(pool)))]


SAFETENSORS = {
    "specification": _typed,
    "header of safetensors": _header,
    "other JSON": _text,
    "weights extreme": _weights,
}
ARCHIVES = {"archive": _zip, "pickle": _bare_pickle}


def try_checkpoint(path: Path, make: Callable[[], bytes], seeds: Seeds) -> None:
    """Load a damaged checkpoint and, if it can be loaded, verify two recordings with it."""
    path.write_bytes(make())
    try:
        options = VerifyOptions(list(seeds.recordings), model=str(path), min_speech=0, device="cpu")
        if path.suffix == ".model":
            options.threshold = 0.5  # the published format has no threshold
        check_finite(verify(options), "verdict")
    finally:
        path.unlink()


def checkpoint_trials(count: int, seed: int, seeds: Seeds) -> Iterator[Trial]:
    """Yield trials with damaged checkpoints."""
    names = sorted(seeds.checkpoints)
    for number in range(count):
        rng = np.random.default_rng([seed, 2, number])
        name = names[number % len(names)]
        own = SAFETENSORS if name.endswith(".safetensors") else ARCHIVES
        pool = [*own, *own, *damage.BYTES]
        kind = pool[int(rng.integers(len(pool)))]
        path = seeds.folder / f"damaged{Path(name).suffix}"
        data = seeds.checkpoints[name]
        make = (
            partial(own[kind], rng, data)
            if kind in own
            else partial(damage.damaged, kind, data, rng)
        )
        yield Trial(
            f"checkpoint {number}: {name}, {kind}", kind, partial(try_checkpoint, path, make, seeds)
        )


def field_trials(count: int, seed: int, seeds: Seeds) -> Iterator[Trial]:
    """Yield trials with checkpoints in which one field of the specification has another value.

    The trials are drawn without repetition from all combinations of encoder, field, and value.
    There are fewer than ``count`` if all combinations have been used.
    """
    every = [
        (name, path, number)
        for name, data in sorted(seeds.checkpoints.items())
        if name.endswith(".safetensors")
        for path in damage.places(damage.specification_of(data))
        for number in range(len(damage.values()))
    ]
    np.random.default_rng([seed, 6]).shuffle(every)
    target = seeds.folder / "damaged.safetensors"
    for name, path, number in every[:count]:
        data = seeds.checkpoints[name]
        change = partial(damage.with_field, path=path, replacement=damage.values()[number])
        make = partial(damage.with_specification, data, change)
        field = ".".join(map(str, path))
        yield Trial(
            f"{name}, {field}, value {number}",
            "one field of the specification",
            partial(try_checkpoint, target, make, seeds),
        )


# Tables and scores


def try_table(path: Path, make: Callable[[], bytes], name: str, number: int, seeds: Seeds) -> None:
    """Read a damaged table in the way of the commands that use it."""
    path.write_bytes(make())
    try:
        if name == "utterances":
            utterances = load_utterances(path)
            check_finite(
                [] if utterances.seconds is None else utterances.seconds.tolist(), "seconds"
            )
            _ = (utterances.paths, utterances.spoofed, utterances.channels, utterances.speakers)
            return
        if name in ("enrolments", "trials"):
            folder = seeds.folder
            tables = {
                one: folder / f"good-{one}.tsv" for one in ("utterances", "enrolments", "trials")
            } | {name: path}
            enrolments = load_enrolments(tables["enrolments"])
            trials = load_trials(tables["trials"])
            check_trials(trials, enrolments, load_utterances(tables["utterances"]).rows)
            return
        if number % 2:
            scores = read_scores(path)
            if not np.isfinite(scores.values).all():
                raise Fault(NOT_FINITE, "scores")
            return
        check_finite(metrics(MetricsOptions(str(path))), "metrics")
    finally:
        path.unlink()


def try_foreign(
    path: Path, make: Callable[[], bytes], name: str, damaged: int, whole: bool, seeds: Seeds
) -> None:
    """Read the files of another toolkit or challenge, one of which is damaged.

    Args:
        path: path at which the damaged file is written.
        make: returns the damaged bytes.
        name: name of the layout.
        damaged: 0 to damage the score file, 1 to damage its key.
        whole: whether to compute metrics of the scores as well.
        seeds: the undamaged files.
    """
    path.write_bytes(make())
    files = [
        str(path if number == damaged else seeds.folder / f"{name}-{number}")
        for number in range(len(seeds.foreign[name]))
    ]
    key = files[1] if len(files) > 1 else ""
    try:
        if whole:
            check_finite(metrics(MetricsOptions(files[0], key=key)), "metrics")
        elif not np.isfinite(read_scores(files[0], key).values).all():
            raise Fault(NOT_FINITE, "scores")
    finally:
        path.unlink()


def table_trials(count: int, seed: int, seeds: Seeds) -> Iterator[Trial]:
    """Yield trials with damaged tables and score files.

    Every second trial uses a layout of another toolkit or challenge.
    """
    names = sorted(seeds.tables)
    layouts = sorted(seeds.foreign)
    kinds = list(damage.TABLE_DAMAGE)
    for number in range(count):
        rng = np.random.default_rng([seed, 3, number])
        kind = kinds[int(rng.integers(len(kinds)))]
        turn = number // 2
        if number % 2:
            name = layouts[turn % len(layouts)]
            damaged = turn // len(layouts) % len(seeds.foreign[name])
            text, separator = seeds.foreign[name][damaged]
            make = partial(damage.damaged_table, kind, text, separator, rng)
            path = seeds.folder / f"damaged-{name}"
            whole = bool(rng.integers(2))
            work = partial(try_foreign, path, make, name, damaged, whole, seeds)
        else:
            name = names[turn % len(names)]
            text, separator = seeds.tables[name]
            make = partial(damage.damaged_table, kind, text, separator, rng)
            path = seeds.folder / f"damaged-{name}.tsv"
            work = partial(try_table, path, make, name, turn // len(names), seeds)
        group = f"scores of others, {kind}" if number % 2 else kind
        yield Trial(f"table {number}: {name}, {kind}", group, work)


def prepare(seeds: Seeds) -> None:
    """Make all undamaged files, and import all modules in the parent and not in each child."""
    _ = (seeds.audio, seeds.checkpoints, seeds.tables, seeds.foreign)
    torch.set_num_threads(1)
    verify(VerifyOptions(seeds.recordings, model=seeds.model, min_speech=0, device="cpu"))
    metrics(MetricsOptions(str(seeds.folder / "good-scores.tsv")))
    for name, files in seeds.foreign.items():
        key = str(seeds.folder / f"{name}-1") if len(files) > 1 else ""
        metrics(MetricsOptions(str(seeds.folder / f"{name}-0"), key=key))

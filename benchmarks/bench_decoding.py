"""Random 2-second crops of the same files a CPU second, read by sasv, torchcodec, lhotse, and
webdataset.

    pip install lhotse webdataset torchcodec
    python benchmarks/bench_decoding.py [SPEECH]

SPEECH is a folder of FLAC files; without one, voiced-like sound. Each format is read as files and
out of one tar. All readers take turns, each returns mono float32 samples at 16 kHz, and the figures
are medians of processor seconds. Packages that are missing are left out.

torchcodec decodes the range of each crop. lhotse reads the range of each cut from the file, or, in
Lhotse Shar, whole recordings in their order; webdataset reads the whole bytes of each member in
their order, of which soundfile decodes the crop. Neither of the last two can choose a recording by
itself, which training on pairs needs.
"""

import argparse
import importlib.util
import io
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import soundfile

from common import header
from sasv.audio import measure, read_audio
from sasv.tables import Table, load_utterances
from sasv.tables.packing import pack

RATE = 16000
SAMPLES = 32240
FORMATS = {
    "wav": ("WAV", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "vorbis.ogg": ("OGG", "VORBIS"),
    "opus.ogg": ("OGG", "OPUS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
}
"""Suffix -> format and encoding of libsndfile."""

Read = Callable[[], object]


def speech(folder: str, files: int, seconds: float) -> Iterator[np.ndarray]:
    """Yield recordings of 8 s and more, or ``seconds`` of sound."""
    if folder:
        found = (read_audio(path) for path in sorted(Path(folder).rglob("*.flac")))
        long = (wave for wave in found if len(wave) > 4 * SAMPLES)
        yield from (wave for wave, _ in zip(long, range(files)))
        return
    rng = np.random.default_rng(0)
    at = np.arange(int(seconds * RATE)) / RATE
    for index in range(files):
        wave = sum(np.sin(2 * np.pi * (110 + index) * k * at) / k for k in range(1, 20))
        yield 0.05 * wave + 0.003 * rng.standard_normal(len(at))


def sasv_files(paths: Sequence[str], places: Sequence[float]) -> Read:
    """sasv, from files or members of tars."""
    return lambda: [
        read_audio(path, samples=SAMPLES, place=place) for path, place in zip(paths, places)
    ]


def torchcodec_files(paths: Sequence[str], starts: Sequence[float]) -> Read:
    """torchcodec, from files."""
    from torchcodec.decoders import AudioDecoder

    def crop(path: str, start: float) -> np.ndarray:
        decoder = AudioDecoder(path, sample_rate=RATE, num_channels=1)
        stop = start + SAMPLES / RATE
        return decoder.get_samples_played_in_range(start, stop).data[0].numpy()

    return lambda: [crop(path, start) for path, start in zip(paths, starts)]


def lhotse_files(paths: Sequence[str], starts: Sequence[float]) -> Read:
    """lhotse, from files."""
    from lhotse import Recording
    from lhotse.cut import MonoCut

    cuts = [
        MonoCut(str(row), start, SAMPLES / RATE, 0, recording=Recording.from_file(path))
        for row, (path, start) in enumerate(zip(paths, starts))
    ]
    return lambda: [cut.resample(RATE).load_audio()[0] for cut in cuts]


def lhotse_shar(paths: Sequence[str], starts: Sequence[float], folder: Path) -> Read:
    """lhotse, from a tar: whole recordings in their order."""
    from lhotse import CutSet, Recording

    folder.mkdir()
    kind = "flac" if paths[0].endswith("flac") else "original"
    cuts = CutSet.from_cuts(Recording.from_file(path).to_cut() for path in paths)
    cuts.to_shar(folder, fields={"recording": kind}, shard_size=None)

    def crops() -> list[np.ndarray]:
        found = CutSet.from_shar(in_dir=folder)
        return [
            cut.truncate(offset=start, duration=SAMPLES / RATE).load_audio()[0]
            for cut, start in zip(found, starts)
        ]

    return crops


def webdataset_tar(tar: str, starts: Sequence[float]) -> Read:
    """webdataset, from a tar: the bytes of recordings in their order."""
    import webdataset

    def crop(sample: dict[str, object], start: float) -> np.ndarray:
        data = next(value for key, value in sample.items() if not key.startswith("__"))
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            file.seek(int(start * file.samplerate))
            return file.read(SAMPLES, dtype="float32")

    def crops() -> list[np.ndarray]:
        found = webdataset.WebDataset(tar, shardshuffle=False, empty_check=False)
        return [crop(sample, start) for sample, start in zip(found, starts)]

    return crops


def readers(folder: Path, paths: Sequence[str], rng: np.random.Generator) -> dict[str, Read]:
    """Return every reader of some files whose package is there."""
    columns = {
        "utterance": [Path(path).stem for path in paths],
        "path": list(paths),
        "speaker": ["s"] * len(paths),
    }
    table = Table.build(columns, str(folder / "utterances.tsv"))
    table.save(folder / "utterances.tsv")
    packed = pack(load_utterances(folder / "utterances.tsv"), folder / "packed", 10**10)
    members = load_utterances(packed.table).paths
    tar = members[0].partition("#")[0]
    # A crop ends a little before its file: MP3 and Opus may be shorter than what was encoded.
    places = (0.98 * rng.random(len(paths))).tolist()
    seconds = [measure(path).seconds - SAMPLES / RATE for path in paths]
    starts = [place * left for place, left in zip(places, seconds)]
    found = {
        "sasv, files": sasv_files(paths, places),
        "sasv, tar": sasv_files(members, places),
    }
    if importlib.util.find_spec("torchcodec"):
        found["torchcodec, files"] = torchcodec_files(paths, starts)
    if importlib.util.find_spec("lhotse"):
        found["lhotse, files"] = lhotse_files(paths, starts)
        found["lhotse, tar (Shar)"] = lhotse_shar(paths, starts, folder / "shar")
    if importlib.util.find_spec("webdataset"):
        found["webdataset, tar"] = webdataset_tar(tar, starts)
    return found


def crops_a_second(calls: dict[str, Read], crops: int, repeats: int) -> dict[str, float]:
    """Return crops a processor second of each reader: medians; the readers take turns."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(repeats + 1):
        for name, call in calls.items():
            started = time.process_time()
            call()
            if turn:  # the first fills the caches of all
                times[name].append(time.process_time() - started)
    return {name: crops / max(statistics.median(taken), 1e-9) for name, taken in times.items()}


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("speech", nargs="?", default="", help="folder with .flac files; else sound")
    parser.add_argument("--files", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="the smallest size, for a test")
    options = parser.parse_args(words)
    if options.quick:
        options.files, options.repeats = 2, 1
    rng = np.random.default_rng(0)
    waves = list(speech(options.speech, options.files, 5 if options.quick else 12))
    seconds = statistics.mean(map(len, waves)) / RATE
    header(f"{len(waves)} crops of 2 s from recordings of {seconds:.0f} s (baseline: sasv, files)")
    for suffix, (kind, subtype) in FORMATS.items():
        with tempfile.TemporaryDirectory() as temporary:
            paths = [f"{temporary}/r{row:03}.{suffix}" for row in range(len(waves))]
            for path, wave in zip(paths, waves):
                soundfile.write(path, wave, RATE, format=kind, subtype=subtype)
            found = readers(Path(temporary), paths, rng)
            rates = crops_a_second(found, len(waves), options.repeats)
            baseline = rates["sasv, files"]
            for name, rate in rates.items():
                print(f"  {suffix:11} {name:20} {rate:8.0f} crops/s  {rate / baseline:5.2f} x")


if __name__ == "__main__":
    main()

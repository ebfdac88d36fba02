"""Everything that is measured on a card, in one process: steps of training, embeddings, a training
from files, determinism, scores, vocoders, memory, and a profile.

    python benchmarks/gpu.py --out FOLDER [--minutes 5.5] [--quick] [--parts steps scores]

``benchmarks/gpu.sh`` calls it. Each part that fails is named, and the others go on; parts for which
no time is left are named too. ``--quick`` runs every part at its smallest size, on a CPU as well.
Processes of their own compile the encoders while the parts run that are not timed; PyTorch keeps
what they compiled in its cache on the disk.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args
from unittest import mock

import numpy as np
import torch
import torch.distributed as dist

from common import header
from sasv import cli
from sasv.audio import RATE, write_audio
from sasv.checkpoints import Checkpoint, Specification
from sasv.embeddings.extract import plan_batches
from sasv.embeddings.model import Model
from sasv.encoders import make_encoder, preset
from sasv.encoders.cost import gflop
from sasv.parallel.devices import Precision, arithmetic
from sasv.parallel.processes import Processes
from sasv.tables import Table
from sasv.training.build import build_engine, build_trainer
from sasv.training.engine import Engine
from sasv.training.options import TrainOptions
from sasv.training.trainer import Trainer
from sasv.vocoders import make_vocoder
from sasv.vocoders.hifi_gan import Generator
from sasv.vocoders.hn_nsf import Network

ENCODERS = ("ecapa-tdnn", "mfa-conformer", "ska-tdnn", "campplus")
EAGER: dict[str, Any] = {"precision": "bfloat16", "channels_last": True}
FASTEST: dict[str, Any] = EAGER | {"compile": True, "compile_mode": "reduce-overhead"}
FASTEST_HALF: dict[str, Any] = FASTEST | {"precision": "float16"}
TO_COMPILE = (
    *((name, FASTEST) for name in ENCODERS[:3]),
    ("ecapa-tdnn", FASTEST_HALF),
)
"""What the processes compile. CAM++ would take more than four minutes."""

STEPS: tuple[tuple[str, dict[str, Any]], ...] = (
    *((name, FASTEST) for name in ENCODERS[:3]),
    ("ecapa-tdnn", FASTEST_HALF),
    *((name, EAGER) for name in ENCODERS),
    *((name, {"precision": "float16", "channels_last": True}) for name in ENCODERS),
    *((name, {"precision": "float32"}) for name in ENCODERS),
    *((name, {"precision": "bfloat16"}) for name in ENCODERS),
    *((name, {"precision": "float32", "tf32": True}) for name in ENCODERS),
)
"""Encoders and options of the steps, in their order: there may not be time for all."""

STEPS_SECONDS = 85
"""The steps may take this long; what is left of them is named."""
CLASSES = [f"id{number:05}" for number in range(5994)]
SAMPLES = 32240  # the published crop of 2 s


@dataclass
class Run:
    """What all parts share.

    Attributes:
        device: what is measured.
        quick: smallest sizes, for a test.
        out: folder for results.
        work: folder for files that are not kept.
        deadline: time.monotonic() at which no part begins any more.
        found: results by part, written as JSON.
        compiling: the processes that compile.
    """

    device: torch.device
    quick: bool
    out: Path
    work: Path
    deadline: float
    found: dict[str, Any] = field(default_factory=dict)
    compiling: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def pairs(self) -> int:
        """Pairs of a batch: 100 are published."""
        return 2 if self.quick else 100

    @property
    def samples(self) -> int:
        """Samples of a crop."""
        return 8000 if self.quick else SAMPLES

    def encoder_options(self, name: str) -> dict[str, Any]:
        """Options of an encoder: as published."""
        return preset(name, "test") if self.quick else {}

    def median(self, call: Callable[[], object], repeats: int = 9) -> float:
        """Return the median seconds of a call, after three to warm up."""
        for _ in range(1 if self.quick else 3):
            call()
        times = []
        for _ in range(1 if self.quick else repeats):
            self.wait()
            started = time.perf_counter()
            call()
            self.wait()
            times.append(time.perf_counter() - started)
        return statistics.median(times)

    def wait(self) -> None:
        """Wait for the card."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def reset_peak(self) -> None:
        """Begin to measure the peak of the card's memory."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def peak(self) -> float:
        """Return the peak of the card's memory in GB."""
        return torch.cuda.max_memory_allocated() / 1e9 if self.device.type == "cuda" else 0.0


def ceilings(run: Run) -> None:
    """The rates that the card reaches: bfloat16 products, copies."""
    size = 128 if run.quick else 8192
    left = torch.randn(size, size, device=run.device, dtype=torch.bfloat16)
    seconds = run.median(lambda: left @ left)
    run.found["peak_tflops"] = 2 * size**3 / seconds / 1e12
    large = torch.empty(size * size, device=run.device)
    seconds = run.median(large.clone)
    rate = 2 * large.nbytes / seconds / 1e9
    print(f"  bf16 products {run.found['peak_tflops']:.1f} TFLOP/s, copies {rate:.0f} GB/s")


def engine_of(run: Run, name: str, **way: Any) -> Engine:
    """Return an engine of the published Stage 1."""
    options = TrainOptions(
        utterances="", out=str(run.work), encoder=name, encoder_options=run.encoder_options(name)
    )
    for key, value in way.items():
        setattr(options, key, value)
    torch.manual_seed(0)
    return build_engine(options, CLASSES, run.device, Processes())[0]


def some_batch(run: Run, pairs: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return waveforms and labels of a batch, in pinned memory as those of the loader."""
    waves = (0.1 * torch.randn(100, 2, run.samples)).repeat(-(-pairs // 100), 1, 1)[:pairs]
    labels = torch.arange(pairs) % len(CLASSES)
    if run.device.type == "cuda":
        return waves.pin_memory(), labels.pin_memory()
    return waves, labels


def one_step(run: Run, engine: Engine, pairs: int) -> Callable[[], None]:
    """Return a call that trains on one batch."""
    batch = some_batch(run, pairs)

    def step() -> None:
        engine.backward(*batch, pairs)
        engine.step(0)

    return step


def title_of(name: str, way: dict[str, Any]) -> str:
    """Return the name of a step: its encoder and options."""
    return " ".join([name, *(key if value is True else value for key, value in way.items())])


def compile_ahead(run: Run) -> None:
    """Processes begin to compile the encoders, while the next parts run."""
    if run.quick:
        print("  not at the smallest size")
        return
    for number in range(len(TO_COMPILE)):
        words = [sys.executable, __file__, "--out", str(run.out), "--compile-only", str(number)]
        log = (run.out / "compile.txt").open("ab")
        few = os.environ | {"TORCHINDUCTOR_COMPILE_THREADS": "4"}
        run.compiling.append(subprocess.Popen(words, stdout=log, stderr=log, env=few))
    print(f"  {len(TO_COMPILE)} processes")


def compile_only(run: Run, number: int) -> None:
    """Take two steps with a compiled encoder, one of TO_COMPILE; the second is of two batches."""
    name, way = TO_COMPILE[number]
    started = time.monotonic()
    with arithmetic():  # which belongs to the key of the cache
        engine = engine_of(run, name, **way)
        torch.backends.cudnn.benchmark = False  # it needs much memory, which the others need too
        one_step(run, engine, run.pairs)()
        for last in (False, True):
            engine.backward(*some_batch(run, run.pairs), run.pairs, 2, last)
        assert engine.step(0)
        run.wait()
    print(f"{title_of(name, way)}: compiled in {time.monotonic() - started:.1f} s")


def compiled(run: Run) -> None:
    """The encoders are compiled: what follows is measured with nothing beside it."""
    until = min(time.monotonic() + 75, run.deadline)
    for number, process in enumerate(run.compiling):
        try:
            process.wait(max(until - time.monotonic(), 0.1))
        except subprocess.TimeoutExpired:
            process.kill()
            print(f"  {title_of(*TO_COMPILE[number])}: not compiled in time")
        process.wait()
    if run.compiling:
        print((run.out / "compile.txt").read_text().strip()[-2000:])


def steps(run: Run) -> None:
    """Whole steps of the published Stage 1; profile.txt says where their time goes."""
    until = min(run.deadline, time.monotonic() + STEPS_SECONDS)
    ways = STEPS
    if run.quick:
        ways = tuple((name, {"precision": "float32"}) for name in ENCODERS)
    for name, way in ways:
        title = title_of(name, way)
        if time.monotonic() > until:
            raise TimeoutError
        if (name, way) in TO_COMPILE and run.compiling[TO_COMPILE.index((name, way))].returncode:
            print(f"  {title:42} was not compiled")
            continue
        run.reset_peak()
        alone = ""
        try:
            with arithmetic(tf32=way.get("tf32", False)):
                step = one_step(run, engine_of(run, name, **way), run.pairs)
                seconds = run.median(step)
                if way in (FASTEST, EAGER) or run.quick:
                    alone = f", kernels {1e3 * profile(run, title, step):.1f} ms"
        except (RuntimeError, torch.OutOfMemoryError) as error:
            print(f"  {title:42} failed: {str(error).splitlines()[0]}")
            (run.out / "step.txt").write_text(traceback.format_exc())
            continue
        operations = gflop(name, run.encoder_options(name), run.samples / RATE)
        rate = 2 * run.pairs * operations / seconds / 1e3
        share = 100 * rate / run.found["peak_tflops"]
        run.found[f"step {title}"] = 1e3 * seconds
        print(
            f"  {title:42} {1e3 * seconds:8.1f} ms, {rate:6.1f} TFLOP/s, {share:4.1f} % of the "
            f"bf16 peak, {run.peak():.1f} GB{alone}",
            flush=True,
        )
        torch.compiler.reset()


def profile(run: Run, title: str, step: Callable[[], None]) -> float:
    """Write into profile.txt where the time of a step goes, by kernel, and a trace of the fastest
    step of ECAPA-TDNN; return the seconds of all kernels.
    """
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiled

    activities = [ProfilerActivity.CPU]
    order = "self_cpu_time_total"
    if run.device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
        order = "self_device_time_total"
    with profiled(activities=activities) as profiler:
        step()
        run.wait()
    averages = profiler.key_averages()
    table = averages.table(order, row_limit=40, max_name_column_width=100)
    with (run.out / "profile.txt").open("a") as tables:
        tables.write(f"{title}\n{table}\n")
    if title == title_of("ecapa-tdnn", FASTEST):
        profiler.export_chrome_trace(str(run.out / "trace.json.gz"))
    kernels = [
        one for one in averages if one.device_type.name != "CPU" and not one.is_user_annotation
    ]
    return 1e-6 * sum(one.self_device_time_total for one in kernels)


def peer(run: Run) -> None:
    """ECAPA-TDNN of SpeechBrain, where its package is there: forward and backward alone."""
    from speechbrain.lobes.features import Fbank
    from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN

    features = Fbank(n_mels=80).to(run.device)
    network = ECAPA_TDNN(80).to(run.device).train()
    waves = 0.1 * torch.randn(2 * run.pairs, run.samples, device=run.device)
    for precision in (torch.float32, torch.float16, torch.bfloat16):

        def step(precision: torch.dtype = precision) -> None:
            low = precision is not torch.float32
            with torch.autocast(run.device.type, precision, enabled=low):
                output = network(features(waves))
            output.float().square().sum().backward()
            network.zero_grad()

        seconds = run.median(step, 5)
        print(
            f"  speechbrain ECAPA-TDNN {str(precision)[6:]:9} {1e3 * seconds:8.1f} ms", flush=True
        )


def largest_batch(run: Run) -> None:
    """Pairs that fit, doubled until memory is full."""
    engine = engine_of(run, "ecapa-tdnn", precision="bfloat16")
    pairs = run.pairs
    limit = 2 * pairs if run.quick else 12800
    while 2 * pairs <= limit:
        try:
            one_step(run, engine, 2 * pairs)()
        except torch.OutOfMemoryError:
            break
        pairs *= 2
    print(f"  ecapa-tdnn bfloat16: {pairs} pairs fit, {run.peak():.1f} GB")


def embeddings(run: Run) -> None:
    """One recording of 4 s, and recordings of 2 to 12 s one by one and in batches."""
    rng = np.random.default_rng(0)
    seconds = rng.uniform(0.2, 0.4, 3) if run.quick else rng.uniform(2, 12, 300)
    waves = [0.1 * rng.standard_normal(int(RATE * one)).astype(np.float32) for one in seconds]
    four = 0.1 * rng.standard_normal((1 if run.quick else 4) * RATE).astype(np.float32)
    batches = plan_batches(seconds, 1 if run.quick else 900)
    for name in ENCODERS:
        encoder = make_encoder(name, run.encoder_options(name))
        specification = Specification(**encoder.description())
        model = Model(Checkpoint(specification, encoder.state_dict()), run.device)
        for precision in get_args(Precision):
            model.precision = precision
            alone = run.median(lambda model=model: model.embed(four))
            single = run.median(lambda model=model: [model.embed(wave) for wave in waves[:50]], 3)
            single *= float(sum(seconds) / sum(seconds[:50]))
            together = run.median(
                lambda model=model: [model.embed_many([waves[row] for row in b]) for b in batches],
                3,
            )
            print(
                f"  {name:14} {precision:8} 4 s in {1e3 * alone:6.2f} ms; x real time: one by one "
                f"{sum(seconds) / single:,.0f}, in batches {sum(seconds) / together:,.0f}",
                flush=True,
            )


def scores(run: Run) -> None:
    """Cosines of the same recordings by the card and by the CPU."""
    rng = np.random.default_rng(1)
    length = RATE // 2 if run.quick else 3 * RATE
    waves = [0.1 * rng.standard_normal(length + 999 * k).astype(np.float32) for k in range(8)]
    for name in ENCODERS:
        torch.manual_seed(0)
        encoder = make_encoder(name, run.encoder_options(name))
        checkpoint = Checkpoint(Specification(**encoder.description()), encoder.state_dict())
        tables = []
        for device in ("cpu", run.device):
            vectors = Model(checkpoint, device).embed_many(waves)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            tables.append(vectors @ vectors.T)
        largest = float(np.abs(tables[0] - tables[1]).max())
        run.found[f"difference {name}"] = largest
        print(f"  {name:14} largest difference of a score {largest:.1e}", flush=True)


def voice(hertz: float, seconds: float) -> np.ndarray:
    """Return a sound with the harmonics of a voice."""
    at = np.arange(int(seconds * RATE)) / RATE
    phase = 2 * np.pi * np.cumsum(hertz * (1 + 0.1 * np.sin(2 * np.pi * at))) / RATE
    tone = 0.05 * sum(np.sin(k * phase) / k for k in range(1, 20))
    return np.asarray(tone, np.float32)


def make_table(run: Run) -> Path:
    """Write recordings of voice-like sound as FLAC, with a table; return the path of the table."""
    path = run.work / "utterances.tsv"
    if path.exists():
        return path
    rng = np.random.default_rng(2)
    speakers = 4 if run.quick else 120
    seconds = 1 if run.quick else 8
    rows: dict[str, list[str]] = {"utterance": [], "path": [], "speaker": []}
    for speaker in range(speakers):
        tone = voice(90 + 3 * speaker, seconds)
        for number in range(2 if run.quick else 5):
            name = f"s{speaker}-{number}"
            noise = 0.003 * rng.standard_normal(len(tone)).astype(np.float32)
            write_audio(run.work / "speech" / f"{name}.flac", tone + noise)
            for column, cell in zip(rows, (name, f"speech/{name}.flac", f"s{speaker}")):
                rows[column].append(cell)
    Table.build(rows).save(path)
    return path


def train_options(run: Run, table: Path, name: str, **options: Any) -> dict[str, Any]:
    """Return the options of a training on the table."""
    given: dict[str, Any] = {
        "utterances": str(table),
        "out": str(run.work / name),
        "encoder_options": run.encoder_options("ecapa-tdnn"),
        "device": str(run.device),
        "pairs": 2 if run.quick else 50,
        "crop_frames": 40 if run.quick else 200,
        "num_workers": 0 if run.quick else 14,
        "epochs": 2,
        "batches_per_epoch": 2 if run.quick else 60,
        "precision": "float32" if run.quick else "bfloat16",
    }
    return given | options


def train_words(run: Run, table: Path, name: str, **options: Any) -> list[str]:
    """Return the command of a training on the table, in a process of its own."""
    path = run.work / f"{name}.yaml"
    path.write_text(json.dumps(train_options(run, table, name, **options)))
    return ["train", str(path)]


def sasv(run: Run, words: list[str]) -> None:
    """Run a command in a process of its own; in this one where that costs more than the command."""
    if run.quick:
        assert cli.main(words) == 0
    else:
        started(run, words).wait()


def started(run: Run, words: list[str]) -> subprocess.Popen[bytes]:
    """Start a command in a process of its own."""
    log = (run.out / "sasv.txt").open("ab")
    return subprocess.Popen([sys.executable, "-m", "sasv", *words], stdout=log, stderr=log)


def make_noises(run: Run) -> dict[str, str]:
    """Write noise and impulse responses in the layout of MUSAN; return the options that use
    them.
    """
    found = {"noises": str(run.work / "musan"), "rirs": str(run.work / "rirs")}
    if (run.work / "rirs").exists():
        return found
    rng = np.random.default_rng(4)
    seconds = 2 if run.quick else 30
    for kind in ("noise", "speech", "music"):
        for number in range(2 if run.quick else 30):
            noise = 0.05 * rng.standard_normal(seconds * RATE).astype(np.float32)
            write_audio(run.work / "musan" / kind / f"{number}.wav", noise)
    decay = np.exp(-np.arange(RATE // 2) / (RATE / 20))
    for number in range(2 if run.quick else 20):
        response = (decay * rng.standard_normal(len(decay))).astype(np.float32)
        write_audio(run.work / "rirs" / f"{number}.wav", response / np.abs(response).max())
    return found


def files(run: Run) -> None:
    """The recordings, noise, and impulse responses of the next parts are written."""
    make_table(run)
    make_noises(run)


def from_files(run: Run) -> None:
    """A training from FLAC files, against the step alone, after the workers have started."""
    table = make_table(run)
    noises = make_noises(run)
    ways: dict[str, dict[str, Any]] = {
        "noise, reverberation, speed on the device": {"augment_on": "device", **noises},
        "speed on the device": {"augment_on": "device"},
    }
    engine = {"precision": "float32"} if run.quick else FASTEST
    title = f"step {title_of('ecapa-tdnn', engine)}"
    if title not in run.found:
        with arithmetic():
            step = one_step(run, engine_of(run, "ecapa-tdnn", **engine), run.pairs)
            run.found[title] = 1e3 * run.median(step)
    alone = run.found[title]
    batches = 4 if run.quick else 450
    for number, (title, way) in enumerate(ways.items()):
        if time.monotonic() > run.deadline:
            raise TimeoutError
        name = f"files-{number}"
        sizes = {"pairs": run.pairs, "batches_per_epoch": batches, "epochs": 1}
        begun = time.monotonic()
        options = TrainOptions(**train_options(run, table, name, **engine, **way, **sizes))
        with arithmetic():
            trainer = build_trainer(options)
            times = step_times(trainer)
        taken = 1e3 * (times[-1] - times[batches // 3]) / (batches - 1 - batches // 3)
        run.found[f"from files, {title}"] = taken
        print(
            f"  {title}: {taken:.1f} ms a step from files, {alone:.1f} ms alone; "
            f"{time.monotonic() - begun:.0f} s for all",
            flush=True,
        )
        torch.compiler.reset()


def step_times(trainer: Trainer) -> list[float]:
    """Train, and return when each step ended."""
    times = []
    step = trainer.engine.step

    def timed(epoch: int) -> bool:
        stepped = step(epoch)
        times.append(time.perf_counter())
        return stepped

    with mock.patch.object(trainer.engine, "step", timed):
        trainer.run()
    return times


def determinism(run: Run) -> None:
    """Two trainings, and one that is killed and goes on, with ``--deterministic``."""
    table = make_table(run)
    short = {"deterministic": True, "num_workers": 0 if run.quick else 3}
    if not run.quick:
        short["batches_per_epoch"] = 20
    words = [train_words(run, table, name, **short) for name in ("first", "second")]
    others = [] if run.quick else [started(run, one) for one in words]
    killed = train_words(run, table, "killed", **short, save_minutes=0.0)
    process = started(run, killed)
    while process.poll() is None and not (run.work / "killed" / "state.pt").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    sasv(run, killed)
    for one in words if run.quick else ():
        sasv(run, one)
    for other in others:
        other.wait()
    models = [
        torch.load(run.work / name / "state.pt", weights_only=True)["system"]
        for name in ("first", "second", "killed")
    ]
    for name, model in zip(("the second", "the killed and resumed"), models[1:]):
        same = all(torch.equal(value, model[key]) for key, value in models[0].items())
        run.found[f"deterministic {name}"] = same
        print(f"  {name} training ends in the weights of the first: {same}")


HIFI_GAN_V1: dict[str, Any] = {
    "resblock": "1",
    "upsample_rates": [8, 8, 2, 2],
    "upsample_kernel_sizes": [16, 16, 4, 4],
    "upsample_initial_channel": 512,
    "resblock_kernel_sizes": [3, 7, 11],
    "resblock_dilation_sizes": [[1, 3, 5], [1, 3, 5], [1, 3, 5]],
    "num_mels": 80,
    "n_fft": 1024,
    "hop_size": 256,
    "win_size": 1024,
    "sampling_rate": 22050,
    "fmin": 0,
    "fmax": 8000,
}


def vocoders(run: Run) -> None:
    """Neural vocoders with random weights, 160 s of sound like a voice in a batch."""
    torch.manual_seed(0)
    weights = {name: run.work / name / "generator.pt" for name in ("hn-nsf", "hifi-gan")}
    for name, path in weights.items():
        path.parent.mkdir()
        network = Network() if name == "hn-nsf" else Generator(HIFI_GAN_V1)
        torch.save(network.state_dict(), path)
        path.with_name("config.json").write_text(json.dumps(HIFI_GAN_V1))
    count = 1 if run.quick else 40
    waves = [voice(100 + 2 * number, 0.1 if run.quick else 4) for number in range(count)]
    seconds = sum(map(len, waves)) / RATE
    for name, path in weights.items():
        maker = make_vocoder(name, str(path), str(run.device))
        for what in ("start included",) if run.quick else ("start included", "after it"):
            begun = time.perf_counter()
            maker.many(waves, RATE, list(range(count)))
            run.wait()
            rate = seconds / (time.perf_counter() - begun)
            run.found[f"vocoder {name}"] = rate
            print(f"  {name}, batch of {count}: {rate:.1f} x real time, {what}", flush=True)


def nccl(run: Run) -> None:
    """The path of many processes with one rank."""
    backend = "nccl" if run.device.type == "cuda" else "gloo"
    store = f"file://{run.work.resolve() / 'store'}"
    dist.init_process_group(backend, init_method=store, rank=0, world_size=1)
    try:
        values = torch.ones(3, device=run.device)
        dist.all_reduce(values)
        assert values.tolist() == [1.0, 1.0, 1.0]
    finally:
        dist.destroy_process_group()
    print(f"  {backend}, one rank: works")


PARTS: tuple[Callable[[Run], None], ...] = (
    compile_ahead,
    files,
    scores,
    nccl,
    compiled,
    ceilings,
    steps,
    from_files,
    vocoders,
    embeddings,
    peer,
    largest_batch,
    determinism,
)


def main(words: Sequence[str] | None = None) -> int:
    """Run all parts; return 1 where one failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for files and results")
    parser.add_argument("--minutes", type=float, default=5.5, help="no part begins after these")
    parser.add_argument("--quick", action="store_true", help="the smallest sizes, for a test")
    names = [part.__name__ for part in PARTS]
    parser.add_argument("--parts", nargs="+", choices=names, default=names, help="only these")
    parser.add_argument("--compile-only", type=int, help="compile one encoder, and no more")
    options = parser.parse_args(words)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    options.out.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + 60 * options.minutes
    with tempfile.TemporaryDirectory() as work:
        run = Run(device, options.quick, options.out, Path(work), deadline)
        if options.compile_only is not None:
            compile_only(run, options.compile_only)
            return 0
        failed = run_parts(run, [part for part in PARTS if part.__name__ in options.parts])
    if failed:
        print(f"\nfailed or left out: {', '.join(failed)}")
    return int(bool(failed))


def run_parts(run: Run, parts: Sequence[Callable[[Run], None]]) -> list[str]:
    """Run parts; return the names of those that failed."""
    name = torch.cuda.get_device_name() if run.device.type == "cuda" else "CPU"
    run.found |= {"card": name, "torch": torch.__version__}
    failed = []
    for part in parts:
        header(
            f"{part.__name__.replace('_', ' ')}: {part.__doc__} {name}, torch {torch.__version__}"
        )
        started = time.monotonic()
        torch.backends.cudnn.benchmark = False  # an engine turns it on, for crops of one length
        try:
            if started > run.deadline:
                raise TimeoutError
            part(run)
        except TimeoutError:
            print("  no time was left")
            failed.append(part.__name__)
        except ImportError as error:
            print(f"  not measured: {error}")
        except Exception as error:
            failed.append(part.__name__)
            print(f"  failed: {type(error).__name__}: {error}")
            (run.out / f"{part.__name__}.txt").write_text(traceback.format_exc())
        print(f"  ({time.monotonic() - started:.1f} s)", flush=True)
        run.found["failed"] = failed
        (run.out / "gpu.json").write_text(json.dumps(run.found, indent=1) + "\n")
    return failed


if __name__ == "__main__":
    sys.exit(main())

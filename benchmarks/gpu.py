"""Everything that is measured on a card, in one process: steps of training, embeddings, a training
from files, determinism, scores, vocoders, memory, and a profile.

    python benchmarks/gpu.py --out FOLDER [--minutes 5.5] [--quick] [--parts steps scores]

``benchmarks/gpu.sh`` calls it. Each part that fails is named, and the others go on; parts for which
no time is left are named too. ``--quick`` runs every part at its smallest size, on a CPU as well.
"""

import argparse
import csv
import json
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
from typing import Any

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
from sasv.parallel.devices import arithmetic
from sasv.parallel.processes import Processes
from sasv.tables import Table
from sasv.training.build import build_engine
from sasv.training.engine import Engine
from sasv.training.options import TrainOptions
from sasv.vocoders import make_vocoder
from sasv.vocoders.hn_nsf import Network

ENCODERS = ("ecapa-tdnn", "mfa-conformer", "ska-tdnn", "campplus")
COMPILED: dict[str, Any] = {"precision": "bfloat16", "channels_last": True, "compile": True}
FASTEST: dict[str, Any] = COMPILED | {"compile_mode": "reduce-overhead"}
WAYS: tuple[dict[str, Any], ...] = (
    {"precision": "bfloat16", "channels_last": True},
    {"precision": "float16", "channels_last": True},
    {"precision": "bfloat16"},
    {"precision": "float32"},
    {"precision": "float32", "tf32": True},
)
STEPS_SECONDS = 170
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
    """

    device: torch.device
    quick: bool
    out: Path
    work: Path
    deadline: float
    found: dict[str, Any] = field(default_factory=dict)

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


def one_step(run: Run, engine: Engine, pairs: int) -> Callable[[], None]:
    """Return a call that trains on one batch, which waits in pinned memory as the loader's do."""
    waves = 0.1 * torch.randn(pairs, 2, run.samples)
    labels = torch.arange(pairs)
    if run.device.type == "cuda":
        waves = waves.pin_memory()
        labels = labels.pin_memory()

    def step() -> None:
        engine.backward(waves, labels, pairs)
        engine.step(0)

    return step


def steps(run: Run) -> None:
    """Whole steps of the published Stage 1; profile.txt says where their time goes."""
    until = min(run.deadline, time.monotonic() + STEPS_SECONDS)
    # To compile CAM++ takes longer than all the rest.
    compiled = [(name, way) for way in (FASTEST, COMPILED) for name in ENCODERS[:3]]
    eager = [(name, way) for way in WAYS for name in ENCODERS]
    ways = eager[: len(ENCODERS)] + compiled + eager[len(ENCODERS) :]
    if run.quick:
        ways = [(name, {"precision": "float32"}) for name in ENCODERS]
    for name, way in ways:
        if time.monotonic() > until:
            raise TimeoutError
        run.reset_peak()
        title = " ".join([name, *(key if value is True else value for key, value in way.items())])
        try:
            with arithmetic(tf32=way.get("tf32", False)):
                step = one_step(run, engine_of(run, name, **way), run.pairs)
                seconds = run.median(step)
                if way in (FASTEST, COMPILED, WAYS[0]) or run.quick:
                    profile(run, title, step)
        except (RuntimeError, torch.OutOfMemoryError) as error:
            print(f"  {title:42} failed: {str(error).splitlines()[0]}")
            continue
        operations = gflop(name, run.encoder_options(name), run.samples / RATE)
        rate = 2 * run.pairs * operations / seconds / 1e3
        share = 100 * rate / run.found["peak_tflops"]
        run.found[f"step {title}"] = 1e3 * seconds
        print(
            f"  {title:42} {1e3 * seconds:8.1f} ms, {rate:6.1f} TFLOP/s, {share:4.1f} % of the "
            f"bf16 peak, {run.peak():.1f} GB",
            flush=True,
        )
        torch.compiler.reset()


def profile(run: Run, title: str, step: Callable[[], None]) -> None:
    """Write into profile.txt where the time of a step goes, by kernel."""
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
    table = profiler.key_averages().table(order, row_limit=40, max_name_column_width=100)
    with (run.out / "profile.txt").open("a") as tables:
        tables.write(f"{title}\n{table}\n")


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
        alone = run.median(lambda model=model: model.embed(four))
        single = run.median(lambda model=model: [model.embed(wave) for wave in waves[:50]], 3)
        single *= float(sum(seconds) / sum(seconds[:50]))
        together = run.median(
            lambda model=model: [model.embed_many([waves[row] for row in b]) for b in batches], 3
        )
        print(
            f"  {name:14} 4 s in {1e3 * alone:6.2f} ms; x real time: one by one "
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


def make_table(run: Run) -> Path:
    """Write recordings of voice-like sound as FLAC, with a table; return the path of the table."""
    rng = np.random.default_rng(2)
    speakers = 4 if run.quick else 50
    seconds = 1 if run.quick else 8
    at = np.arange(seconds * RATE) / RATE
    rows: dict[str, list[str]] = {"utterance": [], "path": [], "speaker": []}
    for speaker in range(speakers):
        tone = sum(np.sin(2 * np.pi * (90 + 3 * speaker) * k * at) / k for k in range(1, 20))
        for number in range(2 if run.quick else 8):
            name = f"s{speaker}-{number}"
            wave = 0.05 * tone + 0.003 * rng.standard_normal(len(at))
            write_audio(run.work / "speech" / f"{name}.flac", wave.astype(np.float32))
            for column, cell in zip(rows, (name, f"speech/{name}.flac", f"s{speaker}")):
                rows[column].append(cell)
    path = run.work / "utterances.tsv"
    Table.build(rows).save(path)
    return path


def train_words(run: Run, table: Path, name: str, **options: Any) -> list[str]:
    """Return the command of a training on the table, in a process of its own."""
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
    path = run.work / f"{name}.yaml"
    path.write_text(json.dumps(given | options))
    return ["train", str(path)]


def sasv(run: Run, words: list[str]) -> None:
    """Run a command in a process of its own; in this one where that costs more than the command."""
    if run.quick:
        assert cli.main(words) == 0
    else:
        subprocess.run([sys.executable, "-m", "sasv", *words], check=True, capture_output=True)


def from_files(run: Run) -> None:
    """A training from FLAC files, against the step alone."""
    table = make_table(run)
    pairs = 2 if run.quick else 100
    batches = 2 if run.quick else 200
    ways: list[dict[str, Any]] = [{"augment_on": "cpu"}, {"augment_on": "device"}]
    engine = {"precision": "float32"} if run.quick else FASTEST
    alone = run.median(one_step(run, engine_of(run, "ecapa-tdnn", **engine), pairs))
    for way in ways[1:] if run.quick else ways:
        if time.monotonic() > run.deadline:
            raise TimeoutError
        name = f"files-{way['augment_on']}"
        sizes = {"pairs": pairs, "batches_per_epoch": batches}
        sasv(run, train_words(run, table, name, **engine, **way, **sizes))
        row = list(csv.DictReader((run.work / name / "metrics.csv").open()))[-1]
        taken = float(row["seconds"]) / batches
        print(
            f"  augmentation on {way['augment_on']}: {1e3 * taken:.1f} ms a step from files, "
            f"{1e3 * alone:.1f} ms alone; waited for data {float(row['waited_for_data']):.2f}",
            flush=True,
        )


def determinism(run: Run) -> None:
    """Two trainings, and one that is killed and goes on, with ``--deterministic``."""
    table = make_table(run)
    short = {"deterministic": True, "num_workers": 0 if run.quick else 4}
    if not run.quick:
        short["batches_per_epoch"] = 20
    for name in ("first", "second"):
        sasv(run, train_words(run, table, name, **short))
    words = train_words(run, table, "killed", **short, save_minutes=0.0)
    process = subprocess.Popen([sys.executable, "-m", "sasv", *words], stderr=subprocess.DEVNULL)
    while process.poll() is None and not (run.work / "killed" / "state.pt").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    sasv(run, words)
    models = [
        torch.load(run.work / name / "state.pt", weights_only=True)["system"]
        for name in ("first", "second", "killed")
    ]
    for name, model in zip(("the second", "the killed and resumed"), models[1:]):
        same = all(torch.equal(value, model[key]) for key, value in models[0].items())
        run.found[f"deterministic {name}"] = same
        print(f"  {name} training ends in the weights of the first: {same}")


def vocoder(run: Run) -> None:
    """The neural source-filter vocoder with random weights, batched."""
    torch.manual_seed(0)
    torch.save(Network().state_dict(), run.work / "nsf.pt")
    maker = make_vocoder("hn-nsf", str(run.work / "nsf.pt"))
    maker.device = run.device
    rng = np.random.default_rng(3)
    count = 1 if run.quick else 16
    length = RATE // 10 if run.quick else 4 * RATE
    waves = [0.1 * rng.standard_normal(length).astype(np.float32) for _ in range(count)]
    for what in ("start included",) if run.quick else ("start included", "after it"):
        started = time.perf_counter()
        maker.many(waves, RATE, list(range(count)))
        run.wait()
        rate = count * length / RATE / (time.perf_counter() - started)
        print(f"  hn-nsf, batch of {count}: {rate:.1f} x real time, {what}")


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
    ceilings,
    steps,
    from_files,
    determinism,
    vocoder,
    embeddings,
    peer,
    scores,
    nccl,
    largest_batch,
)


def main(words: Sequence[str] | None = None) -> int:
    """Run all parts; return 1 where one failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for files and results")
    parser.add_argument("--minutes", type=float, default=5.5, help="no part begins after these")
    parser.add_argument("--quick", action="store_true", help="the smallest sizes, for a test")
    names = [part.__name__ for part in PARTS]
    parser.add_argument("--parts", nargs="+", choices=names, default=names, help="only these")
    options = parser.parse_args(words)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    options.out.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + 60 * options.minutes
    with tempfile.TemporaryDirectory() as work:
        run = Run(device, options.quick, options.out, Path(work), deadline)
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

"""A training step: seconds of audio per second for each encoder and precision, eager and compiled,
and the number of cores that the loader needs.
"""

import tempfile
import time
from collections.abc import Sequence

import torch

from common import header, is_quick
from sasv.core.memory import keep_memory
from sasv.encoders import preset
from sasv.parallel.processes import Processes
from sasv.training.build import build_engine
from sasv.training.engine import Engine
from sasv.training.options import TrainOptions

SMALL = {"channels": 256, "pooled": 512, "attention": 64, "bottleneck": 64}
CLASSES = [f"id{number:05}" for number in range(5994)]
PUBLISHED = ("ecapa-tdnn", "ska-tdnn", "mfa-conformer")
LOADER = 800.0
"""Augmented crops per second that one core of the loader makes (bench_loader)."""


def flops(encoder: torch.nn.Module, waves: torch.Tensor) -> float:
    """Return the floating-point operations of a forward and backward pass of a batch."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        encoder(waves).square().sum().backward()
    return float(counter.get_total_flops())


def step_time(engine: Engine, pairs: int, samples: int, repeats: int) -> tuple[float, float]:
    """Return (seconds of a whole step, seconds of the encoder's forward and backward alone),
    medians.
    """
    waves = 0.1 * torch.randn(pairs, 2, samples)
    labels = torch.arange(pairs)
    flat = waves.reshape(2 * pairs, samples).to(engine.device)

    def whole() -> None:
        engine.backward(waves, labels, pairs)
        engine.step(0)

    def encoder() -> None:
        with torch.autocast(
            engine.device.type, engine.system.low, enabled=engine.system.low is not None
        ):
            output = engine.system.encoder(flat)
        output.float().sum().backward()

    medians = []
    for call in (whole, encoder):
        call()
        call()
        times = []
        for _ in range(repeats):
            wait(engine.device)
            started = time.perf_counter()
            call()
            wait(engine.device)
            times.append(time.perf_counter() - started)
        medians.append(sorted(times)[len(times) // 2])
    return medians[0], medians[1]


def wait(device: torch.device) -> None:
    """Synchronise with a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def main(words: Sequence[str] | None = None) -> None:
    quick = is_quick(words, __doc__)
    keep_memory()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    gpu = device.type == "cuda"
    cases = [("ecapa-tdnn", SMALL), *((name, {}) for name in PUBLISHED)]
    samples = 32240
    if quick:
        cases = [("ecapa-tdnn", preset("ecapa-tdnn", "test"))]
        samples = 8000
    header(f"one training step, crops of 2 s, on {torch.cuda.get_device_name() if gpu else 'CPU'}")
    for name, sizes in cases:
        batches = (100, 400) if gpu else (16,) if sizes else (4,)  # 100 pairs are published
        if quick:
            batches = (2,)
        for pairs in batches:
            baseline = 0.0
            for compiled in (False,) if quick else (False, True):
                for precision in ("float32", "bfloat16"):
                    with tempfile.TemporaryDirectory() as folder:
                        options = TrainOptions(
                            utterances="",
                            out=folder,
                            encoder=name,
                            encoder_options=sizes,
                            precision=precision,
                            compile=compiled,
                        )
                        torch.manual_seed(0)
                        engine, _ = build_engine(options, CLASSES, device, Processes())
                    seconds, alone = step_time(engine, pairs, samples, 9 if gpu else 3)
                    heard = 2 * pairs * samples / 16000 / seconds
                    baseline = baseline or heard
                    title = (
                        f"{name}{' (256 channels)' if sizes else ''}, {pairs} pairs, {precision}"
                    )
                    title += ", compiled" if compiled else ""
                    outside = 100 * (1 - alone / seconds)
                    note = (
                        f"{heard / baseline:5.2f} x float32 eager, {outside:4.1f} % outside "
                        "the encoder"
                    )
                    note += f", {2 * pairs / seconds / LOADER:.2f} loader cores"
                    if not compiled:
                        operations = flops(
                            engine.system.encoder,
                            0.1 * torch.randn(2 * pairs, samples, device=device),
                        )
                        note += f", {operations / 2 / pairs / 1e9:.1f} GFLOP a crop"
                        note += f", {operations / alone / 1e12:.2f} TFLOP/s"
                    print(
                        f"  {title:56} {1000 * seconds:9.1f} ms {heard:9.1f} s/s {note}", flush=True
                    )
                    torch.compiler.reset()


if __name__ == "__main__":
    main()

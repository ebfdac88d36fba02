"""The service on this machine: speed compared with the runtime alone, identification among many
voiceprints, memory, and malicious clients.

``python benchmarks/bench_service.py --model compact --requests 20000 --mutated 5000``
"""

import argparse
import http.client
import io
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from common import header
from sasv.audio import RATE
from sasv.client import Client, ServiceError
from sasv.commands._serve import served_model
from sasv.corpora.synthetic import render
from sasv.decision import Recording
from sasv.runtime import Verifier, Voiceprint
from sasv.store import VoiceprintStore
from sasv.store.keys import new_key, read_key, write_key

PARTS = ("load", "identify", "memory", "abuse", "mutated")
TESTS = Path(__file__).resolve().parents[1] / "tests"
SPEAKER = "voice"
NAMES = [
    "'; DROP TABLE voiceprints; --",
    "../../etc/passwd",
    "..%2f..%2fetc%2fpasswd",
    "%00",
    "a" * 5000,
]
ENROLLED = (1_000, 10_000)
"""Numbers of voiceprints among which a voice is identified."""

TURNS = 5
"""Number of turns in which the runtime alone and the service are measured."""

OUTCOMES = ("accept", "reject", "reject_speaker", "reject_spoof", "inconclusive")


HEAD = (
    f"POST /v1/verify?speaker={SPEAKER} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: audio/wav\r\n"
)


def resident_megabytes(process: int) -> float:
    """Return the resident memory of a process."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1e3


def resident(process: int) -> str:
    """Return the resident memory as text."""
    return f"{resident_megabytes(process):.0f} MB"


def processor_seconds(process: int) -> float:
    """Return the processor time that a process has used."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def serving(model: str, *options: str) -> Iterator[tuple[Client, int, Path]]:
    """Run ``sasv serve``; yield a client, the number of its process, and its log."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        words = ["serve", "--insecure-demo", "--port", "0", "--model", model, "--rate", "0"]
        with log.open("w") as stream:
            process = subprocess.Popen(
                [sys.executable, "-m", "sasv", *words, *options], stderr=stream, stdout=stream
            )
        try:
            yield Client(address_in(log, process), attempts=1), process.pid, log
        finally:
            process.terminate()
            process.wait(60)


def address_in(log: Path, process: subprocess.Popen) -> str:
    """Wait until the service reports its address."""
    for _ in range(6000):
        found = re.search(r"http://127\.0\.0\.1:\d+", log.read_text())
        if found:
            return found[0]
        if process.poll() is not None:
            break
        time.sleep(0.1)
    raise SystemExit(f"the service did not start:\n{log.read_text()}")


def recordings(speech: str, folder: Path) -> list[bytes]:
    """Return WAV files of about 3 s of one speaker, from a folder or rendered."""
    files = sorted(Path(speech).rglob("*.flac")) if speech else []
    if not files:
        voices = sorted((render(folder, 5, 4) / "synthetic").iterdir())
        files = sorted(voices[2].rglob("*.flac"))
    found = []
    for path in files[:8]:
        wave, rate = soundfile.read(path, dtype="float32")
        stream = io.BytesIO()
        soundfile.write(stream, np.resize(wave, 3 * rate), rate, format="WAV")
        found.append(stream.getvalue())
    return found


def in_parallel(
    workers: int, seconds: float, work: Callable[[int], object]
) -> tuple[list[float], float]:
    """Call ``work`` with numbers in a number of threads for some seconds; return the seconds of
    each call, and the calls per second.
    """
    taken = []
    begun = time.perf_counter()
    until = begun + seconds

    def run(worker: int) -> None:
        number = worker
        while time.perf_counter() < until:
            started = time.perf_counter()
            work(number)
            taken.append(time.perf_counter() - started)
            number += workers

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(run, range(workers)))
    return taken, len(taken) / (time.perf_counter() - begun)


def load(
    client: Client,
    process: int,
    bare: Verifier,
    waves: list[bytes],
    seconds: float,
    numbers: Iterable[int],
) -> None:
    """Print requests per second and percentiles at given numbers of clients, compared with the
    runtime alone. Both take turns, because the speed of a machine changes within minutes.
    """
    cores = os.cpu_count() or 1
    voiceprint = bare.enrol([as_samples(wave) for wave in waves[:3]])

    def alone(number: int) -> None:
        bare.verify(voiceprint, as_samples(waves[number % len(waves)]))

    def ask(number: int) -> None:
        client.verify(SPEAKER, waves[number % len(waves)])

    for clients in numbers:
        rates = np.zeros(2)
        used = np.zeros(3)
        counts = np.zeros(2)
        times: list[float] = []
        for _ in range(TURNS):
            begun = np.array([time.process_time(), processor_seconds(process)])
            taken, rate = in_parallel(cores, seconds / TURNS, alone)
            between = np.array([time.process_time(), processor_seconds(process)])
            answered, served = in_parallel(clients, seconds / TURNS, ask)
            after = np.array([time.process_time(), processor_seconds(process)])
            rates += rate, served
            used += between[0] - begun[0], after[1] - between[1], after[0] - between[0]
            counts += len(taken), len(answered)
            times += answered
        base, rate = rates / TURNS
        each = 1000 * used / counts[[0, 1, 1]]
        p50, p95, p99 = (1000 * float(np.quantile(times, at)) for at in (0.5, 0.95, 0.99))
        print(
            f"  {clients:2} clients  {rate:6.1f} requests a second, bare runtime (baseline, "
            f"{cores} threads) {base:6.1f} ({rate / base:4.0%})   "
            f"p50 {p50:.0f} ms, p95 {p95:.0f} ms, p99 {p99:.0f} ms   "
            f"processor: service {each[1]:.1f} ms, client {each[2]:.1f} ms, bare {each[0]:.1f} ms",
            flush=True,
        )


def filled(store: Path, key: Path, model: Verifier, count: int) -> None:
    """Make a store with a number of random voiceprints, each of another speaker."""
    write_key(key, new_key())
    opened = VoiceprintStore(store, read_key(str(key)))
    rng = np.random.default_rng(0)
    fingerprint = model.embedder.fingerprint
    with opened.database.transaction():
        for number in range(count):
            vector = rng.standard_normal(model.embedder.dimension).astype(np.float32)
            recording = Recording(f"{number}.wav", vector, 6.0, 5.0)
            opened.add(Voiceprint((recording,), fingerprint, f"speaker-{number}"))
    opened.close()


def identify(exported: str, waves: list[bytes], counts: Iterable[int], requests: int) -> None:
    """Print the time of a verification and of an identification among many voiceprints."""
    for count in counts:
        with tempfile.TemporaryDirectory() as folder:
            store = Path(folder) / "voiceprints.db"
            key = Path(folder) / "key"
            filled(store, key, Verifier(exported), count)
            words = ("--store", str(store), "--key", str(key), "--log-requests", "false")
            with serving(exported, *words) as (client, process, _):
                client.create_speaker(SPEAKER)
                for wave in waves[:3]:
                    client.enrol(SPEAKER, wave)
                for name, ask in (
                    ("verification", lambda wave: client.verify(SPEAKER, wave)["speaker"]),
                    ("identification", lambda wave: _first(client.identify(wave))),
                ):
                    ask(waves[0])
                    taken = []
                    first = 0
                    begun = processor_seconds(process)
                    for number in range(requests):
                        started = time.perf_counter()
                        first += ask(waves[number % len(waves)]) == SPEAKER
                        taken.append(time.perf_counter() - started)
                    used = (processor_seconds(process) - begun) / requests
                    p50, p95 = (1000 * float(np.quantile(taken, at)) for at in (0.5, 0.95))
                    print(
                        f"  {count:,} voiceprints, {name}: p50 {p50:.0f} ms, p95 {p95:.0f} ms, "
                        f"{1000 * used:.0f} ms of the processor; {first} of {requests} found the "
                        f"speaker; {resident(process)}",
                        flush=True,
                    )


def _first(found: dict[str, Any]) -> str | None:
    candidates = found["candidates"]
    return candidates[0]["speaker"] if candidates else None


def as_samples(wave: bytes) -> np.ndarray:
    """Decode a recording as a program without the service does."""
    return soundfile.read(io.BytesIO(wave), dtype="float32")[0]


def memory(client: Client, process: int, waves: list[bytes], requests: int) -> None:
    """Print the memory of the service over a number of requests: one in ten is a verification, and
    the others are noise, lists, and bodies that are not audio.
    """
    noise = io.BytesIO()
    hiss = 0.01 * np.random.default_rng(0).standard_normal(RATE)
    soundfile.write(noise, hiss, RATE, format="WAV")
    seen = Counter()

    def ask(number: int) -> None:
        kind = number % 10
        try:
            if kind == 0:
                seen[client.verify(SPEAKER, waves[number % len(waves)])["outcome"]] += 1
            elif kind < 4:
                seen[client.verify(SPEAKER, noise.getvalue())["outcome"]] += 1
            elif kind < 7:
                client.verify(SPEAKER, b"RIFF" + bytes(number % 256 for _ in range(64)))
            else:
                client.speaker(SPEAKER)
        except ServiceError as error:
            seen[error.code] += 1

    marks = []
    tenth = max(1, requests // 10)
    for part in range(10):
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(ask, range(part * tenth, (part + 1) * tenth)))
        marks.append(resident_megabytes(process))
        print(f"  {(part + 1) * tenth:,} requests: {marks[-1]:.0f} MB", flush=True)
    shown = ", ".join(f"{mark:.0f}" for mark in marks)
    print(f"  memory after each tenth of {requests:,} requests, MB: {shown}")
    print(f"  answers: {dict(seen)}")


def raw(client: Client, data: bytes) -> socket.socket:
    """Open a connection to the service, and send bytes."""
    port = int(client.url.rpartition(":")[2])
    connection = socket.create_connection(("127.0.0.1", port), timeout=60)
    connection.sendall(data)
    return connection


def alive(client: Client, waves: list[bytes]) -> str:
    """Return the outcome of a verification, which shows that the service still works."""
    for _ in range(20):
        try:
            return str(client.verify(SPEAKER, waves[0])["outcome"])
        except ServiceError:
            time.sleep(1)
    return "no answer"


def idle_connections(client: Client, process: int, waves: list[bytes], count: int) -> str:
    """Open connections that send nothing."""
    held = []
    for _ in range(count):
        held.append(raw(client, b""))
        if len(held) > 800:  # this process has few file handles too
            held.pop(0).close()
    outcome = alive(client, waves)
    for connection in held:
        connection.close()
    return f"{count:,} connections that send nothing: then {outcome}, {resident(process)}"


def half_bodies(client: Client, process: int, waves: list[bytes], count: int) -> str:
    """Announce a body and send half of it, on up to 200 connections at the same time."""
    head = f"{HEAD}Content-Length: {len(waves[0])}\r\n\r\n".encode()
    held = [raw(client, head + waves[0][: len(waves[0]) // 2]) for _ in range(count)]
    outcome = alive(client, waves)
    for connection in held:
        connection.close()
    return f"{count} half bodies: then {outcome}, {resident(process)}"


def large_body(client: Client, process: int, waves: list[bytes], size: int) -> str:
    """Send a body of gigabytes, with and without announcing its length."""
    answers = []
    for head in (f"Content-Length: {size}", "Transfer-Encoding: chunked"):
        connection = raw(client, f"{HEAD}{head}\r\n\r\n".encode())
        piece = bytes(1 << 20)
        chunk = b"100000\r\n" + piece + b"\r\n" if "chunked" in head else piece
        sent = 0
        try:
            while sent < size:
                connection.sendall(chunk)
                sent += len(piece)
        except OSError:
            pass
        try:
            answers.append(connection.recv(64).split(b"\r\n")[0].decode() or "closed")
        except OSError:
            answers.append("closed")
        connection.close()
    outcome = alive(client, waves)
    return f"body of {size / 1e9:.0f} GB: {answers}; then {outcome}, {resident(process)}"


def bombs(client: Client, process: int, waves: list[bytes], seconds: int) -> str:
    """Send hours of silence, which compress to a small file."""
    stream = io.BytesIO()
    with soundfile.SoundFile(stream, "w", RATE, 1, format="FLAC") as file:
        for _ in range(seconds // 60):
            file.write(np.zeros(60 * RATE, np.float32))
    data = stream.getvalue()
    try:
        answer = client.verify(SPEAKER, data)["outcome"]
    except ServiceError as error:
        answer = f"{error.status} {error.code}"
    size = len(data) / 1e6
    return f"{seconds // 3600} hours of silence in {size:.1f} MB: {answer}, {resident(process)}"


def names(client: Client, process: int, waves: list[bytes], count: int) -> str:
    """Send identifiers that have a meaning in SQL and in paths."""
    port = int(client.url.rpartition(":")[2])
    statuses = Counter()
    for name in NAMES[:count]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        body = json.dumps({"id": name})
        connection.request("POST", "/v1/speakers", body, {"Content-Type": "application/json"})
        statuses[connection.getresponse().status] += 1
        connection.close()
    return f"identifiers that inject: {dict(statuses)}; then {alive(client, waves)}"


def mutated(client: Client, process: int, waves: list[bytes], count: int) -> str:
    """Send damaged recordings of several formats."""
    sys.path.insert(0, str(TESTS))
    from faults import damage

    forms = [waves[0]]
    wave = as_samples(waves[0])
    for form in ("FLAC", "OGG", "MP3", "AIFF"):
        stream = io.BytesIO()
        soundfile.write(stream, wave, RATE, format=form)
        forms.append(stream.getvalue())
    seen = Counter()
    last = time.perf_counter()
    for number in range(count):
        rng = np.random.default_rng([7, number])
        kind = list(damage.BYTES)[number % len(damage.BYTES)]
        data = damage.damaged(kind, forms[int(rng.integers(len(forms)))], rng)
        try:
            outcome = client.verify(SPEAKER, data)["outcome"]
            assert outcome in OUTCOMES
            seen[outcome] += 1
        except ServiceError as error:
            seen[f"{error.status} {error.code}"] += 1
            if not error.status:
                cause = error.__cause__
                pause = time.perf_counter() - last
                print(f"  recording {number} ({kind}): {cause!r} after {pause:.1f} s", flush=True)
        last = time.perf_counter()
    return f"{count:,} damaged recordings: {dict(seen)}, {resident(process)}"


def abuse(client: Client, process: int, waves: list[bytes], small: bool) -> None:
    """Print what the service makes of clients that mean harm."""
    for attack, size in (
        (idle_connections, 50 if small else 10_000),
        (half_bodies, 5 if small else 200),
        (large_body, 10**7 if small else 2 * 10**9),
        (bombs, 7200 if small else 36_000),
        (names, len(NAMES)),
    ):
        print("  " + attack(client, process, waves, size), flush=True)


def main(words: list[str] | None = None) -> None:
    """Run the measurements, and print the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="default")
    parser.add_argument("--speech", default="", help="folder of FLAC files of one speaker")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each measurement")
    parser.add_argument("--clients", default="1,8,32", help="of the part on load")
    parser.add_argument("--requests", type=int, default=20_000, help="of the part on memory")
    parser.add_argument("--mutated", type=int, default=5_000, help="damaged recordings")
    parser.add_argument("--parts", default=",".join(PARTS), help="which parts are measured")
    parser.add_argument("--quick", action="store_true", help="the smallest size, for a test")
    options = parser.parse_args(words)
    if options.quick:
        options.model, options.seconds, options.requests, options.mutated = "compact", 0.5, 20, 10
    parts = options.parts.split(",")
    if not set(parts) <= set(PARTS):
        parser.error(f"--parts {options.parts}: the parts are {', '.join(PARTS)}")
    with tempfile.TemporaryDirectory() as folder:
        waves = recordings(options.speech, Path(folder))
        exported = served_model(options.model)
        with serving(exported, "--log-requests", "false") as (client, process, log):
            client.create_speaker(SPEAKER)
            for wave in waves[:3]:
                client.enrol(SPEAKER, wave)
            header(f"the service with the model {options.model}")
            print(f"  memory at the start: {resident(process)}")
            if "load" in parts:
                numbers = [int(number) for number in options.clients.split(",")]
                bare = Verifier(exported, threads=1)
                load(client, process, bare, waves, options.seconds, numbers)
            if "identify" in parts:
                counts = [20] if options.quick else ENROLLED
                identify(exported, waves, counts, 3 if options.quick else 200)
            if "memory" in parts:
                memory(client, process, waves, options.requests)
            if "abuse" in parts:
                abuse(client, process, waves, options.quick)
            if "mutated" in parts:
                print("  " + mutated(client, process, waves, options.mutated), flush=True)
            print(f"  tracebacks in the log of the service: {log.read_text().count('Traceback')}")


if __name__ == "__main__":
    main()

"""Interrupted commands that change a store of voiceprints, and the interrupted service."""

import contextlib
import importlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from conftest import buzz
from faults.running import LOST, Fault
from faults.scenario import Scenario, run_command
from sasv import commands
from sasv.audio import write_audio
from sasv.core.errors import SasvError
from sasv.core.files import digest_of_bytes
from sasv.service.keys import DEFAULT_SCOPES, new_api_key
from sasv.service.settings import Settings
from sasv.service.state import ServiceState
from sasv.store import VoiceprintStore
from sasv.store.keys import new_key, read_key, write_key
from serving import speech
from toy import RATE, toy_model

STORE = "voiceprints.db"
KEY = "store.key"
FRESH = "fresh.key"
"""The key to which a store is rotated."""
MADE_KEY = "made.key"
"""The key that ``sasv store new-key`` makes."""
LATER = ("-wal", "-shm")
"""Suffixes of the files in which SQLite temporarily keeps changes."""
PITCHES = {"ann": 110, "bob": 170, "gone": 215, "carl": 260}


def make_store_stock(stock: Path) -> None:
    """Make a model, recordings, and the store with which the trials begin."""
    for module in ("sasv.service.app", "starlette.testclient", "onnxruntime"):
        importlib.import_module(module)  # imported once, and not in each child
    toy_model(stock / "toy.onnx")
    for name, pitch in PITCHES.items():
        for number in range(3):
            wave = buzz(RATE, pitch, number)
            write_audio(stock / f"people/{name}/{number}.wav", wave)
    (stock / "store").mkdir()
    for name in (KEY, FRESH):
        write_key(stock / "store" / name, new_key())
    place = stock / "store"
    store = VoiceprintStore(place / STORE, read_key(place / KEY), clock=lambda: 0.0)
    verifier = importlib.import_module("sasv.runtime").Verifier(stock / "toy.onnx", 1)
    for name in ("ann", "bob", "gone"):
        paths = [str(stock / f"people/{name}/{number}.wav") for number in range(2)]
        store.add(verifier.enrol(paths, name), expires=1.0 if name == "gone" else None)
    kept, _ = new_api_key("first", "default", tuple(DEFAULT_SCOPES), 0.0)
    ServiceState(store.database).add_key(kept)
    store.close()


def store_scenarios(stock: Path) -> list[Scenario]:
    """Return a scenario for every command that changes a store, with ``stock`` as its input."""

    def enrol(name: str, numbers: Sequence[int], more: bool, out: Path) -> Any:
        return commands.EnrolOptions(
            str(out / STORE),
            name,
            [str(stock / f"people/{name}/{number}.wav") for number in numbers],
            model=str(stock / "toy.onnx"),
            key=str(out / KEY),
            more=more,
        )

    def act(action: str, out: Path, **values: str) -> Any:
        return commands.StoreOptions(action, str(out / STORE), key=str(out / KEY), **values)

    def create_key(out: Path) -> Any:
        return commands.KeysOptions("create", str(out / STORE), "second", key=str(out / KEY))

    def revoke(out: Path) -> None:
        store = VoiceprintStore(out / STORE, read_key(out / KEY), create=False)
        identifier = ServiceState(store.database).api_keys()[0].id
        store.close()
        commands.keys(
            commands.KeysOptions("revoke", str(out / STORE), id=identifier, key=str(out / KEY))
        )

    def rotate(out: Path) -> None:
        """If the old key no longer opens the store, the new one must: the interrupted run had
        finished.
        """
        try:
            commands.store(act("rotate", out, new_key=str(out / FRESH)))
        except SasvError:
            if _key_of(out / STORE) != FRESH:
                raise

    def write_new_key(out: Path) -> None:
        """An existing key must be complete, and is not written again."""
        try:
            commands.store(commands.StoreOptions("new-key", str(out / MADE_KEY)))
        except SasvError:
            read_key(out / MADE_KEY)

    def begin(out: Path) -> None:
        _acknowledged(out).unlink(missing_ok=True)
        for path in sorted((stock / "store").iterdir()):
            shutil.copy(path, out / path.name)

    def scenario(name: str, run: Any, share: int, kept: Sequence[str]) -> Scenario:
        return Scenario(name, run, share, begin, partial(_check, kept))

    enrol_new = partial(run_command, "enrol", partial(enrol, "carl", (0, 1), False))
    enrol_again = partial(run_command, "enrol", partial(enrol, "ann", (1, 2), False))
    enrol_more = partial(run_command, "enrol", partial(enrol, "ann", (2,), True))
    everybody = ("ann", "bob")
    return [
        scenario("enrol", enrol_new, 6, everybody),
        scenario("enrol anew", enrol_again, 6, everybody),
        scenario("enrol --more", enrol_more, 6, everybody),
        Scenario("store new-key", write_new_key, 2),
        Scenario(
            "store create",
            lambda out: commands.store(act("create", out)),
            3,
            lambda out: shutil.copy(stock / "store" / KEY, out / KEY),
        ),
        scenario(
            "store delete",
            lambda out: commands.store(act("delete", out, speaker="ann")),
            3,
            ("bob",),
        ),
        scenario(
            "store opt-out",
            lambda out: commands.store(act("opt-out", out, speaker="ann")),
            3,
            ("bob",),
        ),
        scenario("store sweep", lambda out: commands.store(act("sweep", out)), 3, everybody),
        scenario("store rotate", rotate, 6, everybody),
        scenario("keys create", lambda out: commands.keys(create_key(out)), 2, everybody),
        scenario("keys revoke", revoke, 2, everybody),
        scenario("serve", partial(_serve, stock), 12, everybody),
    ]


def settled_store(path: Path) -> bytes:
    """Return the contents of a store, without random values and times."""
    name = _key_of(path)
    with _copied(path) as copy:
        store = VoiceprintStore(copy, read_key(path.with_name(name)), create=False)
        try:
            store.verify()
            state = ServiceState(store.database)
            voiceprints = [
                [
                    one.tenant,
                    one.speaker,
                    one.label,
                    one.model,
                    one.consent,
                    one.expires,
                    [_settled_recording(recording) for recording in one.voiceprint.recordings],
                ]
                for (tenant,) in store.database.execute("SELECT DISTINCT tenant FROM voiceprints")
                for speaker in store.speakers(tenant)
                for one in store.of(speaker, tenant)
            ]
            held = {
                "key": name,
                "voiceprints": sorted(voiceprints, key=str),
                "kept": store.database.execute("SELECT count(*) FROM voiceprints"),
                "audit": sorted(
                    store.database.execute("SELECT DISTINCT action, subject FROM audit")
                ),
                "opted out": store.database.execute("SELECT digest FROM optouts"),
                "speakers": sorted(
                    store.database.execute("SELECT tenant, speaker FROM service_speakers")
                ),
                "api keys": sorted(
                    {(one.name, one.tenant, one.revoked is not None) for one in state.api_keys()}
                ),
            }
        finally:
            store.close()
    return json.dumps(held, indent=1).encode()


def _settled_recording(recording: Any) -> list[Any]:
    name = Path(recording.name).name
    return [name, recording.seconds, digest_of_bytes(recording.vector.tobytes())]


@contextlib.contextmanager
def _copied(path: Path) -> Iterator[Path]:
    """Copy a store in its present state, because opening it would already repair it."""
    with tempfile.TemporaryDirectory(prefix="sasv-store-") as folder:
        for end in ("", LATER[0]):
            if path.with_name(path.name + end).exists():
                shutil.copy(path.with_name(path.name + end), Path(folder) / (path.name + end))
        yield Path(folder) / path.name


def _key_of(path: Path) -> str:
    """Return the name of the key that opens a store. Raise SasvError if no key does."""
    for name in (KEY, FRESH):
        if not path.with_name(name).exists():
            continue
        with _copied(path) as copy, contextlib.suppress(SasvError):
            VoiceprintStore(copy, read_key(path.with_name(name)), create=False).close()
            return name
    raise SasvError(f"{path}: none of its keys opens it")


def _check(kept: Sequence[str], out: Path) -> None:
    """Raise Fault if a voiceprint or a change acknowledged by the service is lost."""
    try:
        held = json.loads(settled_store(out / STORE))
    except SasvError as error:
        raise Fault(LOST, str(error)) from error
    recordings = {one[1]: len(one[-1]) for one in held["voiceprints"]}
    lost = [name for name in kept if not recordings.get(name)]
    if lost:
        raise Fault(LOST, f"voiceprints of {lost}")
    said = _acknowledged(out)
    for line in said.read_text().splitlines() if said.exists() else []:
        action, name, count = line.split()
        if action == "enrolled" and recordings.get(name, 0) < int(count):
            raise Fault(LOST, f"{line}, but the store holds {recordings.get(name, 0)}")
        if action == "deleted" and name in recordings:
            raise Fault(LOST, f"{line}, but it is there")


def _acknowledged(out: Path) -> Path:
    """Return the path of the client's record of acknowledged requests, outside the trial."""
    return out.parents[1] / "acknowledged"


def _serve(stock: Path, out: Path) -> None:
    """Run the service for a client that enrols one speaker, and enrols and deletes another."""
    from starlette.testclient import TestClient

    from sasv.runtime.model import OnnxModel
    from sasv.service.app import create_app, make_service

    store = VoiceprintStore(out / STORE, read_key(out / KEY), create=False)
    settings = Settings(workers=1, rate=0, demo=True)
    model = OnnxModel(str(stock / "toy.onnx"), 1)
    service = make_service(model, store, ServiceState(store.database), settings)
    client = TestClient(
        create_app(service, log=False),
        base_url="http://127.0.0.1",
        raise_server_exceptions=False,
    )
    writing = os.open(_acknowledged(out), os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def told(answer: Any, also: Sequence[int], line: str) -> None:
        """Record an acknowledged request. Raise SasvError if the server reported an error."""
        if answer.status_code >= 400 and answer.status_code not in also:
            raise SasvError(f"{line}: {answer.status_code} {answer.text}")
        os.write(writing, f"{line}\n".encode())

    try:
        told(client.post("/v1/speakers", json={"id": "eve"}), (409,), "created eve 0")
        for number in (0, 1):
            answer = client.post("/v1/speakers/eve/enrolments", content=speech("eve", number))
            told(answer, (), f"enrolled eve {number + 1}")
        answer = client.post("/v1/verify?speaker=eve", content=speech("eve", 7))
        told(answer, (), "verified eve 0")
        told(client.post("/v1/speakers", json={"id": "dan"}), (409,), "created dan 0")
        told(
            client.post("/v1/speakers/dan/enrolments", content=speech("bob", 3)),
            (),
            "begun dan 0",
        )
        told(client.delete("/v1/speakers/dan"), (), "deleted dan 0")
    finally:
        os.close(writing)
        service.close()

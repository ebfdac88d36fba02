"""The store of voiceprints, in a file and in PostgreSQL: acknowledged changes are not lost, changes
from outside are detected, and deleted data cannot be recovered.
"""

import contextlib
import errno
import json
import multiprocessing
import os
import random
import signal
import sqlite3
import time

import numpy as np
import pytest

import postgres
from sasv.cli import main
from sasv.core.errors import SasvError
from sasv.decision import Recording, Verifier
from sasv.runtime import Voiceprint
from sasv.service.state import ServiceState
from sasv.store import DuplicateVoice, VoiceprintStore
from sasv.store.keys import key_text, new_key, read_key, write_key

pytest.importorskip("cryptography", reason="cryptography is not installed")

KEY = bytes(range(32))


def voiceprint(speaker, seed=0, model="m", seconds=4.0):
    vector = np.random.default_rng(seed).standard_normal(16).astype(np.float32)
    return Voiceprint((Recording("a.wav", vector, 5.0, seconds),), model, speaker)


@pytest.fixture
def now():
    return [1000.0]


@pytest.fixture(scope="session")
def server():
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    with postgres.running(postgres.binaries()) as running:
        yield running


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.long)])
def address(request, tmp_path):
    """An address at which a new store can be created."""
    if request.param == "sqlite":
        return str(tmp_path / "store.db")
    address = request.getfixturevalue("server").address
    change(address, "DROP SCHEMA IF EXISTS sasv CASCADE")
    return address


def change(address, statement):
    """Change a store from outside, as anybody with access to its file or database can."""
    if address.startswith("postgresql:"):
        import psycopg

        with psycopg.connect(address, options="-c search_path=sasv") as outside:
            outside.execute(statement)
    else:
        with contextlib.closing(sqlite3.connect(address)) as outside:
            outside.execute(statement)
            outside.commit()


def contents(address):
    """Return all rows of all tables."""
    if address.startswith("postgresql:"):
        import psycopg

        connect = psycopg.connect(address, options="-c search_path=sasv")
    else:
        connect = contextlib.closing(sqlite3.connect(address))
    with connect as outside:
        return {
            table: outside.execute(f"SELECT * FROM {table}").fetchall()
            for table in ("settings", "voiceprints", "optouts", "audit")
        }


@pytest.fixture
def store(address, now):
    opened = VoiceprintStore(address, KEY, clock=lambda: now[0])
    yield opened
    opened.close()


def test_added_voiceprints_are_stored_encrypted(store, address):
    added = store.add(voiceprint("ann"), label="phone", consent="form 7")
    again = VoiceprintStore(address, KEY)
    (found,) = again.of("ann")
    assert found.id == added.id == again.get(added.id).id
    vector = found.voiceprint.recordings[0].vector
    np.testing.assert_array_equal(vector, voiceprint("ann").recordings[0].vector)
    assert (found.label, found.consent, found.net_speech) == ("phone", "form 7", 4.0)
    assert found.percentage(8.0) == 50.0
    again.close()
    ((*_, sealed),) = contents(address)["voiceprints"]
    assert vector.tobytes() not in sealed and b"a.wav" not in sealed
    with pytest.raises(SasvError, match="the key is wrong"):
        VoiceprintStore(address, bytes(32))


def test_store_file_is_readable_only_by_its_owner(tmp_path):
    path = tmp_path / "store.db"
    opened = VoiceprintStore(path, KEY)
    one = voiceprint("ann")
    opened.add(one)
    opened.close()
    data = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert one.recordings[0].vector.tobytes() not in data and b"a.wav" not in data
    assert path.stat().st_mode & 0o077 == 0


def test_several_voiceprints_of_a_speaker(store):
    store.add(voiceprint("ann", 1), label="phone")
    store.add(voiceprint("ann", 2), label="headset")
    replaced = store.add(voiceprint("ann", 3), label="phone")
    store.add(voiceprint("ann", 4), tenant="other")
    assert {one.label for one in store.of("ann")} == {"phone", "headset"}
    assert replaced.id in {one.id for one in store.of("ann")}
    more = store.extend(replaced.id, voiceprint("ann", 5))
    assert more.net_speech == 8.0 and len(more.voiceprint.recordings) == 2
    with pytest.raises(SasvError, match="another model; enrol the speaker again"):
        store.extend(replaced.id, voiceprint("ann", 5, model="new"))
    with pytest.raises(SasvError, match="needs the name"):
        store.add(voiceprint(""))
    assert store.verify() == 5


def test_repeated_request_adds_a_recording_only_once(store):
    """A request that is repeated, because its answer was lost, changes nothing."""
    added = store.add(voiceprint("ann", 1))
    whole = store.extend(added.id, voiceprint("ann", 2))
    entries = store.verify()
    again = store.extend(added.id, voiceprint("ann", 2))
    assert again.net_speech == whole.net_speech and len(again.voiceprint.recordings) == 2
    assert store.verify() == entries


def test_search_is_exact_and_of_one_model(store, now):
    prints = {f"s{seed}": voiceprint(f"s{seed}", seed) for seed in range(30)}
    ids = {
        name: store.add(one, expires=5000.0 if name == "s3" else None).id
        for name, one in prints.items()
    }
    store.add(voiceprint("x", 3, model="other"))
    vector = prints["s3"].recordings[0].vector
    vectors = np.stack([one.recordings[0].vector for one in prints.values()])
    cosines = vectors @ vector / np.linalg.norm(vectors, axis=1) / np.linalg.norm(vector)
    expected = [f"s{row}" for row in np.argsort(-cosines)]
    found = store.search(vector, "m", top=4)
    assert [identifier for identifier, _ in found] == [ids[name] for name in expected[:4]]
    assert found[0][1] == pytest.approx(1.0)
    store.used(ids["s3"], "accept")
    now[0] = 6000.0
    assert store.search(vector, "m", top=1)[0][0] == ids[expected[1]]
    store.delete(expected[1])
    assert store.search(vector, "m", top=1)[0][0] == ids[expected[2]]
    assert store.search(vector, "none") == []


def test_deletion_optout_expiry_and_export(store, now, address):
    first = store.add(voiceprint("ann"), consent="form 7")
    store.used(first.id, "accept")
    held = store.export("ann")
    assert held["voiceprints"][0]["consent"] == "form 7"
    assert [entry["action"] for entry in held["audit"]] == ["add", "compare"]
    json.dumps(held)
    receipt = store.delete("ann")
    assert receipt.deleted == (first.id,) and store.of("ann") == []
    with pytest.raises(SasvError, match="no voiceprint"):
        store.get(first.id)
    store.opt_out("bob")
    with pytest.raises(SasvError, match="bob opted out"):
        store.add(voiceprint("bob"))
    store.add(voiceprint("eve"), expires=2000.0)
    assert store.sweep() == 0
    now[0] = 2000.0
    assert store.of("eve") == [] and store.sweep() == 1 and store.speakers() == []
    assert store.verify() > 0
    rows = contents(address)["audit"]
    assert not {"ann", "bob", "eve"} & {str(cell) for row in rows for cell in row}


def test_whatever_removes_a_speaker_removes_what_a_service_keeps(store, now):
    """The record of the speaker, and every response that names the speaker as a whole word."""
    state = ServiceState(store.database, store.clock)
    for way in (store.delete, store.opt_out, lambda name: store.sweep()):
        for name, expires in (("ann", now[0] + 10), ("anna", None), ("Ann", None)):
            assert state.add_speaker("default", name, f"form of {name}", expires)
            store.add(voiceprint(name), expires=expires)
        candidates = [{"speaker": "anna"}, {"speaker": "ann"}]
        for number, (about, body) in enumerate(
            (
                ("ann", {"outcome": "accept"}),
                ("", {"candidates": candidates}),
                ("bob", {"detail": "this voice is already enrolled as ann"}),
                ("", {"candidates": candidates[:1]}),
                ("", {"candidates": [{"speaker": "Ann"}]}),
            )
        ):
            state.claim("key", f"n{number}", "digest", "default", about, 1e6)
            state.keep_answer("key", f"n{number}", 200, body, 100)
        held = store.export("ann")
        assert held["service"]["consent"] == "form of ann"
        assert [one.get("body") for one in held["responses"]] == [{"outcome": "accept"}, None, None]
        now[0] += 10
        assert state.speaker("default", "ann") is None
        assert sorted(state.speakers("default")) == ["Ann", "anna"]
        assert store.speakers() == ["Ann", "anna"]
        way("ann")
        held = store.export("ann")
        assert (held["service"], held["responses"], held["voiceprints"]) == (None, [], [])
        assert store.database.execute("SELECT name FROM service_answers ORDER BY name") == [
            ("n3",),
            ("n4",),
        ]
        assert store.of("anna") and store.export("anna")["service"]
        for name in ("anna", "Ann"):
            store.delete(name)
        store.database.execute("DELETE FROM optouts")


def test_an_expiry_that_has_passed_is_refused(store, now):
    with pytest.raises(SasvError, match="would have expired already"):
        store.add(voiceprint("ann"), expires=now[0])


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit SET action = 'other' WHERE number = 2",
        "DELETE FROM audit WHERE number = 2",
        "DELETE FROM audit WHERE number = 3",
        "UPDATE voiceprints SET speaker = 'mallory' WHERE speaker = 'ann'",
        "UPDATE voiceprints SET expires = 9e9",
        "UPDATE voiceprints SET sealed = (SELECT sealed FROM voiceprints WHERE speaker = 'ann')",
        "DELETE FROM settings WHERE name = 'audit_head'",
    ],
)
def test_every_outside_change_is_detected(store, address, statement):
    for number, name in enumerate(("ann", "bob", "eve")):
        store.add(voiceprint(name, number))
    assert store.verify() == 3
    change(address, statement)
    with pytest.raises(SasvError, match="audit trail was|cannot be decrypted|was removed"):
        store.verify()


def test_a_new_key(store, address):
    added = store.add(voiceprint("ann"))
    fresh = new_key()
    assert store.rotate(fresh) == 1
    assert store.get(added.id).speaker == "ann" and store.verify() == 2
    with pytest.raises(SasvError, match="the key is wrong"):
        VoiceprintStore(address, KEY)
    assert VoiceprintStore(address, fresh).get(added.id).speaker == "ann"


def test_a_voice_that_is_enrolled_already(store):
    verifier = Verifier(threshold=0.6)
    first = store.add(voiceprint("ann", 1), verifier=verifier)
    store.add(voiceprint("bob", 2), verifier=verifier)
    store.add(voiceprint("ann", 1), label="phone", verifier=verifier)
    again = voiceprint("eve", 1)
    assert [one.speaker for one in store.duplicates(again, verifier)] == ["ann", "ann"]
    with pytest.raises(DuplicateVoice, match="already enrolled as ann") as caught:
        store.add(again, verifier=verifier)
    assert first.id in {one.id for one in caught.value.found}
    assert caught.value.found[0].score == pytest.approx(1.0)
    assert store.speakers() == ["ann", "bob"]
    assert store.duplicates(voiceprint("eve", 1, model="new"), verifier) == []
    assert store.duplicates(again, verifier, tenant="other") == []
    assert store.add(again).speaker == "eve"


def test_more_recordings_of_a_voice_that_is_enrolled_already(store):
    """What is added to a voiceprint is compared with other speakers, what it held is not."""
    verifier = Verifier(threshold=0.6)
    store.add(voiceprint("ann", 1))
    bob = store.add(voiceprint("bob", 2))
    entries = store.verify()
    with pytest.raises(DuplicateVoice, match="bob: this voice is already enrolled as ann"):
        store.extend(bob.id, voiceprint("", 1), verifier)
    assert store.get(bob.id).net_speech == 4.0 and store.verify() == entries
    # The same recording again is no duplicate, nor is a new voice.
    assert store.extend(bob.id, voiceprint("", 2), verifier).net_speech == 4.0
    assert store.extend(bob.id, voiceprint("", 3), verifier).net_speech == 8.0
    assert store.extend(bob.id, voiceprint("", 1)).net_speech == 12.0
    with pytest.raises(SasvError, match="made by another model"):
        store.extend(bob.id, voiceprint("", 2, model="new"), verifier)


def test_names_that_a_database_cannot_store(store):
    for name in ("a\0b", "a\udc80", "a\nb", "x" * 201):
        with pytest.raises(SasvError, match="characters"):
            store.add(voiceprint(name))
    assert store.verify() == 0
    with pytest.raises(SasvError):
        store.of("a\udc80")


def test_a_search_sees_what_other_processes_change(store, address):
    """Additions, extensions, deletions, and a new data key."""
    ids = [store.add(voiceprint(f"s{seed}", seed)).id for seed in range(4)]
    other = VoiceprintStore(address, KEY)
    vector = voiceprint("", 1).recordings[0].vector
    assert other.search(vector, "m", top=1)[0][0] == ids[1]
    store.delete("s1")
    assert other.search(vector, "m", top=1)[0][0] != ids[1]
    added = store.add(voiceprint("new", 1), expires=9e9)
    assert other.search(vector, "m", top=1)[0] == (added.id, pytest.approx(1.0))
    store.extend(added.id, voiceprint("new", 7))
    identifier, cosine = other.search(vector, "m", top=1)[0]
    assert identifier == added.id and 0.3 < cosine < 0.95
    store.rotate(KEY)
    assert other.search(vector, "m", top=9) == store.search(vector, "m", top=9)
    with pytest.raises(SasvError, match="16 dimensions"):
        store.search(np.ones(5), "m")
    other.close()


def add_ten(address, seed):
    opened = VoiceprintStore(address, KEY)
    for number in range(10):
        opened.add(voiceprint(f"{seed}-{number}", number))
        opened.used(opened.of(f"{seed}-{number}")[0].id, "accept")


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system where processes fork")
def test_processes_share_a_store(address):
    """Three processes create it at the same time, and their entries form one chain."""
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=add_ten, args=(address, seed)) for seed in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    opened = VoiceprintStore(address, KEY)
    assert len(opened.speakers()) == 30 and opened.verify() == 60
    opened.close()


def test_changes_that_need_not_be_durable(store, address):
    """The next change is, whether they succeed or not."""
    database = store.database
    sqlite = not address.startswith("postgresql")
    setting = "PRAGMA synchronous" if sqlite else "SHOW synchronous_commit"
    durable, not_durable = ([(2,)], [(1,)]) if sqlite else ([("on",)], [("off",)])
    other = VoiceprintStore(address, KEY)
    for number in range(2):
        assert database.execute(setting) == durable
        with contextlib.suppress(ZeroDivisionError), database.transaction(durable=False):
            store.database.execute("INSERT INTO optouts VALUES (?, 0)", (str(number),))
            assert database.execute(setting) == not_durable
            with pytest.raises(RuntimeError, match="durable"):
                store.add(voiceprint("ann"))
            assert 1 / (1 - number)
    with database.transaction():
        assert database.execute(setting) == durable
    assert other.database.execute("SELECT digest FROM optouts") == [("0",)]
    assert not other.of("ann")
    other.close()


def test_a_comparison_is_recorded_with_the_voiceprint_as_it_was_read(store, now):
    read = store.add(voiceprint("ann"), expires=2000.0)
    store.used(read, "accept")
    assert store.get(read.id).used == now[0]
    now[0] = 2000.0
    with pytest.raises(SasvError, match="there is no voiceprint"):
        store.used(read, "accept")
    now[0] = 1500.0
    store.delete("ann")
    for given in (read, read.id):
        with pytest.raises(SasvError, match="there is no voiceprint"):
            store.used(given, "accept")
    actions = [entry["action"] for entry in store.export("ann")["audit"]]
    assert actions == ["add", "compare", "delete"]


def full(descriptor):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_keys(tmp_path, monkeypatch):
    write_key(tmp_path / "key", KEY)
    assert read_key(tmp_path / "key") == KEY
    assert (tmp_path / "key").stat().st_mode & 0o077 == 0
    with pytest.raises(SasvError, match="never overwritten"):
        write_key(tmp_path / "key", KEY)
    with monkeypatch.context() as patch, pytest.raises(SasvError, match="the disk is full"):
        patch.setattr("os.fsync", full)
        write_key(tmp_path / "other", KEY)
    assert [path.name for path in tmp_path.iterdir()] == ["key"]
    monkeypatch.setenv("SASV_STORE_KEY", key_text(KEY))
    assert read_key() == KEY
    for bad in ("short", "AAAA", "ä" * 44):
        monkeypatch.setenv("SASV_STORE_KEY", bad)
        with pytest.raises(SasvError, match="not a key"):
            read_key()
    monkeypatch.delenv("SASV_STORE_KEY")
    with pytest.raises(SasvError, match="give --key FILE"):
        read_key()


def test_files_that_are_not_stores_are_refused(tmp_path):
    with pytest.raises(SasvError, match="there is no"):
        VoiceprintStore(tmp_path / "none.db", KEY, create=False)
    (tmp_path / "text.db").write_text("no store, and long enough to have no header of SQLite" * 20)
    with pytest.raises(SasvError, match="cannot be used as a store"):
        VoiceprintStore(tmp_path / "text.db", KEY)
    other = sqlite3.connect(tmp_path / "other.db")
    other.execute("CREATE TABLE settings (name, value)")
    other.close()
    with pytest.raises(SasvError, match="not a store of sasv"):
        VoiceprintStore(tmp_path / "other.db", KEY)


def test_the_command(tmp_path, capsys):
    key, path = str(tmp_path / "key"), str(tmp_path / "store.db")
    assert main(["store", "new-key", key]) == 0
    assert main(["store", "list", path, "--key", key]) == 2
    assert main(["store", "create", path, "--key", key]) == 0
    assert main(["store", "create", path, "--key", key, "--searchable", "true"]) == 2
    opened = VoiceprintStore(path, read_key(key))
    opened.add(voiceprint("ann"))
    opened.close()
    capsys.readouterr()
    assert main(["store", "list", path, "--key", key]) == 0
    assert json.loads(capsys.readouterr().out) == {"speakers": ["ann"]}
    assert main(["store", "empty", path, "--key", key]) == 2
    assert "unknown action 'empty'" in capsys.readouterr().err
    assert main(["store", "delete", path, "--key", key]) == 2
    assert "needs --speaker" in capsys.readouterr().err
    assert main(["store", "delete", path, "--key", key, "--speaker", "ann"]) == 0
    assert json.loads(capsys.readouterr().out)["entry"] == 2
    assert main(["store", "verify", path, "--key", key]) == 0
    assert json.loads(capsys.readouterr().out) == {"entries": 2, "intact": True}
    assert main(["store", "delete", path, "--key", key, "--speaker", "an"]) == 0
    assert "an: no voiceprint was stored under this name" in capsys.readouterr().err
    assert main(["store", "rotate", path, "--key", key, "--new-key", key]) == 2
    assert "already encrypted with this key" in capsys.readouterr().err
    assert main(["store", "new-key", key + "2"]) == 0
    assert main(["store", "rotate", path, "--key", key, "--new-key", key + "2"]) == 0
    assert main(["store", "verify", path, "--key", key]) == 2


def write_for_ever(address, acknowledged, seed):
    """Add, extend, and delete voiceprints until killed, acknowledging each added one."""
    opened = VoiceprintStore(address, KEY)
    state = ServiceState(opened.database)
    for number in range(100000):
        name = f"{seed}-{number}"
        added = opened.add(voiceprint(name, number))
        os.write(acknowledged, f"{added.id} {name}\n".encode())
        if number % 3 == 0:
            opened.extend(added.id, voiceprint(name, number + 1))
        if number % 5 == 0:
            opened.add(voiceprint("gone", number))
            opened.delete("gone")
        state.claim("key", name, "digest", "default", name, 1e9)
        with opened.database.transaction():  # as the service verifies
            opened.used(added, "accept")
            state.keep_answer("key", name, 200, {}, 10**6)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system where processes fork")
def test_kills_lose_nothing_that_was_acknowledged(address):
    """Fifty processes, killed at random moments."""
    VoiceprintStore(address, KEY).close()
    context = multiprocessing.get_context("fork")
    chance = random.Random(0)
    known = {}
    for kill in range(50):
        reading, writing = os.pipe()
        process = context.Process(target=write_for_ever, args=(address, writing, kill))
        process.start()
        os.close(writing)
        text = os.read(reading, 1000)  # the first voiceprints
        time.sleep(chance.uniform(0.0, 0.03))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        with os.fdopen(reading, "rb") as rest:
            text += rest.read()
        known |= dict(line.split() for line in text.decode().split("\n")[:-1])
    opened = VoiceprintStore(address, KEY)
    assert len(known) >= 50
    for identifier, name in known.items():
        assert opened.get(identifier).speaker == name
    assert opened.verify() >= len(known)
    decided = "SELECT COUNT(*) FROM audit WHERE action = 'compare'"
    answered = "SELECT COUNT(*) FROM service_answers WHERE status = 200"
    assert opened.database.execute(decided) == opened.database.execute(answered)
    assert opened.database.execute(decided) > [(0,)]
    opened.close()

"""The routes of the service: people, enrolments, decisions, and errors."""

import contextlib
import gzip
import io
import json
import sqlite3
import threading
import time
from functools import partial
from urllib.parse import quote

import numpy as np
import pytest
import soundfile

import postgres
from conftest import buzz
from serving import KEY, PITCHES, api_key, enrol, noise, speech, wav

PROBLEM = "application/problem+json"


def problem(answer, status, code):
    """Check that a response is a problem and does not reveal the implementation of the service."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == PROBLEM
    body = answer.json()
    assert body["code"] == code and body["status"] == status
    assert body["request_id"] == answer.headers["x-request-id"]
    for secret in ("Traceback", "/proc", ".py", "sqlite"):
        assert secret not in answer.text
    return body


def test_enrol_and_verify(demo):
    result = enrol(demo, "ann")
    assert result["voiceprint"]["recordings"] == 2 and result["voiceprint"]["sufficient"]
    enrol(demo, "bob")
    for name, expected in (("ann", "accept"), ("eve", "reject")):
        answer = demo.post("/v1/verify?speaker=ann", content=speech(name, 7))
        assert answer.status_code == 200 and answer.json()["outcome"] == expected
        assert answer.json()["speaker"] == "ann"
    form = demo.post("/v1/verify", data={"speaker": "bob"}, files={"file": speech("bob", 9)})
    assert form.json()["outcome"] == "accept"
    found = demo.post("/v1/identify?top=2", content=speech("bob", 5)).json()
    assert [one["speaker"] for one in found["candidates"]][0] == "bob"
    assert found["outcome"] == "accept" and len(found["candidates"]) == 2


def test_creating_listing_and_deleting_speakers(demo):
    made = demo.post("/v1/speakers", json={"consent": "form 7", "expires_in_days": 1}).json()
    assert made["consent"] == "form 7" and made["expires"] - made["created"] == pytest.approx(86400)
    enrol(demo, "ann", 1)
    problem(demo.post("/v1/speakers", json={"id": "ann"}), 409, "speaker_exists")
    assert demo.get("/v1/speakers").json() == {
        "speakers": sorted([made["id"], "ann"]),
        "next": None,
    }
    page = demo.get("/v1/speakers?limit=1").json()
    assert page["next"] == page["speakers"][0]
    assert len(demo.get(f"/v1/speakers?after={page['next']}").json()["speakers"]) == 1
    read = demo.get("/v1/speakers/ann").json()
    assert len(read["voiceprints"]) == 1 and "vector" not in json.dumps(read)
    (quality,) = read["voiceprints"][0]["quality"]
    assert quality["seconds_compared"] == 2.0
    assert -30 < quality["level_dbfs"] < 0
    assert demo.get("/v1/speakers/ann/export").json()["voiceprints"]
    receipt = demo.delete("/v1/speakers/ann").json()
    assert len(receipt["deleted"]) == 1 and receipt["digest"]
    problem(demo.get("/v1/speakers/ann"), 404, "unknown_speaker")
    problem(demo.delete("/v1/speakers/ann"), 404, "unknown_speaker")
    answer = demo.post("/v1/speakers/ann/enrolments", content=speech("ann"))
    problem(answer, 404, "unknown_speaker")
    demo.delete("/v1/speakers/ann?opt_out=true")
    problem(demo.post("/v1/speakers", json={"id": "ann"}), 409, "opted_out")


@pytest.mark.parametrize("way", ["http", "command"])
def test_nothing_in_the_store_names_a_deleted_speaker(made, client_of, way):
    from sasv.store import VoiceprintStore

    service = made(rate=0)
    client = client_of(service, api_key(service))
    assert client.post("/v1/speakers", json={"id": "ann", "consent": "form 7"}).status_code == 201
    assert client.post("/v1/speakers", json={"id": "bob"}).status_code == 201
    for number, path in enumerate(
        ("speakers/ann/enrolments", "verify?speaker=ann", "identify", "speakers/bob/enrolments")
    ):
        headers = {"Idempotency-Key": f"k{number}"}
        answer = client.post(f"/v1/{path}", content=speech("ann", 4), headers=headers)
        assert answer.status_code < 300 and "ann" in answer.text
    held = client.get("/v1/speakers/ann/export").json()
    assert held["service"]["consent"] == "form 7" and len(held["responses"]) == 4
    path = service.engine.store.path
    if way == "http":
        assert client.delete("/v1/speakers/ann").status_code == 200
    else:
        store = VoiceprintStore(path, KEY, create=False)
        store.delete("ann", "bank")
        store.close()
    with contextlib.closing(sqlite3.connect(path)) as outside:
        tables = [name for (name,) in outside.execute("SELECT name FROM sqlite_master")]
        cells = [
            str(cell)
            for table in tables
            if not table.startswith(("sqlite_", "service_answers_"))
            for row in outside.execute(f"SELECT * FROM {table}")
            for cell in row
        ]
    assert len(cells) > 20 and not [cell for cell in cells if "ann" in cell or "form 7" in cell]
    assert client.get("/v1/speakers").json()["speakers"] == ["bob"]


def test_an_expired_speaker_is_unknown_and_can_be_created_again(made, client_of):
    service = made(rate=0)
    client = client_of(service, api_key(service))
    service.state.add_speaker("bank", "ann", "form 7", time.time() - 1)
    assert client.get("/v1/speakers").json()["speakers"] == []
    for answer in (
        client.get("/v1/speakers/ann"),
        client.post("/v1/speakers/ann/enrolments", content=speech("ann")),
        client.post("/v1/verify?speaker=ann", content=speech("ann")),
    ):
        assert (answer.status_code, answer.json()["code"]) == (404, "unknown_speaker")
    assert client.post("/v1/speakers", json={"id": "ann"}).json()["consent"] == ""
    assert client.post("/v1/speakers/ann/enrolments", content=speech("ann")).status_code == 201


def test_several_voiceprints_of_a_speaker(demo):
    demo.post("/v1/speakers", json={"id": "ann"})
    problem(demo.post("/v1/verify?speaker=ann", content=speech("ann")), 409, "not_enrolled")
    for label, name in (("phone", "ann"), ("headset", "eve")):
        demo.post(f"/v1/speakers/ann/enrolments?label={label}", content=speech(name))
    for name, label in (("ann", "phone"), ("eve", "headset")):
        found = demo.post("/v1/verify?speaker=ann", content=speech(name, 3)).json()
        assert (found["outcome"], found["label"]) == ("accept", label)
    other = demo.post("/v1/verify?speaker=ann&label=phone", content=speech("eve", 3)).json()
    assert other["outcome"] == "reject"
    begun = demo.post(
        "/v1/speakers/ann/enrolments",
        data={"label": "phone", "replace": "true"},
        files={"file": speech("ann", 4)},
    ).json()
    assert begun["voiceprint"]["recordings"] == 1


def test_unreadable_audio_is_refused(demo):
    enrol(demo, "ann", 1)
    few = wav(np.zeros((10, 20)))  # of twenty channels
    for body in (b"", b"no audio at all", speech("ann")[:2000], few):
        answer = demo.post("/v1/verify?speaker=ann", content=body)
        problem(answer, 422, "unreadable_audio")


def test_no_decision_without_speech_to_compare(demo):
    enrol(demo, "ann", 1)
    for empty in (wav(np.zeros(16000)), wav(np.full(100, 0.1))):
        found = demo.post("/v1/verify?speaker=ann", content=empty).json()
        assert found["outcome"] == "inconclusive" and found["score"] is None
        assert found["reasons"][0]["code"] in ("no_speech", "no_embedding")
        answer = demo.post("/v1/speakers/ann/enrolments", content=empty)
        assert problem(answer, 422, "unusable_recording")["reasons"]
        assert demo.post("/v1/identify", content=empty).json()["candidates"] == []
    problem(demo.post("/v1/detect", content=noise()), 501, "not_supported")


def test_a_voice_that_is_enrolled_already(demo):
    enrol(demo, "ann", 1)
    demo.post("/v1/speakers", json={"id": "again"})
    path = "/v1/speakers/again/enrolments"
    refused = demo.post(f"{path}?unique=true", content=speech("ann", 3))
    assert "already enrolled as ann" in problem(refused, 409, "duplicate_voice")["detail"]
    assert demo.get("/v1/speakers/again").json()["voiceprints"] == []
    warned = demo.post(path, content=speech("ann", 3)).json()
    assert [reason["code"] for reason in warned["reasons"]] == ["duplicate_voice"]


def test_two_servers_on_one_store_lose_no_enrolment(made, model):
    """This also holds if both begin the same voiceprint at the same time."""
    from concurrent.futures import ThreadPoolExecutor

    from sasv.service.engine import Engine
    from sasv.service.state import ServiceState
    from sasv.store import VoiceprintStore

    engine = made(demo=True).engine
    store = VoiceprintStore(engine.store.path, KEY)
    second = Engine(model, store, ServiceState(store.database), engine.settings, engine.metrics)
    engine.create_speaker("bank", "ann", "", None)

    def add(seed):
        one = (engine, second)[seed % 2]
        work = one.enrolment("bank", "ann", "", speech("ann", seed, 0.5), False, False)
        work.read()
        recording = work.compute(None)
        with one.store.database.transaction():
            return work.record(recording)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(add, range(12)))
    (stored,) = second.store.of("ann", "bank")
    assert len(stored.voiceprint.recordings) == 12
    store.close()


def test_a_request_is_carried_out_once_whichever_server_it_reaches(made, client_of, model):
    from sasv.service.app import make_service
    from sasv.service.state import ServiceState
    from sasv.store import VoiceprintStore

    first = made()
    store = VoiceprintStore(first.engine.store.path, KEY)
    second = make_service(model, store, ServiceState(store.database), first.settings)
    key = api_key(first)
    clients = [client_of(service, key) for service in (first, second)]
    enrol(clients[0], "ann", 1)
    path, again = "/v1/speakers/ann/enrolments", {"Idempotency-Key": "one"}
    answers = [clients[turn].post(path, content=speech("ann", 5), headers=again) for turn in (1, 0)]
    assert answers[0].json() == answers[1].json() and answers[0].status_code == 201
    assert answers[1].headers["idempotency-replayed"] == "true"
    changed = clients[0].post(path, content=speech("ann", 6), headers=again)
    problem(changed, 422, "idempotency_conflict")
    assert clients[1].get("/v1/speakers/ann").json()["voiceprints"][0]["recordings"] == 2
    second.close()


def test_a_new_key_of_the_store_stops_a_running_service(made, client_of):
    """Until it is started with the new one; nothing is decided meanwhile."""
    from sasv.store import VoiceprintStore

    service = made(demo=True)
    client = client_of(service)
    enrol(client, "ann", 1)
    assert client.get("/health/ready").status_code == 200
    other = VoiceprintStore(service.engine.store.path, KEY)
    other.rotate(bytes(32))
    other.close()
    for answer in (
        client.get("/health/ready"),
        client.post("/v1/verify?speaker=ann", content=speech("ann", 4)),
        client.post("/v1/speakers/ann/enrolments", content=speech("ann", 4)),
        client.post("/v1/identify", content=speech("ann", 4)),
    ):
        problem(answer, 503, "unavailable")


def test_identification_among_hundreds(made, client_of):
    from sasv.decision import Recording
    from sasv.runtime import Voiceprint

    service = made(demo=True)
    client = client_of(service)
    enrol(client, "ann", 1)
    store, fingerprint = service.engine.store, service.engine.embedder.fingerprint
    rng = np.random.default_rng(0)
    with store.database.transaction():
        for number in range(300):
            vector = np.abs(rng.standard_normal(24)).astype(np.float32)
            one = Recording("a.wav", vector, 5.0, 4.0)
            store.add(Voiceprint((one,), fingerprint, f"s{number}"), "demo")
    answer = client.post("/v1/identify?top=3", content=speech("ann", 4)).json()
    assert answer["outcome"] == "accept" and len(answer["candidates"]) == 3
    assert answer["candidates"][0]["speaker"] == "ann"


@pytest.mark.slow
def test_a_store_in_postgresql(model, client_of):
    psycopg = pytest.importorskip("psycopg", reason="psycopg is not installed")
    from sasv.service.app import make_service
    from sasv.service.settings import Settings
    from sasv.service.state import ServiceState
    from sasv.store import VoiceprintStore

    assert psycopg
    with postgres.running(postgres.binaries()) as server:
        store = VoiceprintStore(server.address, KEY)
        service = make_service(model, store, ServiceState(store.database), Settings(rate=0))
        client = client_of(service, api_key(service))
        enrol(client, "ann", 1)
        headers = {"Idempotency-Key": "k"}
        path = "/v1/verify?speaker=ann"
        first, again = [
            client.post(path, content=speech("ann", 4), headers=headers) for _ in range(2)
        ]
        assert first.json()["outcome"] == "accept" and first.json() == again.json()
        for number in range(3):
            service.state.claim("key", f"n{number}", "d", "t", "", 10)
            service.state.keep_answer("key", f"n{number}", 200, {}, 1)
        rows = store.database.execute("SELECT name FROM service_answers WHERE api_key = 'key'")
        assert rows == [("n2",)]
        assert client.delete("/v1/speakers/ann").json()["deleted"]
        service.close()


NO_NAMES = ("..", "a b", "a/b", "'; DROP TABLE voiceprints; --", "x" * 65, "é", "a\n", "%00")


def test_identifiers_are_checked(demo):
    for name in NO_NAMES:
        quoted = quote(name, safe="")
        assert demo.get(f"/v1/speakers/{quoted}").status_code in (404, 422), name
        assert demo.post(f"/v1/verify?speaker={quoted}", content=b"x").status_code == 422, name
        form = {"data": {"speaker": name}, "files": {"file": b"x"}}
        problem(demo.post("/v1/verify", **form), 422, "invalid_request")
        problem(demo.post("/v1/speakers", json={"id": name}), 422, "invalid_request")


def test_wrong_requests(demo):
    problem(demo.get("/nothing"), 404, "not_found")
    problem(demo.put("/v1/verify"), 405, "method_not_allowed")
    problem(demo.post("/v1/verify", json={}), 415, "unsupported_media_type")
    problem(demo.post("/v1/verify", files={"other": b"x"}), 422, "invalid_request")
    problem(demo.post("/v1/verify", data={"x": "1"}, files={"file": b"x"}), 422, "invalid_request")
    broken = {"Content-Type": "multipart/form-data; boundary=x"}
    problem(demo.post("/v1/verify", content=b"--y", headers=broken), 422, "invalid_request")
    problem(demo.post("/v1/speakers", content=b"{"), 422, "invalid_request")
    problem(demo.post("/v1/identify?top=0", content=noise()), 422, "invalid_request")
    problem(demo.get("/static/../app.py"), 404, "not_found")
    problem(demo.get("/static/..%2fapp.py"), 404, "not_found")


def test_sizes_and_lengths(made, client_of):
    client = client_of(made(demo=True, max_bytes=70_000, max_seconds=1.0))
    enrol_body = speech("ann", seconds=0.9)
    client.post("/v1/speakers", json={"id": "ann"})
    assert client.post("/v1/speakers/ann/enrolments", content=enrol_body).status_code == 201
    problem(client.post("/v1/verify?speaker=ann", content=speech("ann")), 413, "too_long")
    big = bytes(80_000)
    problem(client.post("/v1/verify?speaker=ann", content=big), 413, "too_large")
    chunks = (big[:40_000] for _ in range(2))  # without Content-Length
    problem(client.post("/v1/verify?speaker=ann", content=chunks), 413, "too_large")
    chunks = (big[:40_000] for _ in range(2))
    problem(client.post("/v1/speakers", content=chunks), 413, "too_large")


def long_silence(form, subtype, seconds=60):
    """Return a minute of silence in a format that makes little of them."""
    stream = io.BytesIO()
    with soundfile.SoundFile(stream, "w", 8000, 1, subtype, format=form) as file:
        for _ in range(seconds):  # libsndfile crashes where it encodes long waveforms at once
            file.write(np.zeros(8000, np.float32))
    return stream.getvalue()


def test_compressed_recording_longer_than_allowed_is_refused(made, client_of):
    """A minute of silence where a second may be sent, whatever its header says."""
    client = client_of(made(demo=True, max_seconds=1.0))
    client.post("/v1/speakers", json={"id": "ann"})
    client.post("/v1/speakers/ann/enrolments", content=speech("ann", seconds=0.9))
    flac = long_silence("FLAC", "PCM_16")
    unknown = bytearray(flac)
    unknown[21] &= 0xF0  # the lower 36 bits of STREAMINFO from here on: the number of samples
    unknown[22:26] = bytes(4)
    bodies = [flac, unknown, long_silence("OGG", "OPUS")]
    for body in bodies:
        assert len(body) < 25_000
        answer = client.post("/v1/verify?speaker=ann", content=bytes(body))
        assert answer.status_code in (413, 422), answer.text
        assert answer.json()["code"] in ("too_long", "unreadable_audio")
    # Nothing is unpacked that says it was packed.
    packed = gzip.compress(speech("ann", seconds=0.9))
    headers = {"Content-Encoding": "gzip"}
    answer = client.post("/v1/verify?speaker=ann", content=packed, headers=headers)
    problem(answer, 422, "unreadable_audio")


def test_keys_scopes_and_tenants(made, client_of):
    service = made()
    bank = client_of(service, api_key(service))
    shop = client_of(service, api_key(service, "shop"))
    reader = client_of(service, api_key(service, scopes=["read"]))
    enrol(bank, "ann")
    problem(client_of(service).get("/v1/speakers"), 401, "unauthenticated")
    for wrong in ("x", "sasv_0_1", api_key(service)[:-1] + "!", f"sasv_{'0' * 12}_{'A' * 43}"):
        problem(client_of(service, wrong).get("/v1/speakers"), 401, "unauthenticated")
    assert reader.get("/v1/speakers").json()["speakers"] == ["ann"]
    problem(reader.delete("/v1/speakers/ann"), 403, "forbidden")
    problem(bank.get("/metrics"), 403, "forbidden")
    assert shop.get("/v1/speakers").json()["speakers"] == []
    problem(shop.get("/v1/speakers/ann"), 404, "unknown_speaker")
    problem(shop.post("/v1/verify?speaker=ann", content=speech("ann")), 404, "unknown_speaker")
    problem(shop.delete("/v1/speakers/ann"), 404, "unknown_speaker")
    assert shop.post("/v1/identify", content=speech("ann")).json()["candidates"] == []
    assert shop.post("/v1/speakers", json={"id": "ann"}).status_code == 201
    service.state.revoke(service.state.api_keys()[0].id)
    problem(bank.get("/v1/speakers"), 401, "unauthenticated")


def test_idempotency(made, client_of):
    service = made()
    client = client_of(service, api_key(service))
    other = client_of(service, api_key(service))
    enrol(client, "ann", 1)
    path, again = "/v1/speakers/ann/enrolments", {"Idempotency-Key": "one"}
    first = client.post(path, content=speech("ann", 5), headers=again)
    second = client.post(path, content=speech("ann", 5), headers=again)
    assert first.json() == second.json() and second.status_code == 201
    assert second.headers["idempotency-replayed"] == "true"
    assert client.get("/v1/speakers/ann").json()["voiceprints"][0]["recordings"] == 2
    changed = client.post(path, content=speech("ann", 6), headers=again)
    problem(changed, 422, "idempotency_conflict")
    elsewhere = client.post("/v1/verify?speaker=ann", content=speech("ann", 5), headers=again)
    problem(elsewhere, 422, "idempotency_conflict")
    own = other.post(path, content=speech("ann", 5), headers=again)
    assert own.status_code == 201 and "idempotency-replayed" not in own.headers
    assert own.json()["voiceprint"]["recordings"] == 2  # it is the recording that is there
    failed = [client.post(path, content=b"x", headers={"Idempotency-Key": "2"}) for _ in range(2)]
    assert failed[0].json() == failed[1].json() and failed[1].status_code == 422
    problem(
        client.post(path, content=b"x", headers={"Idempotency-Key": ""}), 422, "invalid_request"
    )
    client.delete("/v1/speakers/ann")
    gone = client.post(path, content=speech("ann", 5), headers=again)
    problem(gone, 404, "unknown_speaker")  # the answer went together with the speaker


def test_a_decision_and_its_response_are_stored_together(made, client_of, monkeypatch):
    service = made()
    client = client_of(service, api_key(service))
    enrol(client, "ann", 1)
    ask = partial(client.post, "/v1/verify?speaker=ann", content=speech("ann", 4))

    def fail(*arguments):
        raise OSError("disk")

    with monkeypatch.context() as patch:
        patch.setattr(service.state, "keep_answer", fail)
        problem(ask(headers={"Idempotency-Key": "one"}), 500, "internal")
    assert client.get("/v1/speakers/ann").json()["voiceprints"][0]["last_used"] is None
    answers = [ask(headers={"Idempotency-Key": "one"}).json() for _ in range(2)]
    assert answers[0]["outcome"] == "accept" and answers[0] == answers[1]
    rows = service.state.database.execute("SELECT 1 FROM audit WHERE action = 'compare'")
    assert len(rows) == 1


def test_stored_responses_are_limited_in_number_and_time(made):
    service = made()
    state, now = service.state, [1000.0]
    state.clock = lambda: now[0]
    count = "SELECT COUNT(*) FROM service_answers WHERE api_key = ? AND status IS NOT NULL"

    def keep(key, name, most):
        assert state.claim(key, name, "d", "t", "", 500.0) is None
        state.keep_answer(key, name, 200, {}, most)
        now[0] += 0.01

    for number in range(410):
        keep("many", str(number), 400)
        keep("few", str(number), 2)
        assert state.database.execute(count, ("many",))[0][0] <= 400
    assert state.database.execute(count, ("many",))[0][0] >= 396
    names = state.database.execute("SELECT name FROM service_answers WHERE api_key = 'few'")
    assert sorted(names) == [("408",), ("409",)]
    assert state.claim("few", "409", "d", "t", "", 500.0).status == 200
    now[0] += 500.0  # none is returned for longer, and none is kept for much longer
    keep("few", "409", 2)
    now[0] += 100.0
    keep("few", "new", 2)
    assert state.database.execute(count, ("many",)) == [(0,)]
    assert state.claim("few", "open", "d", "t", "", 500.0) is None
    assert state.claim("few", "open", "d", "t", "", 500.0).status is None
    now[0] += 121.0
    assert state.claim("few", "open", "d", "t", "", 500.0) is None


def test_steps_of_a_request(made):
    import asyncio

    from sasv.service.workers import Final, Step

    workers = made(workers=1, queue=0).workers
    seen = []

    def add(value):
        seen.append((value, threading.current_thread().name.rpartition("_")[0]))
        return (value or 0) + 1

    async def follow():
        steps = [Step(add), Step(add, computes=True), Step(add)]
        assert await workers.follow(steps) == 3 and workers.pending == 0
        assert [name for _, name in seen] == ["sasv-store", "sasv-compute", "sasv-store"]
        assert await workers.follow([Step(lambda _: Final("known")), *steps]) == "known"
        with pytest.raises(ZeroDivisionError):
            await workers.follow([Step(lambda _: 1 / 0, computes=True), *steps])
        assert len(seen) == 3 and workers.pending == 0
        entered, released = threading.Event(), threading.Event()

        def slow(_):
            entered.set()
            assert released.wait(10)

        task = asyncio.create_task(workers.follow([Step(slow, computes=True), *steps]))
        await asyncio.to_thread(entered.wait, 10)
        with pytest.raises(Exception, match="already waiting"):
            await workers.follow(steps)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert workers.pending == 1  # the thread continues
        released.set()
        while workers.pending:
            await asyncio.sleep(0.01)
        assert len(seen) == 3

    asyncio.run(asyncio.wait_for(follow(), 30))


def test_copy_route_returns_audio_of_the_same_length(demo):
    answer = demo.post("/v1/copy", content=speech("ann", seconds=0.5))
    assert answer.status_code == 200 and answer.headers["content-type"] == "audio/wav"
    copied, rate = soundfile.read(io.BytesIO(answer.content))
    assert rate == 16000 and len(copied) == 8000 and np.abs(copied).max() > 0.01
    problem(demo.post("/v1/copy", content=b"no audio"), 422, "unreadable_audio")


def test_number_of_candidates_can_be_a_form_field(demo):
    enrol(demo, "ann", 1)
    enrol(demo, "bob", 1)
    send = partial(demo.post, "/v1/identify", files={"file": speech("bob", 9)})
    assert len(send(data={"top": "1"}).json()["candidates"]) == 1
    for wrong in ("0", "x", "1" * 20):
        problem(send(data={"top": wrong}), 422, "invalid_request")


def test_recordings_are_read_without_memfd(demo, monkeypatch):
    """As on macOS and Windows."""
    monkeypatch.delattr("os.memfd_create", raising=False)
    enrol(demo, "ann", 1)
    answer = demo.post("/v1/verify?speaker=ann", content=speech("ann", 7))
    assert answer.json()["outcome"] == "accept"


def test_a_repeated_request_waits_for_the_first(made, client_of, monkeypatch):
    service = made(demo=True)
    client = client_of(service)
    enrol(client, "ann", 1)
    entered, released = threading.Event(), threading.Event()
    best = service.engine.best

    def slow(*arguments):
        entered.set()
        released.wait(10)
        return best(*arguments)

    monkeypatch.setattr(service.engine, "best", slow)
    answers = []

    def ask():
        with client_of(service) as own:
            answers.append(send(own))

    def send(one):
        headers = {"Idempotency-Key": "k"}
        return one.post("/v1/verify?speaker=ann", content=speech("ann", 2), headers=headers)

    monkeypatch.setattr(service, "close", lambda: None)
    thread = threading.Thread(target=ask)
    thread.start()
    assert entered.wait(10)
    problem(send(client), 409, "in_progress")
    released.set()
    thread.join()
    assert answers[0].json() == send(client).json()
    monkeypatch.undo()


def test_limits_of_rate_and_queue(made, client_of):
    service = made(rate=0.001, burst=3)  # so that none comes back while a slow machine asks
    client = client_of(service, api_key(service))
    codes = [client.get("/v1/speakers").status_code for _ in range(5)]
    assert codes == [200] * 3 + [429] * 2
    assert problem(client.get("/v1/speakers"), 429, "rate_limited")
    busy = made(demo=True, queue=0, workers=1)
    busy.workers.pending = 1
    answer = client_of(busy).post("/v1/detect", content=noise())
    problem(answer, 503, "busy")
    assert answer.headers["retry-after"]


def test_an_error_is_never_a_decision(made, client_of, monkeypatch):
    service = made(demo=True)
    client = client_of(service)
    enrol(client, "ann", 1)
    for place, failing in (
        ("sasv.service.engine.measured", MemoryError("boom")),
        ("sasv.service.engine.decoded", RuntimeError("/secret/path.py")),
        ("sasv.store.store.VoiceprintStore.used", OSError("disk")),
        ("sasv.decision.verifier.Verifier.decide", ZeroDivisionError()),
    ):

        def fail(*arguments, failing=failing, **named):
            raise failing

        with monkeypatch.context() as patch:
            patch.setattr(place, fail)
            answer = client.post("/v1/verify?speaker=ann", content=speech("ann", 4))
            problem(answer, 500, "internal")
            assert "accept" not in answer.text and "secret" not in answer.text
    assert client.post("/v1/verify?speaker=ann", content=speech("ann", 4)).json()["outcome"]


def test_voiceprint_deleted_during_verification_accepts_nobody(made, client_of, monkeypatch):
    service = made(demo=True)
    client = client_of(service)
    enrol(client, "ann", 1)
    best = service.engine.best

    def deleting(*arguments):
        found = best(*arguments)
        service.engine.delete_speaker("demo", "ann", False)
        return found

    monkeypatch.setattr(service.engine, "best", deleting)
    problem(client.post("/v1/verify?speaker=ann", content=speech("ann")), 409, "conflict")


def test_other_sites_and_headers(demo):
    evil = {"Origin": "http://evil.example"}
    problem(demo.post("/v1/speakers", json={}, headers=evil), 403, "foreign_origin")
    assert demo.get("/v1/speakers", headers=evil).status_code == 200
    own = {"Origin": "http://127.0.0.1"}
    assert demo.post("/v1/speakers", json={}, headers=own).status_code == 201
    problem(demo.get("/v1/speakers", headers={"Host": "evil.example"}), 403, "foreign_origin")
    answer = demo.get("/", headers={"X-Request-ID": "abc-1"})
    assert answer.headers["x-request-id"] == "abc-1"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert demo.get("/", headers={"X-Request-ID": "<script>"}).headers["x-request-id"] != "<script>"


def test_health_metrics_and_description(made, client_of):
    service = made(demo=True)
    client = client_of(service)
    assert client.get("/health/live").json() == {"status": "alive"}
    assert client.get("/health/ready").json() == {"status": "ready"}
    enrol(client, "ann", 1)
    client.post("/v1/verify?speaker=ann", content=speech("ann"))
    text = client.get("/metrics").text
    assert 'sasv_outcomes_total{operation="verify",outcome="accept"} 1.0' in text
    assert 'sasv_score_count{operation="verify"} 1.0' in text
    assert "sasv_recording_level_dbfs_count" in text and "ann" not in text
    service.stopping = True
    problem(client.get("/health/ready"), 503, "stopping")
    about = client.get("/v1/about").json()
    assert about["sample_rate"] == 16000 and "copy" in about["scopes"]
    described = client.get("/openapi.json").json()
    paths = described["paths"]
    assert {"/v1/verify", "/v1/identify", "/v1/detect", "/v1/speakers"} <= set(paths)
    assert "audio/*" in paths["/v1/verify"]["post"]["requestBody"]["content"]
    assert described["components"]["schemas"]["Verification"]["examples"]


def test_buzzing_voices_differ():
    """The other tests depend on this."""
    assert len({buzz(10, pitch)[5] for pitch in PITCHES.values()}) == 3

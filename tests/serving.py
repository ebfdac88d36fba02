"""A service with a toy model, for tests within one process."""

import io

import numpy as np
import pytest
import soundfile

from conftest import buzz
from toy import RATE, toy_model

KEY = bytes(range(32))
PITCHES = {"ann": 110, "bob": 170, "eve": 260}


def wav(wave, rate=RATE):
    """Return the bytes of a WAV file."""
    stream = io.BytesIO()
    soundfile.write(stream, wave, rate, format="WAV", subtype="PCM_16")
    return stream.getvalue()


def speech(name, seed=0, seconds=2.0):
    """Return a recording of a "speaker", as the bytes of a WAV file."""
    return wav(buzz(int(seconds * RATE), PITCHES[name], seed))


@pytest.fixture(scope="session")
def model_path(tmp_path_factory):
    """A toy model with a calibrated spoof score that is high for every recording."""
    pytest.importorskip("onnx", reason="onnx is not installed")
    return toy_model(tmp_path_factory.mktemp("service") / "toy.onnx")


@pytest.fixture(scope="session")
def model(model_path):
    """The loaded model."""
    from sasv.runtime.model import OnnxModel

    return OnnxModel(model_path, 1)


@pytest.fixture
def made(model, tmp_path):
    """A function (settings...) -> service with an empty store."""
    pytest.importorskip("fastapi", reason="fastapi is not installed")
    from sasv.service.app import make_service
    from sasv.service.settings import Settings
    from sasv.service.state import ServiceState
    from sasv.store import VoiceprintStore

    services = []

    def make(**settings):
        store = VoiceprintStore(tmp_path / f"store{len(services)}.db", KEY)
        values = {"workers": 1, "rate": 0} | settings
        service = make_service(model, store, ServiceState(store.database), Settings(**values))
        services.append(service)
        return service

    yield make
    for service in services:
        service.close()


@pytest.fixture
def client_of():
    """A function (service, key) -> client of its application."""
    from starlette.testclient import TestClient

    from sasv.service.app import create_app

    def client(service, key=""):
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return TestClient(
            create_app(service),
            base_url="http://127.0.0.1",
            headers=headers,
            raise_server_exceptions=False,
        )

    return client


@pytest.fixture
def demo(made, client_of):
    """A client of a service that needs no key."""
    return client_of(made(demo=True))


def api_key(service, tenant="bank", scopes=None):
    """Make an API key; return it."""
    from sasv.service.keys import DEFAULT_SCOPES, new_api_key

    kept, secret = new_api_key("test", tenant, tuple(scopes or DEFAULT_SCOPES), 0.0)
    service.state.add_key(kept)
    return secret


def enrol(client, name, count=2):
    """Create and enrol a speaker."""
    assert client.post("/v1/speakers", json={"id": name}).status_code == 201
    for seed in range(count):
        answer = client.post(f"/v1/speakers/{name}/enrolments", content=speech(name, seed))
        assert answer.status_code == 201, answer.text
    return answer.json()


def noise(seconds=1.0, seed=0):
    """Return noise, as the bytes of a WAV file."""
    rng = np.random.default_rng(seed)
    return wav(0.1 * rng.standard_normal(int(seconds * RATE)))

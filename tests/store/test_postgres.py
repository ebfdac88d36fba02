"""Properties of a store in PostgreSQL: addresses, lost connections, and pgvector."""

import numpy as np
import pytest

import postgres
from sasv.core.errors import SasvError, StorageError
from sasv.decision import Recording
from sasv.runtime import Voiceprint
from sasv.store import VoiceprintStore

pytest.importorskip("cryptography", reason="cryptography is not installed")
psycopg = pytest.importorskip("psycopg", reason="psycopg is not installed")

KEY = bytes(range(32))


def voiceprint(speaker, seed, dimension=16, model="m"):
    vector = np.random.default_rng(seed).standard_normal(dimension).astype(np.float32)
    return Voiceprint((Recording("a.wav", vector, 5.0, 4.0),), model, speaker)


def test_unreachable_addresses_are_reported(tmp_path):
    with pytest.raises(SasvError, match="address of the store is malformed") as caught:
        VoiceprintStore("postgresql://me:secret@[host/x", KEY)
    assert "secret" not in str(caught.value)
    with pytest.raises(StorageError, match="cannot be reached"):
        VoiceprintStore(f"postgresql://me:secret@/x?host={tmp_path}", KEY)
    with pytest.raises(SasvError, match="only a store in PostgreSQL can"):
        VoiceprintStore(tmp_path / "store.db", KEY, searchable=True)


@pytest.mark.long
def test_pgvector_search_equals_search_in_memory():
    """After a restart, the server is used again."""
    with postgres.running(postgres.binaries(vector=True)) as server:
        with pytest.raises(SasvError, match="there is no store"):
            VoiceprintStore(server.address, KEY, create=False)
        store = VoiceprintStore(server.address, KEY, searchable=True)
        ids = [store.add(voiceprint(f"s{seed}", seed)).id for seed in range(50)]
        store.add(voiceprint("wide", 1, dimension=32, model="other"))
        store.extend(ids[7], voiceprint("s7", 60))
        store.delete("s9")
        store._vectors, vectors = None, store._vectors
        for seed in (3, 7, 9, 60):
            vector = voiceprint("", seed).recordings[0].vector
            expected = store.search(vector, "m", top=8)
            store._vectors = vectors
            found = store.search(vector, "m", top=8)
            store._vectors = None
            assert [one for one, _ in found] == [one for one, _ in expected]
            np.testing.assert_allclose([x for _, x in found], [x for _, x in expected], atol=1e-6)
        store._vectors = vectors
        server.stop()
        with pytest.raises(StorageError):
            store.search(vector, "m")
        server.start()
        assert len(store.search(vector, "m")) == 5
        assert store.verify() == 53
        again = VoiceprintStore(server.address, KEY)
        assert again.searchable
        with psycopg.connect(server.address) as outside:
            outside.execute("UPDATE sasv.directions SET direction = direction + direction")
        with pytest.raises(SasvError, match="direction of voiceprint .* was changed"):
            again.verify()
        again.close()
        store.close()

"""sasv keys."""

import time
from dataclasses import dataclass, field
from typing import Any, Literal

from sasv.core.errors import SasvError
from sasv.core.options import Options
from sasv.service.keys import DEFAULT_SCOPES, new_api_key
from sasv.service.state import ServiceState
from sasv.store import VoiceprintStore
from sasv.store.keys import read_key


@dataclass
class KeysOptions(Options):
    """Manage the API keys of the service (sasv serve).

    create makes a key and prints it once; only a digest of it is stored. list shows the keys.
    revoke makes a key invalid immediately.

    Args:
        action: action to perform.
        path: the store of voiceprints, which keeps the keys: a file, or
            postgresql://user@host/database.
        name: holder of the new key, for create.
        tenant: customer whose speakers the new key can reach.
        scopes: what the new key allows: read, enrol, delete, verify, identify, detect, copy
            (copies by a vocoder, for the demonstration), and metrics; by default all but the last
            two.
        id: identifier of the key, for revoke; it is also part of the key, after the first
            underscore.
        key: file with the key of the store; by default the key in the environment variable
            SASV_STORE_KEY.
    """

    action: Literal["create", "list", "revoke"]
    path: str
    name: str = ""
    tenant: str = "default"
    scopes: list[str] = field(default_factory=lambda: list(DEFAULT_SCOPES))
    id: str = ""
    key: str = ""


def keys(options: KeysOptions) -> dict[str, Any]:
    """Carry out the action; return plain values that describe the result."""
    if options.action == "create" and not options.name:
        raise SasvError("sasv keys create needs --name, the holder of the key")
    if options.action == "revoke" and not options.id:
        raise SasvError("sasv keys revoke needs --id; sasv keys list shows the identifiers")
    # Only those who have the key of the store may create API keys.
    store = VoiceprintStore(options.path, read_key(options.key), create=False)
    try:
        return _done(ServiceState(store.database), options)
    finally:
        store.close()


def _done(state: ServiceState, options: KeysOptions) -> dict[str, Any]:
    if options.action == "create":
        kept, secret = new_api_key(
            options.name, options.tenant, tuple(options.scopes), state.clock()
        )
        state.add_key(kept)
        return {"api_key": secret, "id": kept.id, "tenant": kept.tenant}
    if options.action == "revoke":
        found = state.revoke(options.id)
        return {"id": found.id, "name": found.name, "revoked": _date(found.revoked)}
    return {
        found.id: ", ".join(
            [
                found.name,
                f"tenant {found.tenant}",
                "/".join(found.scopes),
                f"created {_date(found.created)}",
                *([f"revoked {_date(found.revoked)}"] if found.revoked is not None else []),
            ]
        )
        for found in state.api_keys()
    }


def _date(at: float | None) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(at))

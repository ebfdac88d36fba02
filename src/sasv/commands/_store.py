"""sasv store."""

import logging
from dataclasses import asdict, dataclass
from typing import Any, Literal

from sasv.core.errors import SasvError
from sasv.core.options import Options
from sasv.store import VoiceprintStore
from sasv.store.keys import new_key, read_key, write_key

logger = logging.getLogger("sasv")

Action = Literal[
    "new-key", "create", "verify", "list", "export", "delete", "opt-out", "sweep", "rotate"
]


@dataclass
class StoreOptions(Options):
    """Manage a store of voiceprints.

    new-key writes a key file. create makes an empty store. verify checks the audit trail and
    decrypts all voiceprints. list names the speakers. export prints everything that is stored about
    a speaker. delete removes all of it and prints a receipt. opt-out does the same, and from then
    on voiceprints of the speaker are refused. sweep deletes expired voiceprints and speakers.
    rotate encrypts everything with a new key.

    Args:
        action: action to perform.
        path: the store: a file, or postgresql://user@host/database; for new-key, the key file to
            write.
        speaker: speaker, for export, delete, and opt-out.
        tenant: customer to whom the speaker belongs.
        key: file with the key of the store; by default the key in the environment variable
            SASV_STORE_KEY.
        new_key: file with the new key, for rotate.
        searchable: for create, in PostgreSQL: keep the directions of voiceprints unencrypted in the
            database, so that pgvector searches them there. Whoever can read the database can then
            compare voices with them.
    """

    action: Action
    path: str
    speaker: str = ""
    tenant: str = "default"
    key: str = ""
    new_key: str = ""
    searchable: bool = False


def store(options: StoreOptions) -> dict[str, Any]:
    """Carry out the action; return plain values that describe the result."""
    if options.action == "new-key":
        write_key(options.path, new_key())
        return {"key": options.path}
    if options.action in ("export", "delete", "opt-out") and not options.speaker:
        raise SasvError(f"sasv store {options.action} needs --speaker")
    if options.action == "rotate" and not options.new_key:
        raise SasvError("sasv store rotate needs --new-key, the file with the new key")
    if options.searchable and options.action != "create":
        raise SasvError(
            "--searchable can only be used with sasv store create; an existing store cannot be "
            "changed"
        )
    creating = options.action == "create"
    opened = VoiceprintStore(
        options.path, read_key(options.key), creating, searchable=options.searchable
    )
    try:
        return _done(opened, options)
    finally:
        opened.close()


def _done(opened: VoiceprintStore, options: StoreOptions) -> dict[str, Any]:
    speaker, tenant = options.speaker, options.tenant
    if options.action == "create":
        return {"store": opened.path, "searchable": opened.searchable}
    if options.action == "verify":
        return {"entries": opened.verify(), "intact": True}
    if options.action == "list":
        return {"speakers": opened.speakers(tenant)}
    if options.action == "export":
        return opened.export(speaker, tenant)
    if options.action == "delete":
        receipt = opened.delete(speaker, tenant)
        if not receipt.deleted:
            logger.warning(f"warning: {speaker}: no voiceprint was stored under this name")
        return asdict(receipt)
    if options.action == "opt-out":
        return asdict(opened.opt_out(speaker, tenant))
    if options.action == "sweep":
        return {"deleted": opened.sweep()}
    key = read_key(options.new_key)
    if key == read_key(options.key):
        raise SasvError(
            f"{options.new_key}: the store is already encrypted with this key; make a new one with "
            "sasv store new-key"
        )
    return {"encrypted": opened.rotate(key)}

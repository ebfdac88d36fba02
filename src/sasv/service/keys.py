"""API keys: ``sasv_ID_SECRET``. The secret is random, so that it cannot be derived from its SHA-256
digest. Only the digest is stored.
"""

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass

from sasv.core.errors import SasvError, listed

SCOPES = ("read", "enrol", "delete", "verify", "identify", "detect", "copy", "metrics")
"""The scopes of keys. ``copy`` allows copies of voices by a vocoder, for the demonstration."""

DEFAULT_SCOPES = ("read", "enrol", "delete", "verify", "identify", "detect")

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@-]{0,63}")
"""The form of identifiers of speakers and tenants, of labels, and of names of keys."""

_KEY = re.compile(r"sasv_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
SECRET_BYTES = 32
ID_BYTES = 6


@dataclass(frozen=True)
class Principal:
    """The holder of the API key with which a request is made.

    Attributes:
        key: identifier of the API key.
        tenant: customer whose speakers it can reach.
        scopes: what it allows.
    """

    key: str
    tenant: str
    scopes: frozenset[str]


DEMO = Principal("demo", "demo", frozenset(SCOPES))
"""Everybody who uses a service that was started with ``--insecure-demo``."""


@dataclass(frozen=True)
class ApiKey:
    """The stored record of an API key.

    Attributes:
        id: identifier, which is part of the key.
        digest: SHA-256 of the secret, hexadecimal.
        name: name of the holder.
        tenant: customer whose speakers it can reach.
        scopes: what it allows.
        created: seconds since 1970.
        revoked: time of the revocation; None if the key is valid.
    """

    id: str
    digest: str
    name: str
    tenant: str
    scopes: tuple[str, ...]
    created: float
    revoked: float | None = None

    def matches(self, secret: str) -> bool:
        """Whether the key is valid and the secret is correct."""
        return self.revoked is None and hmac.compare_digest(self.digest, digest_of(secret))

    @property
    def principal(self) -> Principal:
        """The principal of requests with this key."""
        return Principal(self.id, self.tenant, frozenset(self.scopes))


def new_api_key(
    name: str, tenant: str, scopes: tuple[str, ...], created: float
) -> tuple[ApiKey, str]:
    """Return the record of a new key, and the key itself, which is shown only once.

    Raises:
        SasvError: a name is not valid, or a scope is unknown.
    """
    for what, value in (("name", name), ("tenant", tenant)):
        if not NAME.fullmatch(value):
            raise SasvError(
                f"{what} '{value}': use 1 to 64 letters, digits, and .:_@-, beginning with a "
                "letter or a digit"
            )
    unknown = sorted(set(scopes) - set(SCOPES))
    if unknown or not scopes:
        raise SasvError(f"unknown scopes: {listed(unknown)}; known: {', '.join(SCOPES)}")
    identifier = secrets.token_hex(ID_BYTES)
    secret = secrets.token_urlsafe(SECRET_BYTES)
    key = ApiKey(identifier, digest_of(secret), name, tenant, scopes, created)
    return key, f"sasv_{identifier}_{secret}"


def parts_of(text: str) -> tuple[str, str] | None:
    """Return the identifier and the secret of a key, or None if the text is not a key."""
    found = _KEY.fullmatch(text)
    return (found[1], found[2]) if found else None


def digest_of(secret: str) -> str:
    """Return the digest of a secret in hexadecimal."""
    return hashlib.sha256(secret.encode()).hexdigest()

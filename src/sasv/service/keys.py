"""API keys: ``sasv_ID_SECRET``. The secret is random, so that its SHA-256 digest, which alone is
kept, says nothing about it.
"""

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass

from sasv.core.errors import SasvError, listed

SCOPES = ("read", "enrol", "delete", "verify", "identify", "detect", "copy", "metrics")
"""What a key may allow. ``copy`` makes copies of voices by a vocoder, for the demonstration."""

DEFAULT_SCOPES = ("read", "enrol", "delete", "verify", "identify", "detect")

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@-]{0,63}")
"""Identifiers of speakers, tenants, labels, and names of keys."""

_KEY = re.compile(r"sasv_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
SECRET_BYTES = 32
ID_BYTES = 6


@dataclass(frozen=True)
class Principal:
    """Who makes a request.

    Attributes:
        key: identifier of the API key.
        tenant: whose people it may see.
        scopes: what it may do.
    """

    key: str
    tenant: str
    scopes: frozenset[str]


DEMO = Principal("demo", "demo", frozenset(SCOPES))
"""Whoever asks a service that was started with ``--insecure-demo``."""


@dataclass(frozen=True)
class ApiKey:
    """What is kept of an API key.

    Attributes:
        id: identifier, which is part of the key.
        digest: SHA-256 of the secret, hexadecimal.
        name: of its holder, for people.
        tenant: whose people it may see.
        scopes: what it allows.
        created: seconds since 1970.
        revoked: when it was revoked; None if it is valid.
    """

    id: str
    digest: str
    name: str
    tenant: str
    scopes: tuple[str, ...]
    created: float
    revoked: float | None = None

    def matches(self, secret: str) -> bool:
        """Whether it is valid and the secret is right."""
        return self.revoked is None and hmac.compare_digest(self.digest, digest_of(secret))

    @property
    def principal(self) -> Principal:
        """Who makes a request with it."""
        return Principal(self.id, self.tenant, frozenset(self.scopes))


def new_api_key(
    name: str, tenant: str, scopes: tuple[str, ...], created: float
) -> tuple[ApiKey, str]:
    """Return what is kept of a new key, and the key itself, which is shown once.

    Raises:
        SasvError: a name is not valid, or a scope is not known.
    """
    for what, value in (("name", name), ("tenant", tenant)):
        if not NAME.fullmatch(value):
            raise SasvError(
                f"{what} '{value}': give 1 to 64 letters, digits, and .:_@-, the first a letter or "
                "a digit"
            )
    unknown = sorted(set(scopes) - set(SCOPES))
    if unknown or not scopes:
        raise SasvError(f"unknown scopes: {listed(unknown)}; known: {', '.join(SCOPES)}")
    identifier = secrets.token_hex(ID_BYTES)
    secret = secrets.token_urlsafe(SECRET_BYTES)
    key = ApiKey(identifier, digest_of(secret), name, tenant, scopes, created)
    return key, f"sasv_{identifier}_{secret}"


def parts_of(text: str) -> tuple[str, str] | None:
    """Return identifier and secret of a key; None if it is none."""
    found = _KEY.fullmatch(text)
    return (found[1], found[2]) if found else None


def digest_of(secret: str) -> str:
    """Return the digest of a secret, hexadecimal."""
    return hashlib.sha256(secret.encode()).hexdigest()

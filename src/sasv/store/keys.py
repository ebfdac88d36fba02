"""Keys and encryption: AES-GCM with 256 bits, from the package ``cryptography``."""

import base64
import hashlib
import hmac
import os
from pathlib import Path
from typing import Any

from sasv.core.errors import MissingExtra, SasvError
from sasv.core.files import atomic_path, clear_temporaries, read_bytes

VARIABLE = "SASV_STORE_KEY"
"""Environment variable that contains the key if no file is given."""

KEY_BYTES = 32
NONCE_BYTES = 12


def new_key() -> bytes:
    """Return a random key of 256 bits."""
    return os.urandom(KEY_BYTES)


def key_text(key: bytes) -> str:
    """Return a key as the text of a key file or of the environment variable."""
    return base64.b64encode(key).decode("ascii")


def write_key(path: str | os.PathLike[str], key: bytes) -> None:
    """Write a key file that only its owner can read, completely or not at all. Raises SasvError if
    the file exists.
    """
    target = Path(path)
    exists = SasvError(
        f"{os.fspath(path)}: the file exists, and a key is never overwritten; choose another name"
    )
    clear_temporaries(target.parent)  # a killed process may have left a copy of the key
    if os.path.lexists(target):
        raise exists
    with atomic_path(target) as temporary:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(key_text(key) + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, target)  # fails if another process has just made one
        except FileExistsError as error:
            raise exists from error
        except OSError:  # a file system without hard links
            if os.path.lexists(target):
                raise exists from None


def read_key(path: str | os.PathLike[str] = "") -> bytes:
    """Return the key in a file, or in the environment variable if no file is given.

    Raises:
        SasvError: there is no key, or it is not a key of 256 bits.
    """
    if path:
        name = os.fspath(path)
        text = read_bytes(Path(path), most=1000).decode("ascii", "replace")
    else:
        name = VARIABLE
        text = os.environ.get(VARIABLE, "")
        if not text:
            raise SasvError(
                f"a store needs its key; give --key FILE, or set {VARIABLE}; sasv store new-key "
                "FILE makes a key"
            )
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise SasvError(f"{name}: this is not a key, which consists of 32 bytes in base64")
    return key


def _cipher(key: bytes) -> Any:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError as error:
        raise MissingExtra("cryptography", "store", "a store of voiceprints") from error
    return AESGCM(key)


def encrypted(key: bytes, data: bytes, context: str) -> bytes:
    """Encrypt bytes. They can only be decrypted with the same key and context."""
    nonce = os.urandom(NONCE_BYTES)
    sealed: bytes = _cipher(key).encrypt(nonce, data, context.encode())
    return nonce + sealed


def decrypted(key: bytes, data: bytes, context: str, what: str) -> bytes:
    """Decrypt bytes. Raises SasvError if the key, the context, or the bytes differ."""
    cipher = _cipher(key)
    from cryptography.exceptions import InvalidTag

    try:
        found: bytes = cipher.decrypt(data[:NONCE_BYTES], data[NONCE_BYTES:], context.encode())
    except (InvalidTag, ValueError) as error:
        raise SasvError(
            f"{what}: cannot be decrypted; the key is wrong, or the data were changed"
        ) from error
    return found


def keyed_digest(key: bytes, text: str) -> str:
    """Return a digest that can only be computed with the key (HMAC-SHA-256), in hexadecimal."""
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()

"""The kinds of path that a table may contain. This module only handles text and opens nothing.

* ``id10270/x/00001.wav``: a file, relative to the folder of the table
* ``shard-000012.tar#id10270/x/00001.wav``: a member of a tar with an index
* ``s3://bucket/key.flac``, ``gs://``, ``https://``: an object in remote storage
* ``s3://bucket/shard-000012.tar#id10270/x/00001.wav``: a member of such a tar
"""

import os
import re

MEMBER = ".tar#"
"""Separates the path of a tar from its member; everything after it is the name of the member."""

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def scheme_of(name: str) -> str:
    """Return the scheme of an address in lower case, "" for a path."""
    found = _SCHEME.match(name)
    return found[1].lower() if found else ""


def split_member(name: str) -> tuple[str, str | None]:
    """Return (the tar, its member). The member is None if the name does not refer to a member."""
    start, separator, member = name.partition(MEMBER)
    if not separator:
        return name, None
    return start + MEMBER[:-1], member


def container_of(name: str) -> str:
    """Return the tar of a member; return any other name unchanged."""
    return split_member(name)[0]


def joined(folder: str, name: str) -> str:
    """Resolve a path relative to a folder; addresses and absolute paths are returned unchanged."""
    return name if scheme_of(name) else os.path.join(folder, name)


def absolute(name: str) -> str:
    """Return an absolute path; addresses and the names of members are kept unchanged."""
    return name if scheme_of(name) else _with_container(name, os.path.abspath(container_of(name)))


def relative(name: str, folder: str) -> str:
    """Return a path relative to a folder; addresses and the names of members are kept unchanged."""
    if scheme_of(name):
        return name
    return _with_container(name, os.path.relpath(container_of(name), folder))


def as_folders(name: str) -> str:
    """Return a path in the form of a file path, for a folder tree that mirrors a tree of
    recordings: a tar becomes a folder, and so do the scheme and the host of an address.
    """
    scheme = scheme_of(name)
    if scheme:
        name = f"{os.sep}{scheme}{os.sep}{name[len(scheme) + 3 :]}"
    container, member = split_member(name)
    return container if member is None else os.path.join(container, member.lstrip("/"))


def _with_container(name: str, container: str) -> str:
    member = split_member(name)[1]
    return container if member is None else f"{container}#{member}"

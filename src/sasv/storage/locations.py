"""What a path of a table may be, as text: nothing is opened here.

* ``id10270/x/00001.wav``: a file, from the folder of the table on
* ``shard-000012.tar#id10270/x/00001.wav``: a member of a tar with an index
* ``s3://bucket/key.flac``, ``gs://``, ``https://``: an object behind an address
* ``s3://bucket/shard-000012.tar#id10270/x/00001.wav``: a member of such a tar
"""

import os
import re

MEMBER = ".tar#"
"""What stands between a tar and its member; everything behind it is the name of the member."""

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def scheme_of(name: str) -> str:
    """Return the scheme of an address in lower case, "" for a path."""
    found = _SCHEME.match(name)
    return found[1].lower() if found else ""


def split_member(name: str) -> tuple[str, str | None]:
    """Return (the tar, its member); the member is None where a name is not that of a member."""
    start, separator, member = name.partition(MEMBER)
    if not separator:
        return name, None
    return start + MEMBER[:-1], member


def container_of(name: str) -> str:
    """Return the tar of a member, and any other name as it is."""
    return split_member(name)[0]


def joined(folder: str, name: str) -> str:
    """Return a path seen from a folder; an address and an absolute path stay."""
    return name if scheme_of(name) else os.path.join(folder, name)


def absolute(name: str) -> str:
    """Return an absolute path; an address stays, and so does the name of a member."""
    return name if scheme_of(name) else _with_container(name, os.path.abspath(container_of(name)))


def relative(name: str, folder: str) -> str:
    """Return a path as seen from a folder; an address stays, and so does the name of a member."""
    if scheme_of(name):
        return name
    return _with_container(name, os.path.relpath(container_of(name), folder))


def as_folders(name: str) -> str:
    """Return a path that looks like that of a file, for a tree that mirrors one of recordings: a
    tar is a folder, and so are the scheme and the host of an address.
    """
    scheme = scheme_of(name)
    if scheme:
        name = f"{os.sep}{scheme}{os.sep}{name[len(scheme) + 3 :]}"
    container, member = split_member(name)
    return container if member is None else os.path.join(container, member.lstrip("/"))


def _with_container(name: str, container: str) -> str:
    member = split_member(name)[1]
    return container if member is None else f"{container}#{member}"

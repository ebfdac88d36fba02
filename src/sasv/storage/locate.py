"""Finds the bytes to which a path in a table refers."""

from sasv.storage.local import local_file
from sasv.storage.locations import scheme_of, split_member
from sasv.storage.remote import remote_object
from sasv.storage.resource import Resource
from sasv.storage.tars import index_of, tar_member


def locate(name: str) -> Resource:
    """Return the bytes to which a path in a table refers: a file, a member of a tar, or an object.

    Raises:
        AudioError: the recording does not exist or cannot be read.
        StorageError: it cannot be fetched at the moment.
        SasvError: the kind of address is unknown, or a package is missing.
    """
    container, member = split_member(name)
    if member is None:
        return _whole(name)
    tar = _whole(container)
    return tar_member(name, tar, index_of(tar, _whole), member)


def _whole(name: str) -> Resource:
    return remote_object(name) if scheme_of(name) else local_file(name)

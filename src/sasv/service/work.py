"""What a request does, in steps that run in different threads."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Work:
    """The steps of a request. Each is given the result of the step before.

    The threads that compute do not write, so that none waits for the disk, and the changes that a
    request makes become one transaction together with its stored response.

    Attributes:
        read: reads the store; None if nothing has to be read.
        compute: decodes and embeds; None if there is nothing to compute.
        record: writes the store, inside a transaction, and returns the body of the response as
            plain values; None if that is what ``compute`` returns.
        count: is given the body once it is recorded, for the metrics; None if it is not counted.
    """

    read: Callable[[], Any] | None = None
    compute: Callable[[Any], Any] | None = None
    record: Callable[[Any], dict[str, Any]] | None = None
    count: Callable[[Mapping[str, Any]], None] | None = None

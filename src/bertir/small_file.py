"""Small files that a person or bertir wrote (tables, locks, patches, keys): read whole, and never more than they have."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# The largest of ours, requirements/dev.lock, has 0.2 MB.
MOST_BYTES = 16 << 20


def read_small(
    path: Path, most: int = MOST_BYTES, *, allowed: Callable[[os.stat_result], None] = lambda _: None
) -> bytes:
    """Give a regular file's bytes.

    Args:
        path: links are followed.
        most: how many it may have.
        allowed: looks at the open file before a byte of it is read, and raises what it likes.

    Raises:
        OSError: it can't be read, isn't a file (a pipe would be waited for, a device needn't end), or has more bytes.
    """
    name = str(path)
    if "\0" in name:
        raise OSError(errno.EINVAL, "a NUL in the name", name)
    _refuse_others(path.stat(), name)  # before it is opened: opening a device may do something
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        status = os.fstat(descriptor)
        _refuse_others(status, name)
        allowed(status)
        with open(descriptor, "rb", closefd=False) as file:
            # Not at once as many as there may be: room is made for all that is asked for.
            data = file.read(min(most, status.st_size) + 1)
            if len(data) > status.st_size:  # it has grown, or says 0, as files of /proc do
                data += file.read(most + 1 - len(data))
    except OSError as error:
        error.filename = name  # reading names none
        raise
    finally:
        os.close(descriptor)
    if len(data) > most:
        raise OSError(errno.EFBIG, f"it has more than {most} bytes", name)
    return data


def read_small_text(path: Path, most: int = MOST_BYTES) -> str:
    """Give a regular file's text. Raises as `read_small` does, and `UnicodeDecodeError`."""
    return read_small(path, most).decode("utf-8")


def _refuse_others(status: os.stat_result, name: str) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), name)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file", name)

"""Locks between processes: flock on a file. The kernel lets go of them when a process dies, however it dies."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_SECONDS_BETWEEN_TRIES = 0.05


@contextlib.contextmanager
def locked(path: Path, *, waiting: Callable[[], None] = lambda: None, after: float = 0.0) -> Iterator[None]:
    """Hold the lock of this name, alone; wait for it if need be. Its file is removed at the end.

    Args:
        path: of a file that is for nothing else.
        waiting: called once, if another process still holds it…
        after: …so many seconds later.

    Raises:
        OSError: the file can't be made, or the file system knows no locks.
    """
    tells = time.monotonic() + after
    told = False
    while True:
        with path.open("ab") as file:
            if not _try(file):
                if not told and time.monotonic() >= tells:
                    told = True
                    waiting()
                if told:
                    fcntl.flock(file, fcntl.LOCK_EX)
                else:
                    time.sleep(_SECONDS_BETWEEN_TRIES)
                    continue
            # Whoever held it has removed the file since it was opened: the lock of that name is another file now.
            if _is(file, path):
                try:
                    yield
                finally:
                    with contextlib.suppress(OSError):
                        path.unlink()
                return


@contextlib.contextmanager
def locked_if_free(path: Path) -> Iterator[bool]:
    """Like `locked`, without waiting: whether the lock is held is what the block is given."""
    with path.open("ab") as file:
        held = _try(file) and _is(file, path)
        try:
            yield held
        finally:
            if held:
                with contextlib.suppress(OSError):
                    path.unlink()


@contextlib.contextmanager
def folder_lock(folder: Path, *, alone: bool) -> Iterator[None]:
    """Hold a lock on a folder: shared with others that don't want it `alone`. For moments only, as it tells nobody.

    Raises:
        OSError: there is no such folder.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # A file system without locks (some of NFS) gives none; then what they guard isn't collected either.
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


def _try(file: BinaryIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False

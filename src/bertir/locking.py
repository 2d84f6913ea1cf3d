"""Locks between processes: flock on a file. The kernel lets go of them when a process dies, however it dies. And leases."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import time
from typing import TYPE_CHECKING, BinaryIO

from bertir.interruption import held

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
        with contextlib.ExitStack() as stack:
            file, mine = _opened(stack, path)
            if mine:
                yield
                return
            if told:
                # Until whoever holds it lets go of it. That removes the file: the lock of that name is another one then.
                fcntl.flock(file, fcntl.LOCK_EX)
            elif time.monotonic() >= tells:
                told = True
                waiting()
            else:
                time.sleep(_SECONDS_BETWEEN_TRIES)


@contextlib.contextmanager
def locked_if_free(path: Path) -> Iterator[bool]:
    """Like `locked`, without waiting: whether the lock is held is what the block is given."""
    with contextlib.ExitStack() as stack:
        _, mine = _opened(stack, path)
        yield mine


def _opened(stack: contextlib.ExitStack, path: Path) -> tuple[BinaryIO, bool]:
    """Open the file and try to lock it; at the stack's end it is removed, if the lock was to be had, and closed.

    All of it or nothing: a signal in between would leave a file that nobody removes.
    """
    with held():
        file = stack.enter_context(path.open("ab"))
        # Whoever held it may have removed the file since it was opened.
        mine = _try(file) and _is(file, path)
        if mine:
            stack.callback(_remove, path)
    return file, mine


def _remove(path: Path) -> None:
    with held(), contextlib.suppress(OSError):
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


def is_written(descriptor: int) -> bool:
    """Say whether anybody has a file open to write into it, whoever that is; or whether the file system can't tell.

    The kernel gives a lease for reading on a file that nobody has open so, nor mapped (fcntl(2), "Leases"). To whom may open it
    later that says nothing.

    Args:
        descriptor: open for reading alone, on a file of this user's.
    """
    try:
        # Of one who opens it meanwhile the kernel tells by a signal, and this is one that does nothing.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError:
        return True
    fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False

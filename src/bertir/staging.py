"""Folders and files of work in progress, which no process leaves behind, however it ends.

Each is held by a flock as long as its process lives; the kernel lets go of it when that dies. So whoever comes next can
tell what is abandoned, and removes it. To be made and to be held are one step for others: both are done under a
shared lock on the folder around it, and whoever looks for abandoned ones takes that lock alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from bertir.emptying import removed
from bertir.interruption import held
from bertir.locking import folder_lock

if TYPE_CHECKING:
    from collections.abc import Iterator

# In the name of whatever is staged in a user's folder: what bertir didn't make there isn't bertir's to remove.
MARK = ".bertir-"
_RANDOM = re.compile(r"[a-z0-9_]{8}")


@contextlib.contextmanager
def staged_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """Make a private folder (0700) in `parent`, and remove it at the end if it is still there.

    Raises:
        OSError: it can't be made.
    """
    folder, descriptor = None, None
    try:
        with held(), folder_lock(parent, alone=False):
            folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
            descriptor = os.open(folder, os.O_RDONLY)
            _hold(descriptor)
        yield folder
    finally:
        with held():
            if folder is not None:
                removed(folder)
            if descriptor is not None:
                os.close(descriptor)


@contextlib.contextmanager
def staged_file(parent: Path, prefix: str) -> Iterator[tuple[Path, int]]:
    """Make a private file (0600) in `parent`, and remove it at the end if it is still there.

    Gives its path and a descriptor to write to, which the block does not close.

    Raises:
        OSError: it can't be made.
    """
    path, descriptor = None, None
    try:
        with held(), folder_lock(parent, alone=False):
            descriptor, name = tempfile.mkstemp(prefix=prefix, dir=parent)
            path = Path(name)
            _hold(descriptor)
        yield path, descriptor
    finally:
        with held():
            if path is not None:
                with contextlib.suppress(OSError):
                    path.unlink()
            if descriptor is not None:
                os.close(descriptor)


def abandoned(parent: Path, prefix: str) -> list[Path]:
    """Give what is staged in `parent` under such a name and belongs to no living process."""
    try:
        with folder_lock(parent, alone=True):
            return [
                path for path in sorted(parent.iterdir()) if _is_staged(path, prefix) and is_abandoned(path)
            ]
    except OSError:
        return []  # a folder that can't be read, or a file system that knows no locks


def _is_staged(path: Path, prefix: str) -> bool:
    """Whether it has a name as `tempfile` gives: a user's own file may begin like one of ours."""
    return path.name.startswith(prefix) and _RANDOM.fullmatch(path.name[len(prefix) :]) is not None


def sweep(parent: Path, prefix: str) -> None:
    """Remove what killed processes left in `parent` under names that begin so."""
    for path in abandoned(parent, prefix):
        removed(path)


def is_abandoned(path: Path) -> bool:
    """Whether no living process holds it; what isn't there is held by none."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False  # another user's, or no folder or file: nothing that we staged
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.fstat(descriptor).st_uid == os.geteuid()  # another user's isn't ours, be we root
    except OSError:
        return False  # held; or nobody can tell
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Make what was renamed in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_synced(path: Path, data: bytes) -> None:
    """Write a new file, and see that it is on the disk."""
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _hold(descriptor: int) -> None:
    # A file system without locks (some of NFS): then nobody takes it for abandoned, and nobody removes it either.
    with contextlib.suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX)

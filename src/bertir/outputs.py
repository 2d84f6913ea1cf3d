"""What a step left in its output volume: watched while it grows, taken if it is what was promised, and emptied.

A step may be a stranger's program: nothing here follows a link, waits for a pipe, or believes a size.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bertir.errors import MissingOutputError, StepError
from bertir.redact import printable
from bertir.room import megabytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import BinaryIO

MOST_FILES = 10_000
MOST_DEPTH = 16
NAMES_SHOWN = 10


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What lies in a volume: bytes of the disk that it takes, files and folders, and why it is too much, if it is."""

    taken: int
    files: int
    fault: str = ""


def usage(volume: Path, most_bytes: int) -> Usage:
    """Count what lies in a volume, while a step may be changing it; end at the first thing that is too much."""
    taken = files = 0
    fault = ""
    seen: set[int] = set()
    try:
        for status in _entries(str(volume)):
            files += 1
            if status.st_ino not in seen:  # a file of several names takes its room once
                seen.add(status.st_ino)
                taken += status.st_blocks * 512
            if files > MOST_FILES:
                fault = f"it left more than {MOST_FILES} files in its output volume, the limit"
            elif taken > most_bytes:
                fault = f"it filled its output volume with more than {megabytes(most_bytes)}, the limit"
            if fault:
                break
    except OSError as error:
        fault = f"its output volume can't be looked through: {error.strerror}"
    return Usage(taken=taken, files=files, fault=fault)


def _entries(volume: str) -> Iterator[os.stat_result]:
    waiting = [(volume, 0)]
    while waiting:
        folder, depth = waiting.pop()
        if depth > MOST_DEPTH:
            raise OSError(errno.ENAMETOOLONG, f"it is more than {MOST_DEPTH} folders deep")
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
            for entry in entries:  # what is gone a moment later is no fault: the step is at work there
                with contextlib.suppress(FileNotFoundError):
                    yield entry.stat(follow_symlinks=False)
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append((entry.path, depth + 1))


@contextlib.contextmanager
def taken(volume: Path, names: Sequence[str], most_bytes: int, step: str) -> Iterator[Mapping[str, BinaryIO]]:
    """Open the files that a step promised, and nothing else of what lies in its volume.

    Raises:
        MissingOutputError: one isn't there.
        StepError: one is no regular file, or is one under several names, can't be read, or they are too large together.
    """
    with contextlib.ExitStack() as stack:
        place = os.open(volume, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        stack.callback(os.close, place)
        files = {}
        total = 0
        for name in names:
            file = stack.enter_context(_opened(volume, place, name, step))
            status = os.fstat(file.fileno())
            total += status.st_size
            if total > most_bytes:
                raise StepError(
                    f"{step}: its output {name} has {status.st_size} bytes, over the limit of {most_bytes} for all"
                    " of them; it was not taken"
                )
            files[name] = file
        yield files


def _opened(volume: Path, place: int, name: str, step: str) -> BinaryIO:
    # O_PATH opens nothing yet: neither a pipe nor a device notices, and a link is seen as what it is.
    try:
        found = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=place)
    except FileNotFoundError:
        raise MissingOutputError(
            f"{step}: ended well, and yet there is no {name} in its output volume (found: {_listed(volume)})",
            advice="Run it again; if it stays so, please report it with the step's log.",
        ) from None
    try:
        status = os.fstat(found)
        if not stat.S_ISREG(status.st_mode):
            raise StepError(f"{step}: its output {name} is not a regular file; it was not taken")
        if status.st_nlink != 1:
            raise StepError(
                f"{step}: its output {name} is a hard link, a file of {status.st_nlink} names; it was not taken"
            )
        return Path(f"/proc/self/fd/{found}").open("rb")
    except OSError as error:
        raise StepError(
            f"{step}: its output {name} can't be read ({error.strerror}); it was not taken"
        ) from error
    finally:
        os.close(found)


def _listed(volume: Path) -> str:
    # No step's output is hidden; what is, is of what runs several in one container.
    names = sorted(printable(path.name) for path in volume.iterdir() if not path.name.startswith("."))
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return ", ".join(names[:NAMES_SHOWN]) + more or "nothing"

"""What room a disk has, and what is said when it has not enough: how much was needed, and how much there is."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


# With less than this left, a disk counts as full: what a program holds back for its last write may not fill it to a byte.
FULL_BYTES = 4 << 20
_FEW_FILES = 16


def free_bytes(place: Path) -> int:
    """Give the bytes that this user may still write on the disk of `place`, which need not be there yet.

    Raises:
        OSError: nothing above it can be asked.
    """
    disk = os.statvfs(existing(place))
    return disk.f_bavail * disk.f_frsize


def existing(place: Path) -> Path:
    """Give the folder or file itself, or what is there of those above it."""
    place = place.absolute()
    while not os.path.lexists(place) and place != place.parent:
        place = place.parent
    return place


def megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size < 10**9 else f"{size / 1e9:.2f} GB"


def no_room(error: OSError, place: Path, needed: int = 0, *, at_least: bool = False) -> str:
    """Say in what way the disk of `place` took no more, or give an empty text if the error is another one.

    Args:
        error: what the system said.
        place: on that disk.
        needed: bytes that were to be written; 0: nobody knows.
        at_least: it may be more.
    """
    if error.errno == errno.EROFS:
        return f"the disk of {place} can only be read"
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return ""
    wanted = f"{'over ' if at_least else ''}{megabytes(needed)} needed, " if needed else ""
    if error.errno == errno.EDQUOT:
        return f"this user's quota on the disk of {place} is used up ({wanted}see: quota -s)"
    try:
        disk = os.statvfs(existing(place))
    except OSError:
        return f"the disk of {place} is full"
    free = disk.f_bavail * disk.f_frsize
    # What was begun has been removed by now, so that a few are free again.
    if free > needed and disk.f_files and disk.f_favail < _FEW_FILES:
        return f"the disk of {place} holds no more files ({disk.f_favail} of {disk.f_files} left: df -i)"
    return f"the disk of {place} is full ({wanted}{megabytes(free)} free)"

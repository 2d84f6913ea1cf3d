"""Empty a folder that a stranger filled: as deep, as many and as closed as may be. Follows no link.

The standard library only: the same text runs on the host, and as a step's user in its container (`python3 -c`).
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import time
from pathlib import Path

# Somebody may still be filling it: a step that outlived its engine.
MOST_SECONDS = 120.0
_FOLDER = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def emptied(folder: str) -> bool:
    """Remove everything in `folder` that this user may; give whether it is empty now.

    What lies in a folder inside is moved up before that folder is removed. So no path grows longer than two names and
    nothing recurses: `shutil.rmtree` ends with a RecursionError, or out of descriptors, at a depth of a thousand.
    """
    until = time.monotonic() + MOST_SECONDS
    top = os.open(folder, os.O_RDONLY | _FOLDER)
    try:
        while names := os.listdir(top):  # noqa: PTH208 - by its descriptor
            progress = [_unlinked(name, top) or _lifted(name, top) for name in names]
            if not any(progress) or time.monotonic() > until:
                return False
    finally:
        os.close(top)
    return True


def removed(path: Path) -> bool:
    """Remove a file, a link, or a folder and everything in it, as far as this user may; give whether it is gone."""
    with contextlib.suppress(OSError):
        if stat.S_ISDIR(path.lstat().st_mode):
            emptied(str(path))
            path.rmdir()
        else:
            path.unlink()
    return not os.path.lexists(path)


def remove(path: Path) -> None:
    """Remove a file, a link, or a folder and everything in it.

    Raises:
        OSError: it is still there, and why.
    """
    if not removed(path):
        if stat.S_ISDIR(path.lstat().st_mode):
            path.rmdir()
        else:
            path.unlink()


def _unlinked(name: str, within: int) -> bool:
    """Remove what is no folder, or an empty one."""
    try:
        if stat.S_ISDIR(os.lstat(name, dir_fd=within).st_mode):
            os.rmdir(name, dir_fd=within)
        else:
            os.unlink(name, dir_fd=within)
    except OSError:
        return False
    return True


def _lifted(name: str, top: int) -> bool:
    """Empty one folder of `top`: what can't be removed is moved up. Give whether anything was done."""
    try:
        inner = _opened(name, top)
    except OSError:
        return False
    done = False
    try:
        for item in os.listdir(inner):  # noqa: PTH208 - by its descriptor
            done |= _unlinked(item, inner) or _moved(item, inner, top)
    except OSError:
        return done
    finally:
        os.close(inner)
    return _unlinked(name, top) or done


def _moved(name: str, within: int, top: int) -> bool:
    try:
        os.close(_opened(name, within))  # only a folder that one may write can be moved: its `..` changes
        os.rename(name, f".{os.urandom(12).hex()}", src_dir_fd=within, dst_dir_fd=top)
    except OSError:
        return False
    return True


def _opened(name: str, within: int) -> int:
    """Open a folder, after opening it to its owner; never what a link of that name leads to."""
    place = os.open(name, os.O_PATH | _FOLDER, dir_fd=within)
    try:
        with contextlib.suppress(
            OSError
        ):  # somebody else's: whether it can be opened all the same is seen next
            Path(f"/proc/self/fd/{place}").chmod(stat.S_IRWXU)
        return os.open(".", os.O_RDONLY | _FOLDER, dir_fd=place)
    finally:
        os.close(place)


if __name__ == "__main__":
    emptied(sys.argv[1])

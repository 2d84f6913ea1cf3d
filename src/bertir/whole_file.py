"""Files for the user that appear under their name only when they are whole."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from bertir.errors import NoRoomError
from bertir.room import no_room
from bertir.staging import MARK, staged_file, sweep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bertir.errors import BertirError


@contextlib.contextmanager
def whole_file(path: Path, failure: Callable[[str], BertirError], *, size: int = 0) -> Iterator[BinaryIO]:
    """Give a file to write into; at the end of the block it is synced and renamed to `path`.

    A link there is replaced, and what it leads to stays as it is: who may make links in the folder shall not say where
    else we write. A link that leads to a device, a pipe or a socket is refused as these are, and so is one in /dev: the
    system's own (/dev/stdout), wherever it leads now.

    Args:
        path: the file's place; what was there before stays until then.
        failure: makes the error for whatever the system refuses.
        size: bytes that will be written, if that is known.

    Raises:
        NoRoomError: the disk is full.
        BertirError: as `failure` makes it, of what is no regular file too; nothing is left behind. What the block raises goes through.
    """
    prefix = f".{path.name}{MARK}"
    written = 0
    try:
        if not path.name or path.is_dir():
            raise failure(f"can't write {path}: it is a folder")
        if not _is_replaceable(path):
            raise failure(f"can't write {path}: it is no regular file")
        sweep(path.parent, prefix)
        with staged_file(path.parent, prefix) as (partial, descriptor):
            with open(descriptor, "wb", closefd=False) as file:
                try:
                    yield file
                    file.flush()
                finally:
                    written = file.tell()
                os.fsync(file.fileno())
            mask = os.umask(0)
            os.umask(mask)
            partial.chmod(0o666 & ~mask)  # it was made 0600
            partial.replace(path)
    except OSError as error:
        if said := no_room(error, path.parent, size or written, at_least=not size):
            advice = "Nothing was left there, and what lay there before is as it was. Name a place on another disk."
            raise NoRoomError(f"can't write {path}: {said}", advice=advice) from error
        raise failure(f"can't write {path}: {error.strerror or error}") from error


def _is_replaceable(path: Path) -> bool:
    if path.is_symlink() and path.parent.resolve() == Path("/dev"):
        return False
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:
        return True  # nothing, or a link to nothing

"""Files for the user that appear under their name only when they are whole."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bertir.errors import BertirError


@contextlib.contextmanager
def whole_file(path: Path, failure: Callable[[str], BertirError]) -> Iterator[BinaryIO]:
    """Give a file to write into; at the end of the block it is synced and renamed to `path`.

    Args:
        path: the file's place; what was there before stays until then.
        failure: makes the error for whatever the system refuses.

    Raises:
        BertirError: as `failure` makes it; nothing is left behind. What the block raises goes through.
    """
    try:
        if not path.name or path.is_dir():
            raise failure(f"can't write {path}: it is a folder")
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise failure(f"can't write {path}: {error.strerror}") from error
    partial = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        partial.chmod(0o666 & ~mask)  # mkstemp makes 0600
        partial.replace(path)
    except OSError as error:
        raise failure(f"can't write {path}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()

"""Files of the user's that must stay as they are while they are read: a training may still be writing them.

A digest says what was read, and not that this ever was the file: of a checkpoint that is being saved, one half may be the
old one's. So each file's identity, size and times are noted before the first byte is read and compared after the last.
Whoever sets the modification time back moves the time of change, which only the kernel sets.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Self

from bertir.errors import ConfigurationError
from bertir.frozen import dataclass
from bertir.mark import TICK_NS, Mark

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Marks:
    """How some files were at one moment."""

    files: Mapping[Path, Mark]

    @classmethod
    def of(cls, paths: Iterable[Path]) -> Self:
        """Note how these files are, before any of them is read.

        Raises:
            ConfigurationError: one isn't there.
        """
        files = {path: _mark(path) for path in paths}
        youngest = max((mark.changed_ns for mark in files.values()), default=0)
        if 0 <= time.time_ns() - youngest < TICK_NS:  # two writes within one can't be told apart
            time.sleep(TICK_NS / 1e9)
            files = {path: _mark(path) for path in files}
        return cls(files=files)

    def require_unchanged(self, advice: str) -> None:
        """Compare, after all was read.

        Raises:
            ConfigurationError: one was written to meanwhile, or has been replaced.
        """
        changed = [str(path) for path, mark in self.files.items() if _mark(path) != mark]
        if changed:
            raise ConfigurationError(
                f"{', '.join(changed)} changed while it was read, and what was read may be half of each",
                advice=advice,
            )


def _mark(path: Path) -> Mark:
    try:
        return Mark.of(path.stat())
    except OSError as error:
        raise ConfigurationError(f"can't read {path}: {error.strerror}") from error

"""What a file's status says that any writing changes: which file it is, how long, and its times.

So it is where a kernel keeps these times. Some file systems make them up (hint.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from bertir.frozen import dataclass

if TYPE_CHECKING:
    import os

# Within it two writings may leave the same times: FAT's move by two seconds, and a single write may take long once it has
# moved them.
GRAIN_NS = 3_000_000_000
# A kernel's own file systems take the time of its tick (10 ms at most): what is written one after that has another.
TICK_NS = 20_000_000


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A file at one moment. Whoever sets its modification time back moves the time of change, which only the kernel sets."""

    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Self:
        return cls(
            device=status.st_dev,
            inode=status.st_ino,
            size=status.st_size,
            modified_ns=status.st_mtime_ns,
            changed_ns=status.st_ctime_ns,
        )

    def is_settled(self, moment: int) -> bool:
        """Whether the file's times were past at `moment` (nanoseconds): another writing gives it other ones, for sure."""
        return max(self.modified_ns, self.changed_ns) + GRAIN_NS <= moment

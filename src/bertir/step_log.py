"""What a step prints: read as it comes, and kept for the user where the step failed."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

from bertir.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bertir.engines import Output

LOG_BYTES = 16 << 20
LINE_BYTES = 4096  # of a longer line its end is told


class Reader(threading.Thread):
    """Copies what a container prints into a file, to its end, up to a size that a disk bears; and tells it line by line."""

    def __init__(self, stream: Output, log: Path, tell: Callable[[str], None] | None) -> None:
        super().__init__(daemon=True)
        self._stream = stream
        self.log = log
        self._tell = tell
        self._begun = b""  # a line whose end hasn't come

    def run(self) -> None:
        # Without a buffer: it would be written when the file is closed, and a full disk be told of there.
        with self.log.open("wb", buffering=0) as file:
            for chunk in self._stream:
                # Read to the end, or the step would wait for a reader.
                with contextlib.suppress(OSError):  # the disk is full: the watch will see that too
                    file.write(chunk[: max(0, LOG_BYTES - file.tell())])
                if self._tell is not None:
                    self._lines(chunk, self._tell)

    def _lines(self, chunk: bytes, tell: Callable[[str], None]) -> None:
        *lines, begun = (self._begun + chunk).splitlines(keepends=True) or [b""]
        if begun.endswith((b"\n", b"\r")):
            lines, begun = [*lines, begun], b""
        self._begun = begun[-LINE_BYTES:]
        for line in lines:
            tell(line[-LINE_BYTES:].decode("utf-8", errors="replace").rstrip())

    def end(self) -> None:
        """End it, if it hasn't ended; the engine may hang."""
        if self.is_alive():
            self._stream.close()
            self.join(1)


def kept(folder: Path, log: Path, step: str) -> Path | None:
    """Keep a step's log for the user to read; None if it can't be.

    Its digest is in its name: of several builds that fail in the same step none takes away what another told of.
    """
    try:
        path = folder / "logs" / f"{step}-{Digest.of_file(log).short}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(log.read_bytes())
    except OSError:  # a full disk, say, which is told already
        return None
    return path

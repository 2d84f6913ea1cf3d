"""What a person sees while a build goes on: plain lines on standard error, one fact each."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TextIO

from bertir.redact import without_logins

if TYPE_CHECKING:
    from collections.abc import Iterator

SECONDS_BETWEEN_LINES = 5.0


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where progress is told. `stream=None` tells nobody.

    Args:
        about: which of several builds it is of, said in each line; empty where there is one.
    """

    stream: TextIO | None
    started: float = field(default_factory=time.monotonic)
    about: str = ""

    def say(self, stage: str, text: str) -> None:
        """Print one line: seconds since the start, the stage, what happens."""
        if self.stream is not None:
            seconds = time.monotonic() - self.started
            about = f"{self.about}: " if self.about else ""
            # In one piece, as other processes may write there too.
            self.stream.write(f"[{seconds:6.1f} s] {stage:<10} {about}{without_logins(text)}\n")
            self.stream.flush()

    def counted(
        self, stage: str, what: str, chunks: Iterator[bytes], total: int | None, *, already: int = 0
    ) -> Iterator[bytes]:
        """Pass bytes on; while it takes long, say how many of `total` went by, how fast, and how long it will take.

        `already` of them went by before: they count, but not for the rate.
        """
        begun = last = time.monotonic()
        size = already
        for chunk in chunks:
            yield chunk
            size += len(chunk)
            now = time.monotonic()
            if now - last >= SECONDS_BETWEEN_LINES:
                last = now
                rate = (size - already) / (now - begun)
                left = f", {(total - size) / rate:.0f} s left" if total and rate else ""
                whole = f" of {total / 1e6:.1f}" if total else ""
                self.say(stage, f"{what}: {size / 1e6:.1f}{whole} MB, {rate / 1e6:.1f} MB/s{left}")


SILENT = Progress(stream=None)

"""What a person sees while a build goes on: on a terminal a live view, elsewhere plain lines, one fact each."""

from __future__ import annotations

import contextlib
import time
from dataclasses import field
from enum import Enum
from typing import TYPE_CHECKING, Protocol, TextIO

from bertir.errors import ConfigurationError
from bertir.frozen import dataclass
from bertir.redact import line, without_logins

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SECONDS_BETWEEN_LINES = 5.0
SECONDS_BETWEEN_COUNTS = 0.1


class Level(Enum):
    """How much is told."""

    QUIET = "quiet"  # errors alone
    NORMAL = "normal"
    VERBOSE = "verbose"  # what the steps print, too


class State(Enum):
    """What becomes of a stage."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    STORED = "in the store"


@dataclass(frozen=True, kw_only=True)
class Count:
    """How many bytes went by.

    Args:
        total: how many there will be, if that is known.
        rate: bytes a second.
    """

    what: str
    size: int
    total: int | None
    rate: float

    def __str__(self) -> str:
        """Give it as `loading: 12.0 of 40.0 MB, 3.1 MB/s, 9 s left`."""
        left = f", {(self.total - self.size) / self.rate:.0f} s left" if self.total and self.rate else ""
        whole = f" of {self.total / 1e6:.1f}" if self.total else ""
        return f"{self.what}: {self.size / 1e6:.1f}{whole} MB, {self.rate / 1e6:.1f} MB/s{left}"


class View(Protocol):
    """What shows the stages in one place instead of in lines (live.py).

    What is told to it while it isn't open is told elsewhere: `say` and `count` give whether they took it.
    """

    def open(self) -> None: ...

    def close(self) -> None: ...

    def say(self, stage: str, text: str, state: State | None, fact: str) -> bool:
        """Show what a stage does; without a state, keep `fact`, the line about it."""

    def count(self, stage: str, count: Count) -> bool:
        """Show how many bytes went by in a stage."""

    def log(self, stage: str, text: str) -> None:
        """Show the last line that a step printed."""

    def drop(self, stage: str) -> None:
        """Show nothing more of a stage."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where progress is told. `stream=None` tells nobody.

    Args:
        about: which of several builds it is of, said in each line; empty where there is one.
        view: shows it while `shown` lasts.
    """

    stream: TextIO | None
    started: float = field(default_factory=time.monotonic)
    about: str = ""
    level: Level = Level.NORMAL
    view: View | None = None

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """Show the view within the block, if there is one; what is told outside of it is told in lines."""
        if self.view is None:
            yield
            return
        try:
            self.view.open()
            yield
        finally:
            self.view.close()

    def say(self, stage: str, text: str, state: State | None = None) -> None:
        """Tell what happens in a stage, and what became of it by that, if anything: in a line, or in the view."""
        if self.stream is None or self.level is Level.QUIET:
            return
        seconds = time.monotonic() - self.started
        about = f"{self.about}: " if self.about else ""
        fact = f"[{seconds:6.1f} s] {stage:<10} {about}{without_logins(text)}"
        if self.view is not None and self.view.say(stage, without_logins(text), state, fact):
            return
        # In one piece, as other processes may write there too.
        self.stream.write(f"{fact}\n")
        self.stream.flush()

    def log(self, step: str, text: str) -> None:
        """Tell a line that a step printed: to who wants all of them, or as the last one in the view."""
        if self.stream is None or self.level is Level.QUIET:
            return
        text = line(text)  # it may come of a stranger's checkpoint
        if self.level is Level.VERBOSE:
            self.say(step, f"| {text}")
        elif self.view is not None:
            self.view.log(step, text)

    def counted(
        self, stage: str, what: str, chunks: Iterator[bytes], total: int | None, *, already: int = 0
    ) -> Iterator[bytes]:
        """Pass bytes on; while it takes long, say how many of `total` went by, how fast, and how long it will take.

        `already` of them went by before: they count, but not for the rate.
        """
        begun = last_line = last_count = time.monotonic()
        size = already
        for chunk in chunks:
            yield chunk
            size += len(chunk)
            now = time.monotonic()
            if now - last_count < min(SECONDS_BETWEEN_COUNTS, SECONDS_BETWEEN_LINES):
                continue
            last_count = now
            count = Count(what=what, size=size, total=total, rate=(size - already) / (now - begun))
            if self.view is not None and self.view.count(stage, count):
                continue
            if now - last_line >= SECONDS_BETWEEN_LINES:
                last_line = now
                self.say(stage, str(count))
        if self.view is not None and last_count > begun:  # what it shows is what there was
            now = time.monotonic()
            self.view.count(
                stage, Count(what=what, size=size, total=total, rate=(size - already) / (now - begun))
            )


SILENT = Progress(stream=None)


def chosen_level(environment: Mapping[str, str], *, quiet: bool = False, verbose: bool = False) -> Level:
    """Give how much is to be told: by the options, or else by BERTIR_PROGRESS.

    Raises:
        ConfigurationError: both options, or a word that isn't one of them.
    """
    if quiet and verbose:
        raise ConfigurationError("--quiet and --verbose exclude each other")
    if quiet or verbose:
        return Level.QUIET if quiet else Level.VERBOSE
    said = environment.get("BERTIR_PROGRESS", "") or Level.NORMAL.value
    try:
        return Level(said)
    except ValueError:
        words = ", ".join(level.value for level in Level)
        raise ConfigurationError(f"BERTIR_PROGRESS must be one of {words}, and is {said!r}") from None


def is_for_a_person(stream: TextIO, environment: Mapping[str, str]) -> bool:
    """Say whether a stream is a terminal that can redraw, before which somebody sits: no CI job's, no dumb one."""
    try:
        terminal = stream.isatty()
    except ValueError:  # closed
        return False
    return (
        terminal
        and environment.get("TERM", "dumb") != "dumb"
        and environment.get("CI", "") in ("", "0", "false")
    )

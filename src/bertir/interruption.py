"""Signals that end a build: the first one raises, so that `with` blocks end; what follows can't break the clean-up.

Ctrl-C is pressed twice, a CI runner sends SIGTERM after SIGINT: were each of them raised, the second would end the
clean-up that the first began, and a container or a folder would be left. SIGKILL can't be handled: what it leaves
is removed at the next start (staging.py, `Builder.reap`).
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# So many of one kind end the process at once. Of one kind: who presses Ctrl-C twice sends two to a rebuild's process too,
# which then gets a SIGTERM of its parent's, and is to clean up all the same.
ENOUGH = 3
_PR_SET_PDEATHSIG = 1
_STILL_CLEANING_UP = b"cleaning up; once more ends it at once, and the next run cleans up\n"


class Interrupted(KeyboardInterrupt):
    """A signal came. No `except Exception` of a library swallows it, as it is none.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    @property
    def exit_status(self) -> int:
        return 128 + self.number

    def __str__(self) -> str:
        what = "interrupted" if self.number == signal.SIGINT else "terminated"
        return f"{what}; what was finished is in the store"


class _Handler:
    """What is done when a signal comes. Found again by `held` as the process's own handler, of which there is one."""

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}
        self.depth = 0
        self.pending: int | None = None

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        self.counts[number] = self.counts.get(number, 0) + 1
        if self.counts[number] >= ENOUGH:
            _show_cursor()
            os._exit(128 + number)
        if sum(self.counts.values()) > 1:
            with contextlib.suppress(OSError):
                os.write(2, _STILL_CLEANING_UP)  # not by sys.stderr, in whose write this may have come
        elif self.depth:
            self.pending = number
        else:
            raise Interrupted(number)

    def release(self) -> None:
        self.depth -= 1
        if self.depth == 0 and self.pending is not None:
            number, self.pending = self.pending, None
            raise Interrupted(number)


def _show_cursor() -> None:
    """Give a terminal its cursor back, which a live view (live.py) had hidden and now won't."""
    with contextlib.suppress(OSError):
        if os.isatty(2):
            os.write(2, b"\x1b[?25h")


@contextlib.contextmanager
def interruptions() -> Iterator[None]:
    """Within it, the first SIGINT, SIGTERM or SIGHUP raises `Interrupted`; those after it are told to wait, and the third of a kind kills.

    Signals that the process was started to ignore stay ignored: it runs under nohup, or as a shell's background job.
    """
    handler = _Handler()
    before = {}
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        if not handler.counts:  # else the process is ending, and whatever comes still mustn't break that
            for number, old in before.items():
                signal.signal(number, old)


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Within it no signal raises: one that comes is raised at the end. For clean-up, and for what must be undone if begun.

    Blocking signals (pthread_sigmask) isn't enough: the kernel gives one to any thread, and Python's handler runs in
    the main one. So a signal raises in no other thread, where nothing is to be held.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = [signal.getsignal(number) for number in SIGNALS]
    handler = next((found for found in handlers if isinstance(found, _Handler)), None)
    if handler is None:  # another program's process, which has handlers of its own
        yield
        return
    handler.depth += 1
    try:
        yield
    finally:
        handler.release()


def end_with_parent(number: signal.Signals) -> None:
    """Have the kernel send this process a signal when the one that started it ends, or its thread that did."""
    import ctypes

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)

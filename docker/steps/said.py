"""How a step speaks to the user: lines on stderr that begin with `bertir-step: `. All else that it prints is its log.

Imported by the programs beside it, in the container. What is said may hold names out of a stranger's file, so it is made
plain here: one name is one line, and a line can't pretend to be another.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import os
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

PREFIX = "bertir-step: "
LINE_SIGNS = 600
LINES = 60
LAST_LINES = 4  # the advice is at the end
MOST_SECONDS_TO_WAIT = 7200.0
SECONDS_BETWEEN_LOOKS = 0.01
# Of mallopt(3).
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
NEVER, NONE = -1, 0


def plain(text: object) -> str:
    """One line of printable signs, of a bearable length."""
    line = str(text)
    if len(line) > LINE_SIGNS:
        half = LINE_SIGNS // 2
        line = f"{line[:half]} … {line[-half:]}"
    return "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape", "surrogatepass").decode()
        for sign in line
    )


def fail(*lines: object) -> NoReturn:
    """End the process with one message and status 1."""
    shown = list(lines)
    if len(shown) > LINES:
        left = len(shown) - LINES
        shown = [*shown[: LINES - LAST_LINES], f"… and {left} more", *shown[-LAST_LINES:]]
    sys.stdout.flush()
    sys.stderr.write("".join(f"{PREFIX}{plain(line)}\n" for line in shown))
    sys.exit(1)


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def await_inputs(*, some: bool = False) -> None:
    """Wait for a program's inputs, if it was started before they were there; or for `some` of them: those that come first."""
    ready = os.environ.get("BERTIR_READY")
    if not ready:
        return
    signs = [Path(ready), *([Path(f"{ready}-some")] if some else [])]
    until = time.monotonic() + MOST_SECONDS_TO_WAIT
    while not any(sign.exists() for sign in signs):
        if time.monotonic() > until:  # whoever started it is gone
            fail("no inputs came.")
        time.sleep(SECONDS_BETWEEN_LOOKS)


def keep_memory() -> None:
    """Have what is given back kept for what is asked for next: else large pieces go to the kernel and come back page by page, each of them zeroed.

    It is glibc that is told. Another C library has no such function, and goes on as it does.
    """
    if tell := getattr(ctypes.CDLL(None), "mallopt", None):
        tell(M_MMAP_MAX, NONE)
        tell(M_TRIM_THRESHOLD, NEVER)


def run(main: Callable[[], None], *needed: str, some: bool = False, keeps_memory: bool = False) -> NoReturn:
    """Run a program, and end the process.

    What was written is closed by then. To take down TensorFlow's graph or OpenVINO's model before the process goes would be
    half a second's work for nothing.

    Args:
        main: the program.
        needed: modules that it imports.
        some: it begins with those of its inputs that come first, and calls `await_inputs` for the others.
        keeps_memory: `keep_memory`.
    """
    if keeps_memory:
        keep_memory()
    # What these programs make they need to their end: to look for circles among a million objects of TensorFlow's, again and
    # again, is a sixth of the time that its import takes.
    gc.disable()
    status = 0
    try:
        _run(main, needed, some=some)
    except SystemExit as error:
        if isinstance(error.code, int | None):
            status = error.code or 0
        else:
            sys.stderr.write(f"{error.code}\n")
            status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _run(main: Callable[[], None], needed: Iterable[str], *, some: bool) -> None:
    """Run a program; what it didn't foresee is one message too, and the traceback is for the log."""
    try:
        for name in needed:  # before it has anything to do
            importlib.import_module(name)
        await_inputs(some=some)
        main()
    except MemoryError:
        fail("there is not enough memory for what the files ask for.")
    except Exception as error:  # noqa: BLE001 - whatever a stranger's file may bring about
        traceback.print_exc()
        fail(
            f"{Path(sys.argv[0]).name} can't make sense of its input: {type(error).__name__}: {one_line(error)}",
            "If the files are whole and load elsewhere, please report this with the log.",
        )

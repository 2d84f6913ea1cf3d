"""How a step's end is told: from its log, its exit status and what was seen while it ran, to one error."""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bertir.errors import StepError
from bertir.redact import printable
from bertir.room import FULL_BYTES, megabytes

if TYPE_CHECKING:
    from pathlib import Path

# A step speaks to the user on lines that begin so; everything else it prints is its log.
MESSAGE_PREFIX = "bertir-step: "
LOG_LINES_SHOWN = 20
KILLED = 137
# Of a program that a signal ended, an engine tells 128 and the signal's number.
CRASHES = {
    128 + number: signal.Signals(number).name
    for number in (signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV)
}
_NO_SPACE = re.compile(r"no space left on device|disk quota exceeded|ENOSPC", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class End:
    """How a step's container ended, and what is known of why.

    Args:
        out_of_memory: the kernel ended it, or a process of it, at its limit.
        free: bytes left on the disk of its output volume when it had ended.
        taken: bytes that its output volume held then.
        disk: a folder on that disk.
    """

    status: int
    out_of_memory: bool = False
    free: int
    taken: int
    disk: Path


def failure(step: str, end: End, log: Path, kept: Path | None, *, memory: int, scratch: int) -> StepError:
    """Give the error of a step that ended with another status than 0.

    Args:
        step: its name.
        end: how it ended.
        log: what it printed.
        kept: where that can be read afterwards; None if it could not be kept.
        memory: its limit; 0 if it has none of its own.
        scratch: what its `/tmp` may hold.
    """
    # What a step prints may come from a stranger's checkpoint: no escape sequence of it reaches the terminal.
    text = log.read_text(encoding="utf-8", errors="replace")
    lines = [printable(line) for line in text.split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    said = [line.removeprefix(MESSAGE_PREFIX) for line in lines if line.startswith(MESSAGE_PREFIX)]
    cause, remedy = _cause(end, text, memory=memory, scratch=scratch)
    advice = advised(remedy, kept)
    if said:
        return StepError(
            "\n  ".join([f"{step}: {said[0]}", *said[1:], *([cause] if cause else [])]), advice=advice
        )
    if end.status == KILLED and end.out_of_memory:
        return StepError(f"{step}: {cause}", advice=advice)
    killed = " (killed, and not by bertir)" if end.status == KILLED else ""
    last = "".join(f"\n  {line}" for line in lines[-LOG_LINES_SHOWN:])
    because = f"; {cause}" if cause else ""
    if end.status in CRASHES:
        remedy = remedy or "A file that is damaged, or made to, can do that: look for a copy that is whole."
        return StepError(
            f"{step}: the program crashed ({CRASHES[end.status]}){because}; its last lines:{last}",
            advice=advised(remedy, kept),
        )
    return StepError(
        f"{step}: exit status {end.status}{killed}{because}; its last lines:{last}", advice=advice
    )


def _cause(end: End, text: str, *, memory: int, scratch: int) -> tuple[str, str]:
    """Say what is known to have been short, and what to do about it; nothing if nothing is known."""
    if end.free < FULL_BYTES:
        return disk_full(end.disk, taken=end.taken, free=end.free)
    if end.out_of_memory:
        what = "it" if end.status == KILLED else "a process of it"
        limit = f" (limit {memory / (1 << 30):.1f} GiB)" if memory else ""
        return (
            f"the kernel ended {what} for want of memory{limit}",
            "Give the engine's machine more memory, or stop what else runs there."
            if memory
            else "Give the machine, or the container that this runs in, more memory, or stop what else runs there.",
        )
    if _NO_SPACE.search(text):
        most = f"its /tmp, in memory, holds {megabytes(scratch)} at most, its /dev/shm less"
        return f"no space was left for it: {most}; the disk of {end.disk} has {megabytes(end.free)} free", ""
    return "", ""


def disk_full(disk: Path, *, taken: int, free: int) -> tuple[str, str]:
    """Say that the disk of a step's output volume is full, and what to do about it."""
    return (
        f"the disk of {disk} is full: the step wrote {megabytes(taken)} there, and {megabytes(free)} are free",
        "Free some room, or set BERTIR_STORE to a larger disk.",
    )


def advised(remedy: str, kept: Path | None) -> str:
    """Add to a remedy where the step's log is."""
    where = f"The whole log is {kept}" if kept else "Its log could not be kept."
    return f"{remedy} {where}".strip()

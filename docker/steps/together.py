"""Run the programs of several steps in one container, each in a process of its own, and import what all of them need once.

Each process is a copy of this one from when it had imported that, and nothing else; it waits for its own inputs, and has its own
log. What is imported is one process's work, and its memory is there once.

    together.py [--yields NAME]… MODULE OUT -- NAME PROGRAM ARGUMENT… [-- NAME PROGRAM ARGUMENT…]…

For each NAME there is, in the folder OUT, `.log-NAME`, the beginning of what it prints, and in the end `.ended-NAME`, which is its exit
status as a shell tells it. Its inputs are there when the file is that the variable BERTIR_READY names, with `-NAME` behind it. This process
ends when all of them have; and none outlives it.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import importlib
import os
import runpy
import signal
import sys
import threading
from itertools import groupby
from pathlib import Path
from typing import NoReturn

BETWEEN = "--"
# As processes in one container: one that nobody waits for yet leaves the processor to the others.
NICE = 10
NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
FILE_MODE = 0o644
LOG_BYTES = 16 << 20
CHUNK_BYTES = 1 << 16
# What a process has started may have its output still, when it has ended: that is waited for so long.
SECONDS_FOR_OUTPUT = 1.0
PR_SET_PDEATHSIG = 1  # prctl(2)


class Log(threading.Thread):
    """Reads what a process prints to its end, so that it never waits for a reader, and keeps the beginning."""

    def __init__(self, path: Path) -> None:
        super().__init__(daemon=True)
        self._file = os.open(path, NEW_FILE, FILE_MODE)
        self._reads, self._writes = os.pipe()

    def take(self) -> None:
        """Have what this process prints, from now on."""
        for descriptor in (sys.stdout.fileno(), sys.stderr.fileno()):
            os.dup2(self._writes, descriptor)

    def let_go(self) -> None:
        """Have no part in what others print: its end comes when nobody has it open any more."""
        os.close(self._writes)

    def close(self) -> None:
        """Be none of those who read it, either."""
        self.let_go()
        os.close(self._reads)
        os.close(self._file)

    def run(self) -> None:
        left = LOG_BYTES
        while chunk := os.read(self._reads, CHUNK_BYTES):
            kept, left = chunk[:left], max(0, left - len(chunk))
            with contextlib.suppress(OSError):  # the disk is full; whoever prints shall not wait for that
                while kept:
                    kept = kept[os.write(self._file, kept) :]


def programs(arguments: list[str]) -> dict[str, list[str]]:
    """What each step runs, by its name: what is between `--` and `--`, or the end."""
    found = [list(part) for between, part in groupby(arguments, BETWEEN.__eq__) if not between]
    return {name: program for name, *program in found}


def become(name: str, program: list[str], *, yields: bool) -> NoReturn:
    """Run a step's program in this process, and end it, as if it had been started with that."""
    if yields:
        os.nice(NICE)
    if ready := os.environ.get("BERTIR_READY"):
        os.environ["BERTIR_READY"] = f"{ready}-{name}"
    sys.argv = program
    runpy.run_path(program[0], run_name="__main__")
    sys.exit()


def begin(name: str, program: list[str], logs: dict[str, Log], *, yields: bool) -> int:
    """Start a step's process; give its number."""
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    number = os.fork()
    if number == 0:
        # Should this process be killed alone; it may have been, by now.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)
        logs[name].take()
        for log in logs.values():
            log.close()
        become(name, program, yields=yields)
    return number


def tell_end(name: str, status: int, out: Path) -> None:
    """Write how a step ended, all of it at once."""
    code = os.waitstatus_to_exitcode(status)
    begun = out / f".ending-{name}"
    file = os.open(begun, NEW_FILE, FILE_MODE)
    os.write(file, b"%d\n" % (code if code >= 0 else 128 - code))
    os.close(file)
    begun.rename(out / f".ended-{name}")


def main(arguments: list[str]) -> None:
    at = arguments.index(BETWEEN)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--yields", action="append", default=[])
    parser.add_argument("module")
    parser.add_argument("out", type=Path)
    own = parser.parse_args(arguments[:at])
    steps = programs(arguments[at:])
    logs = {name: Log(own.out / f".log-{name}") for name in steps}
    gc.disable()  # as in each of them (said.py)
    importlib.import_module(own.module)
    running = {begin(name, program, logs, yields=name in own.yields): name for name, program in steps.items()}
    for log in logs.values():
        log.let_go()
        log.start()  # not before: what is copied has one thread
    while running:
        number, status = os.wait()
        if number in running:  # and not what one of them started and left
            name = running.pop(number)
            logs[name].join(SECONDS_FOR_OUTPUT)
            tell_end(name, status, own.out)


if __name__ == "__main__":
    main(sys.argv[1:])

"""Run the programs of several steps in one container, each in a process of its own, and import what all of them need once.

Each process is a copy of this one from when it had imported that, and nothing else; it waits for its own inputs, and writes its own
log. What is imported is one process's work, and its memory is there once.

    together.py [--yields NAME]… MODULE OUT -- NAME PROGRAM ARGUMENT… [-- NAME PROGRAM ARGUMENT…]…

For each NAME there is, in the folder OUT, `.log-NAME`, which is what it prints, and in the end `.ended-NAME`, which is its exit status
as a shell tells it. Its inputs are there when the file is that the variable BERTIR_READY names, with `-NAME` behind it. This process
ends when all of them have.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import os
import runpy
import sys
from itertools import groupby
from pathlib import Path
from typing import NoReturn

BETWEEN = "--"
# As processes in one container: one that nobody waits for yet leaves the processor to the others.
NICE = 10
LOG_MODE = 0o644


def programs(arguments: list[str]) -> dict[str, list[str]]:
    """What each step runs, by its name: what is between `--` and `--`, or the end."""
    found = [list(part) for between, part in groupby(arguments, BETWEEN.__eq__) if not between]
    return {name: program for name, *program in found}


def become(name: str, program: list[str], log: int, *, yields: bool) -> NoReturn:
    """Run a step's program in this process, and end it, as if it had been started with that."""
    for descriptor in (sys.stdout.fileno(), sys.stderr.fileno()):
        os.dup2(log, descriptor)
    if yields:
        os.nice(NICE)
    if ready := os.environ.get("BERTIR_READY"):
        os.environ["BERTIR_READY"] = f"{ready}-{name}"
    sys.argv = program
    runpy.run_path(program[0], run_name="__main__")
    sys.exit()


def begin(name: str, program: list[str], log: int, *, yields: bool) -> int:
    """Start a step's process; give its number."""
    sys.stdout.flush()
    sys.stderr.flush()
    number = os.fork()
    if number == 0:
        become(name, program, log, yields=yields)
    os.close(log)
    return number


def tell_end(name: str, status: int, out: Path) -> None:
    """Write how a step ended, all of it at once."""
    code = os.waitstatus_to_exitcode(status)
    begun = out / f".ending-{name}"
    begun.write_text(f"{code if code >= 0 else 128 - code}\n", encoding="ascii")
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
    logs = {
        name: os.open(own.out / f".log-{name}", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, LOG_MODE)
        for name in steps
    }
    gc.disable()  # as in each of them (said.py)
    importlib.import_module(own.module)
    running = {
        begin(name, program, logs[name], yields=name in own.yields): name for name, program in steps.items()
    }
    while running:
        number, status = os.wait()
        if number in running:  # and not what one of them started and left
            tell_end(running.pop(number), status, own.out)


if __name__ == "__main__":
    main(sys.argv[1:])

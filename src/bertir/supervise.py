"""Run one step as a process, and end whatever is left of it: `supervise.py LIMITS COMMAND…`.

It stands between bertir and the step (local.py), in a session of its own. Its standard input is a pipe that bertir holds: when that
is closed, as it is however bertir ends, the step is killed, with all that it started. What the step leaves running
when it ends is killed too. Orphans of it become this process's own children, so that none gets away by a session of its own.

The standard library only; it ends with the step's status, or as a shell says it of a signal, 128 and its number.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import select
import signal
import sys
import time
from typing import Any, NoReturn

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 1, 36, 38
KILLED = 128 + signal.SIGKILL
NOT_STARTED = 127
# What a step starts anew while it is being killed is killed in the next round.
_SECONDS_BETWEEN_ROUNDS = 0.005
_ENDS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def main(arguments: list[str]) -> NoReturn:
    limits, command = json.loads(arguments[0]), arguments[1:]
    woken, wakes = os.pipe()
    os.set_blocking(wakes, False)
    signal.set_wakeup_fd(wakes)
    for number in (signal.SIGCHLD, *_ENDS):
        signal.signal(number, _noted)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        _become(command, limits, parent)
    os._exit(_watched(child, woken))


def _noted(_number: int, _frame: object) -> None:
    """Do nothing: that a signal came is read from the pipe."""


def _watched(child: int, woken: int) -> int:
    """Wait until the step has ended, or is to; give its status once nothing of it is left."""
    poll = select.poll()
    poll.register(0, select.POLLIN)
    poll.register(woken, select.POLLIN)
    while True:
        ready = {descriptor for descriptor, _ in poll.poll()}
        numbers = set(os.read(woken, 512)) if woken in ready else set()
        if 0 in ready or numbers.intersection(_ENDS):
            _end_all()
            return KILLED
        if (status := _reaped(child)) is not None:
            _end_all()
            return status


def _reaped(child: int) -> int | None:
    """Take leave of what has ended; give the status of the step, if it is among that."""
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if ended[0] == child:
                code = os.waitstatus_to_exitcode(ended[1])
                return code if code >= 0 else 128 - code
    return None


def _end_all() -> None:
    """Kill every child, and every orphan of one, until there is none."""
    while True:
        for child in _children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(_SECONDS_BETWEEN_ROUNDS)


def _children() -> list[int]:
    found = []
    for name in os.listdir("/proc"):  # noqa: PTH208 - names alone
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:  # noqa: PTH123 - the same
                # After the command, which may have any sign in it: state, parent.
                if int(file.read().rpartition(b")")[2].split()[1]) == os.getpid():
                    found.append(int(name))
    return found


def _become(command: list[str], limits: dict[str, Any], parent: int) -> NoReturn:
    """Be the step."""
    try:
        os.setsid()
        # Should this process's parent be killed alone; it may have been, by now.
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(KILLED)
        _prctl(_PR_SET_NO_NEW_PRIVS, 1)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, *_ENDS):
            signal.signal(number, signal.SIG_DFL)
        for name, most in limits["most"].items():
            _limit(getattr(resource, f"RLIMIT_{name.upper()}"), most)
        os.nice(limits["nice"])
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.execv(command[0], command)  # noqa: S606 - no shell
    except OSError as error:
        os.write(2, f"bertir-step: can't start {command[0]}: {error.strerror}\n".encode())
    finally:
        os._exit(NOT_STARTED)


def _limit(which: int, most: int) -> None:
    """Set a limit; one that is lower already stays."""
    _, hard = resource.getrlimit(which)
    value = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(which, (value, value))


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    main(sys.argv[1:])

"""Run one command, and measure it with the containers that it makes run.

Of the command's own processes the kernel gives exact figures when they have ended. Containers are the engine's children:
their cgroups are looked at every few milliseconds, and what a container does after the last look isn't seen.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from benchmarks.accounting import Group, Traffic, descendants, group_of, resident, traffic_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from benchmarks.containers import Events, Started

PAUSE = 0.05
SECONDS_TO_END = 60.0
NO_EXIT = 127


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What something took.

    Args:
        seconds: of wall time; None of what runs beside something else.
        peak: bytes that its processes had resident at once, at most.
    """

    seconds: float | None
    cpu_seconds: float | None
    peak: int | None
    traffic: Traffic | None


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A command that has ended."""

    status: int
    output: str
    errors: str
    total: Cost
    host: Cost
    containers: tuple[tuple[str, Cost], ...]


@dataclass
class _Watched:
    """What was last seen of one container."""

    started: Started
    group: Group | None = None
    cpu: float | None = None
    peak: int = 0
    now: int = 0
    traffic: Traffic | None = None

    def look(self) -> None:
        self.group = self.group or group_of(self.started.id)
        if self.group is None:
            return
        pids = self.group.pids()
        self.now, most = resident(pids, above=self.peak)
        self.peak = max(self.peak, self.now, most)
        cpu, traffic = self.group.cpu_seconds(), traffic_of(pids)
        # At its end processes go one by one; a parent has what its children did.
        self.cpu = self.cpu if cpu is None else max(cpu, self.cpu or 0.0)
        if traffic and traffic.read + traffic.written >= _all(self.traffic):
            self.traffic = traffic

    def cost(self) -> Cost:
        return Cost(
            seconds=self.started.seconds,
            cpu_seconds=self.cpu,
            peak=self.peak or None,
            traffic=self.traffic,
        )


def _all(traffic: Traffic | None) -> int:
    return traffic.read + traffic.written if traffic else 0


class _Watch(threading.Thread):
    """Looks at a process and at the containers of a label, until it is told to end."""

    def __init__(self, pid: int, events: Events, label: str) -> None:
        super().__init__(daemon=True)
        self.peak = 0
        self.host = 0  # the most that processes outside containers had
        self.seen: dict[str, _Watched] = {}
        self._pid, self._events, self._label = pid, events, label
        self._before = {one.id for one in events.of(label)}
        self._end = threading.Event()

    def run(self) -> None:
        self._look()
        while not self._end.wait(PAUSE):
            self._look()

    def _look(self) -> None:
        for one in self._events.of(self._label):
            if one.id not in self._before:
                self.seen.setdefault(one.id, _Watched(one))
        running = [watched for watched in self.seen.values() if not watched.started.ended]
        for watched in running:
            watched.look()
        now, most = resident(descendants(self._pid), above=self.peak)
        self.host = max(self.host, most, now)
        self.peak = max(self.peak, self.host, now + sum(watched.now for watched in running))

    def end(self) -> None:
        self._end.set()
        self.join()
        # The engine tells of an end a moment after it.
        until = time.monotonic() + 1
        while time.monotonic() < until and not all(one.started.ended for one in self.seen.values()):
            time.sleep(PAUSE)


def run(
    command: Sequence[str],
    events: Events,
    *,
    containers: str,
    folder: Path,
    environment: Mapping[str, str],
) -> Ended:
    """Run a command to its end.

    Args:
        command: the program and its arguments.
        events: of the engine.
        containers: the label's value, or the store's folder, by which its containers are known.
        folder: to run it in.
        environment: all of it.
    """
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        begun = time.monotonic()
        process = subprocess.Popen(
            list(command),
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
        )
        watch = _Watch(process.pid, events, containers)
        watch.start()
        try:
            # Not waited for yet: what a process read and wrote is told until it is.
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            seconds = time.monotonic() - begun
            traffic = traffic_of([process.pid])
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        except BaseException:
            _ended(process)
            raise
        finally:
            watch.end()
        host = Cost(
            seconds=seconds,
            cpu_seconds=usage.ru_utime + usage.ru_stime,
            # Not what the kernel says at the end (ru_maxrss): it counts this process too, which began that one.
            peak=watch.host or None,
            traffic=traffic,
        )
        each = sorted(watch.seen.values(), key=lambda one: one.started.begun)
        costs = tuple((one.started.step, one.cost()) for one in each)
        return Ended(
            status=process.returncode,
            output=_read(output),
            errors=_read(errors),
            total=total(host, [cost for _, cost in costs], watch.peak),
            host=host,
            containers=costs,
        )


def total(host: Cost, containers: Sequence[Cost], peak: int) -> Cost:
    """Add up a command and its containers. A sum of which a part isn't known isn't known either."""
    parts = [host, *containers]
    cpu = [part.cpu_seconds for part in parts if part.cpu_seconds is not None]
    traffic = [part.traffic for part in parts if part.traffic is not None]
    return Cost(
        seconds=host.seconds,
        cpu_seconds=sum(cpu) if len(cpu) == len(parts) else None,
        peak=max([peak, *(part.peak or 0 for part in parts)]),
        traffic=sum(traffic, Traffic()) if len(traffic) == len(parts) else None,
    )


def _ended(process: subprocess.Popen[bytes]) -> None:
    """End a command whose end nobody waits for any more; bertir cleans up when it is told to."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(SECONDS_TO_END)
    process.kill()
    process.wait()


def _read(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")

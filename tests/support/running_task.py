"""A task that runs, to be ended from outside; and what it leaves."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import docker
    from checkout import Checkout

PATIENCE = 60.0


def wait_until(happened: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
    until = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < until, f"{what}: not within {seconds} s"
        time.sleep(0.02)


@dataclass(frozen=True, kw_only=True)
class RunningTask:
    """`invoke` in a session of its own, as a terminal or a CI runner has it."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def said(self) -> str:
        return self.log.read_text(encoding="utf-8")

    def wait_for(self, happened: Callable[[], object], what: str) -> None:
        def so_far() -> object:
            assert self.process.poll() is None, f"ended before {what}:\n{self.said}"
            return happened()

        wait_until(so_far, what)

    def wait_to_say(self, text: str) -> None:
        self.wait_for(lambda: text in self.said, text)

    def end(self, kind: str) -> int:
        """Do what `kind` says, wait for the end, and give the status, as a shell says it but for SIGKILL."""
        if kind == "SIGKILL":
            self.process.kill()
        elif kind == "SIGTERM":
            self.process.terminate()
        else:  # Ctrl-C reaches all of the terminal's foreground: pip and git too
            os.killpg(self.process.pid, signal.SIGINT)
            if kind == "SIGINT twice":
                time.sleep(0.05)
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.process.pid, signal.SIGINT)
        status = self.process.wait(timeout=PATIENCE)
        # The second Ctrl-C may find an interpreter that is done and about to exit: Python lets go of its handlers then.
        return 128 + signal.SIGINT if kind == "SIGINT twice" and status == -signal.SIGINT else status


STATUSES = {"SIGKILL": -signal.SIGKILL, "SIGTERM": 143, "SIGINT": 130, "SIGINT twice": 130}


@contextlib.contextmanager
def running(checkout: Checkout, log: Path, *arguments: str, **environment: str) -> Iterator[RunningTask]:
    """Start a task; what is left of it at the end of the block is killed."""
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "invoke", *arguments],
            cwd=checkout.root,
            env=dict(os.environ) | checkout.environment | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=file,
            start_new_session=True,
        )
    try:
        yield RunningTask(process=process, log=log)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


class Containers:
    """The containers that bertir made for a store, and for the stores of rebuilds inside it."""

    def __init__(self, client: docker.DockerClient, store: Path) -> None:
        self._client = client
        self._store = store

    def steps(self, *, running: bool = False) -> dict[str, str]:
        """Give the id of each that is there, with its step."""
        found = self._client.api.containers(all=True, filters={"label": "bertir.folder"})
        return {
            item["Id"]: item["Labels"]["bertir.step"]
            for item in found
            if _inside(item["Labels"]["bertir.folder"], self._store)
            and (item["State"] == "running" or not running)
        }


def _inside(folder: str, store: Path) -> bool:
    return f"{folder}/".startswith(f"{store}/")


def left_in(store: Path) -> list[str]:
    """What only a process at work may have in a store: temporary folders, leases, locks."""
    return sorted(
        str(item.relative_to(store)) for name in ("tmp", "locks") for item in (store / name).rglob("*")
    )

"""Which containers are started while something is measured: the engine's events, by its own command `docker`."""

from __future__ import annotations

import json
import subprocess
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from bertir.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

# Of a container that the suite starts itself; bertir's have labels of their own.
LABEL = "bertir.bench"
STEP = "bertir.step"
FOLDER = "bertir.folder"


@dataclass(kw_only=True)
class Started:
    """A container that was started; `ended` is in nanoseconds, as the engine's clock has it."""

    id: str
    labels: Mapping[str, str]
    begun: int
    ended: int = 0

    @property
    def step(self) -> str:
        return self.labels.get(STEP, "container")

    @property
    def seconds(self) -> float | None:
        return (self.ended - self.begun) / 1e9 if self.ended else None


@dataclass
class Events:
    """Listens to the engine, as a context manager; `started` grows while it does."""

    started: dict[str, Started] = field(default_factory=dict)

    def __enter__(self) -> Self:
        command = ["docker", "events", "--filter", "type=container", "--format", "{{json .}}"]
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, text=True
        )
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait()
        self._thread.join()
        if self._process.stdout:
            self._process.stdout.close()

    def of(self, name: str) -> list[Started]:
        """Give the containers with that label of the suite's, or of the store in that folder."""
        return [
            one
            for one in list(self.started.values())
            if name in (one.labels.get(LABEL), one.labels.get(FOLDER))
        ]

    def _listen(self) -> None:
        for line in self._process.stdout or ():
            self.heard(line)

    def heard(self, line: str) -> None:
        """Take one event."""
        event = json.loads(line)
        action, id_, moment = event.get("Action"), event["Actor"]["ID"], int(event["timeNano"])
        if action == "start":
            self.started[id_] = Started(id=id_, labels=event["Actor"].get("Attributes", {}), begun=moment)
        elif action == "die" and id_ in self.started:
            self.started[id_].ended = moment


def engine_version() -> str:
    """Ask the engine for its version.

    Raises:
        EngineError: there is no `docker` command, or no engine answers it.
    """
    return docker("version", "--format", "{{.Server.Version}}")


def docker(*arguments: str) -> str:
    """Run a short `docker` command and give what it prints. Raises as above."""
    try:
        done = subprocess.run(
            ["docker", *arguments], check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
    except OSError as error:
        raise EngineError(
            f"can't run `docker`, by which the suite starts and watches containers: {error.strerror}",
            advice="Install it (Debian: apt-get install docker.io), or look at docs/benchmarks.md instead.",
        ) from error
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
        raise EngineError(
            f"`docker {arguments[0]}` failed: {said}",
            advice="Benchmarks need an engine that answers: `docker info` says more, `make engine` starts one.",
        )
    return done.stdout.strip()

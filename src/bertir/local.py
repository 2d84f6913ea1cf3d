"""The local engine: a step is a process of this machine, by an interpreter that has what the steps need.

A run is watched and ended as a container is (container.py); what is made for it here is a folder that has the container's
`/in`, `/step` and `/out`, from which the step is told paths relative to it. What of a container's isolation there is not is said in
`WITHOUT`. A process is ended with all that it started, also when bertir is killed (supervise.py).
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

from bertir import emptying, supervise
from bertir.container import INPUTS, WAIT, StepRun, run_step
from bertir.engines import LOCAL, EngineFacts
from bertir.errors import ConfigurationError, EngineError
from bertir.failure import KILLED
from bertir.interruption import held
from bertir.laying import INPUTS as WAITED
from bertir.laying import PROGRAMS, lay, relative
from bertir.memory import left_by_groups
from bertir.surroundings import Surroundings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager

    from bertir.container import Command, Finished

WITHOUT = (
    "a network of its own (it reaches what you reach), a user of its own (it may write what you may), a read-only root,"
    " a limit on memory, processes and room in /tmp"
)
# What a step that others don't wait for takes the processor by.
_NICE = 10
_CHUNK_BYTES = 1 << 16
_SECONDS_TO_END = 20.0
_VMSTAT = Path("/proc/vmstat")
# How a step's command names Python.
_PYTHON = ("/usr/bin/python3", "python3")


@dataclass(frozen=True, kw_only=True)
class Interpreter:
    """A Python that has what the steps need, and what they find around them.

    Args:
        version: of Python.
        environment: the image's; nothing of the user's.
        home: files in the step's home directory, by path in it.
    """

    path: Path
    version: str
    environment: Mapping[str, str]
    home: Mapping[str, str]


class LocalEngine:
    """Runs steps as processes. Implements `engines.Engine`."""

    def __init__(self, folder: Path, interpreter: Interpreter) -> None:
        self.folder = folder
        self.limits_memory = False
        self.contains = False
        self._interpreter = interpreter
        self._made: dict[str, _Made] = {}
        self._processes: dict[str, _Process] = {}

    @property
    def memory(self) -> int:
        return left_by_groups()

    def facts(self) -> EngineFacts:
        machine = os.uname()
        return EngineFacts(
            name=LOCAL,
            version=f"Python {self._interpreter.version}",
            api_version="",
            architecture=machine.machine,
            kernel=machine.release,
            without=WITHOUT,
        )

    def run(self, image: str, command: Command, scratch: Path) -> AbstractContextManager[Finished]:
        return run_step(self, image, command, scratch)

    def begin(self, image: str, command: Command, scratch: Path) -> StepRun:
        return StepRun(self, image, command, scratch)

    def empty(self, image: str, volume: Path) -> None:
        del image
        emptying.emptied(str(volume))

    # one process

    def create(
        self, name: str, image: str, command: Command, volume: Path, folders: Mapping[str, Path]
    ) -> str:
        """Lay out what a step sees, around its output volume."""
        del image
        if command.surroundings != Surroundings():
            raise ConfigurationError("what is around a step can be varied in a container only")
        root = volume.parent
        try:
            if WAITED not in folders:
                lay(command.inputs, WAITED, root / INPUTS)
            lay(command.inputs, PROGRAMS, root / PROGRAMS.removeprefix("/"))
            home, scratch = root / "home", root / "tmp"
            for path, text in self._interpreter.home.items():
                (home / path).parent.mkdir(parents=True, exist_ok=True)
                (home / path).write_text(text, encoding="utf-8")
            home.mkdir(exist_ok=True)
            scratch.mkdir()
        except OSError as error:
            raise EngineError(f"could not lay out what {command.name} needs: {error.strerror}") from error
        given = {**command.environment, **(WAIT if command.waits else {})}
        environment = {
            **self._interpreter.environment,
            **{key: relative(value) for key, value in given.items()},
            "HOME": str(home),
            "TMPDIR": str(scratch),
        }
        self._made[name] = _Made(command=command, root=root, environment=environment)
        return name

    def start(self, container: str, step: str) -> None:
        made = self._made[container]
        try:
            with held():  # one that is started must be known to be, or nobody ends it
                self._processes[container] = _Process(self._arguments(made.command), made)
        except OSError as error:
            raise EngineError(f"could not run {step}: {error.strerror}") from error

    def _arguments(self, command: Command) -> list[str]:
        program, *arguments = command.arguments
        limits = command.limits
        asked = {
            "most": {"core": 0, "fsize": limits.output_bytes, "nofile": limits.open_files},
            "nice": _NICE if command.yields else 0,
        }
        return [
            *(sys.executable, "-I", "-S", supervise.__file__, json.dumps(asked)),
            str(self._interpreter.path) if program in _PYTHON else program,
            *map(relative, arguments),
        ]

    def let_go_on(self, container: str, command: Command) -> None:
        """Do nothing: a process that waits has the processor that it asks for."""

    def log_of(self, container: str) -> _Output:
        return self._processes[container].output

    def is_running(self, container: str) -> bool:
        process = self._processes.get(container)
        return process is not None and process.status() is None

    def ending_of(self, container: str) -> tuple[int, bool]:
        """Give the exit status, as a container's, and whether the kernel ended it for want of memory.

        The kernel counts what it ends so for the whole machine. A step that was killed, and not by bertir, while that count
        grew was one of them in all likelihood.
        """
        process = self._processes[container]
        status = process.ended()
        return status, status == KILLED and _out_of_memory() > process.out_of_memory

    def kill(self, container: str) -> None:
        self._processes[container].let_end()

    def remove(self, name: str) -> None:
        """End a process and all that it started, and forget it."""
        with held():
            self._made.pop(name, None)
            if (process := self._processes.pop(name, None)) is not None:
                process.close()


@dataclass(frozen=True, kw_only=True)
class _Made:
    """A step that is laid out."""

    command: Command
    root: Path
    environment: Mapping[str, str]


class _Process:
    """A step's process, by the one that supervises it."""

    def __init__(self, arguments: list[str], made: _Made) -> None:
        before = _out_of_memory()
        self._process = subprocess.Popen(
            arguments,
            bufsize=0,
            cwd=made.root,
            env=dict(made.environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            umask=0o022,
        )
        self.output = _Output(cast("IO[bytes]", self._process.stdout).fileno())
        self.out_of_memory = before

    def status(self) -> int | None:
        return self._process.poll()

    def ended(self) -> int:
        code = self._process.wait()
        return code if code >= 0 else 128 - code

    def let_end(self) -> None:
        """Have it killed with all that it started."""
        with contextlib.suppress(BrokenPipeError):
            cast("IO[bytes]", self._process.stdin).close()

    def close(self) -> None:
        self.let_end()
        try:
            self._process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:  # it was stopped, say; the kernel kills the step with it
            self._process.kill()
            self._process.wait()
        self.output.forget()
        cast("IO[bytes]", self._process.stdout).close()


def _out_of_memory() -> int:
    """How many processes the kernel has ended for want of memory, of a container's limit or the machine's (proc_vmstat(5))."""
    with contextlib.suppress(OSError, ValueError):
        for line in _VMSTAT.read_text(encoding="ascii").splitlines():
            name, _, count = line.partition(" ")
            if name == "oom_kill":
                return int(count)
    return 0


class _Output:
    """What a process prints. Implements `engines.Output`."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._stops, self._stop = os.pipe()

    def __iter__(self) -> Iterator[bytes]:
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        poll.register(self._stops, select.POLLIN)
        while self._stops not in {descriptor for descriptor, _ in poll.poll()}:
            if not (chunk := os.read(self._descriptor, _CHUNK_BYTES)):
                return
            yield chunk

    def close(self) -> None:
        """Have the reading end."""
        os.write(self._stop, b".")

    def forget(self) -> None:
        """Let go of it; nobody reads it any more."""
        os.close(self._stop)
        os.close(self._stops)

"""Steps that share a container, in which each is a process of its own: what all of them import is imported once.

What runs there is docker/steps/together.py, and says what it leaves in the output volume. The container is a run like that of a
single step (container.py), which is looked after as that is, and ends when the last of its steps is let go. A step of it sees the
others' inputs and outputs too; it is the same as it is alone: same command, same inputs by the same paths.
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Self

from bertir.container import FIRST_PAUSE, READY, SECONDS_TO_END, SOME, Command
from bertir.errors import EngineError
from bertir.laying import OUTPUTS, PROGRAMS
from bertir.step_log import LOG_BYTES, Reader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from bertir.container import Finished, Limits, StepRun
    from bertir.failure import End

PROGRAM = f"{PROGRAMS}/together.py"
AT_WORK = 2  # of the steps of a container, at most: the others wait, or have ended
_BETWEEN = "--"
_CHUNK_BYTES = 1 << 16
_SECONDS_BETWEEN_LOOKS = 0.2  # at a log, of which the last line is shown
_STATUS_BYTES = 16
# Of a process that says nothing of how it ended: its container ended first, and by itself.
_UNKNOWN = 1


def together(commands: Sequence[Command], module: str) -> Command:
    """Give the command of a container in which these are run, programs of one Python that all begin with the import of `module`.

    Raises:
        EngineError: two of them want different files in one place.
    """
    inputs: dict[str, Path] = {}
    for command in commands:
        for path, source in command.inputs.items():
            if inputs.setdefault(path, source) != source:
                raise EngineError(f"{path} of {command.name} is another step's, too, and another file")
    first = commands[0]
    return replace(
        first,
        name="+".join(command.name for command in commands),
        arguments=(
            *(first.arguments[0], PROGRAM),
            *(f"--yields={command.name}" for command in commands if command.yields),
            *(module, OUTPUTS),
            *(part for command in commands for part in (_BETWEEN, command.name, *command.arguments[1:])),
        ),
        inputs=inputs,
        outputs=(),
        limits=_limits([command.limits for command in commands]),
        yields=False,
        tell=None,
    )


def _limits(each: Sequence[Limits]) -> Limits:
    """What steps may use that share a container: what they may in containers of their own, of memory as any two of them."""
    memory = sorted(limits.memory_bytes for limits in each)
    return replace(
        each[0],
        memory_bytes=sum(memory[-AT_WORK:]),
        scratch_bytes=sum(limits.scratch_bytes for limits in each),
        pids=sum(limits.pids for limits in each),
        output_bytes=sum(limits.output_bytes for limits in each),
    )


class Together:
    """A container that several steps share.

    Args:
        run: the container, which was started with the command that `together` gave.
        close: ends it.
    """

    def __init__(self, run: StepRun, close: Callable[[], None], commands: Sequence[Command]) -> None:
        self.run = run
        self._close = close
        self._wanted = {command.name: command for command in commands}
        self._at_work: set[str] = set()  # those that have been given their inputs, and not ended since

    def set_to_work(self, name: str, *, at_work: bool) -> None:
        """Say that a step has its inputs, or has ended; the container then gets the processor as the least patient of them does."""
        (self._at_work.add if at_work else self._at_work.discard)(name)
        if self._at_work:
            self.run.let_go_on(yields=all(self._wanted[busy].yields for busy in self._at_work))

    def let_go(self, name: str) -> None:
        """Say that a step isn't wanted any more. With the last one the container is ended."""
        self._at_work.discard(name)
        self._wanted.pop(name, None)
        if not self._wanted:
            self._close()


class PartRun:
    """One step of a container that others share. Like a `StepRun` that waits, but for what ends it: that is `Together.let_go`.

    Args:
        log: a file for what it prints.
    """

    def __init__(self, shared: Together, command: Command, log: Path) -> None:
        self.command = command
        self.container = shared.run
        self._shared = shared
        self._log = log
        self._begun = 0.0
        self._output = _Tail(self.container.volume / f".log-{command.name}")
        self._reader = Reader(self._output, log, command.tell)

    def __enter__(self) -> Self:
        self._log.touch()
        self._reader.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reader.end()

    def give_some(self, inputs: Mapping[str, Path]) -> None:
        """As `StepRun.give_some`."""
        self.container.lay(inputs, f"{READY}-{self.command.name}{SOME.removeprefix(READY)}")

    def give(self, inputs: Mapping[str, Path]) -> None:
        """As `StepRun.give`."""
        self.container.lay(inputs)
        if self._is_over():
            raise EngineError(f"{self.command.name} ended before it had its inputs")
        self._shared.set_to_work(self.command.name, at_work=True)
        self._begun = time.monotonic()
        self.container.lay({}, f"{READY}-{self.command.name}")

    @contextlib.contextmanager
    def finished(self, beside: Sequence[StepRun] = ()) -> Iterator[Finished]:
        """As `StepRun.finished`."""
        end = self._end(beside)
        seconds = time.monotonic() - self._begun
        with self.container.outcome(self.command, end, self._log, seconds) as finished:
            yield finished

    def _end(self, beside: Sequence[StepRun]) -> End:
        stopped = self.container.watched(self.command, self._begun, beside, self._is_over, self._rest)
        self._output.end()
        self._reader.join(SECONDS_TO_END)
        self._reader.end()
        if stopped:
            raise self.container.told(stopped, self.command, self._log)
        status = self._status()
        out_of_memory = False
        if status is None:
            # Whatever became of the container, it says so itself.
            status, out_of_memory = self.container.ending()
            status = status or _UNKNOWN
            self.container.read_out()
            with self._log.open("ab") as log:
                log.write(self.container.log.read_bytes())
        elif status != 0:
            # The build ends with it. Of a container that has ended the engine knows whether memory was short.
            out_of_memory = self.container.end_for(self.command.name)
        else:
            with contextlib.suppress(EngineError):  # told when the next of them is waited for
                self._shared.set_to_work(self.command.name, at_work=False)
        return self.container.end_of(status, out_of_memory=out_of_memory)

    def _is_over(self) -> bool:
        return self._status() is not None or not self.container.is_running()

    def _status(self) -> int | None:
        """The exit status that the container's first process wrote for this one; None if it wrote none."""
        text = b""
        with (
            contextlib.suppress(OSError),
            _opened(self.container.volume / f".ended-{self.command.name}") as file,
        ):
            text = os.read(file, _STATUS_BYTES)
        return int(text) if text.strip().isdigit() else None

    def _rest(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while self._status() is None and (left := until - time.monotonic()) > 0:
            time.sleep(min(FIRST_PAUSE, left))


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    """Open what a step left, if it is a file: no link is followed, which would lead out of its volume, and no pipe waited for.

    Raises:
        OSError: it isn't, or there is none.
    """
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise OSError(f"{path} is no file")
        yield file
    finally:
        os.close(file)


class _Tail:
    """What a process writes into a file, as it grows. Implements `engines.Output`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._ended, self._closed = threading.Event(), threading.Event()

    def __iter__(self) -> Iterator[bytes]:
        at = 0
        while not self._closed.is_set():
            last = self._ended.wait(_SECONDS_BETWEEN_LOOKS)
            with contextlib.suppress(OSError), _opened(self._path) as file:
                os.lseek(file, at, os.SEEK_SET)
                # What is beyond that isn't the log any more.
                while not self._closed.is_set() and at < LOG_BYTES and (chunk := os.read(file, _CHUNK_BYTES)):
                    at += len(chunk)
                    yield chunk
            if last:
                return

    def end(self) -> None:
        """Have the reading end with what the file has by now."""
        self._ended.set()

    def close(self) -> None:
        """Have the reading end."""
        self._closed.set()
        self._ended.set()

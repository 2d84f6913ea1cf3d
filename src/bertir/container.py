"""Run one step, by whatever engine: its limits, its end, and what is left of it afterwards.

A step's container has no network, a read-only root, no capabilities, no way to gain privileges, a user
that isn't root, limits on memory, processes, files and time, its inputs mounted read-only and one writable folder,
`/out`. The engine is asked again and again while a step runs, so that one which has died or hangs is noticed. What the
local engine, which has no containers, keeps of this is in local.py.
"""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

from bertir import emptying
from bertir.digest import Digest
from bertir.errors import EngineError, StepError, StepTimeoutError
from bertir.failure import End, advised, disk_full, failure
from bertir.laying import INPUTS as WAITED
from bertir.laying import lay
from bertir.outputs import taken, usage
from bertir.room import FULL_BYTES, free_bytes
from bertir.surroundings import Surroundings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import TracebackType
    from typing import BinaryIO

    from bertir.engines import Engine, Output

VOLUME = "out"  # the output volume's folder, in the caller's own
INPUTS = "in"  # the folder of inputs that are waited for, beside it; a step sees it as `WAITED`
# A step that waits looks for the first among its inputs, or for the second if it can begin with some (docker/steps/said.py).
READY, SOME = ".ready", ".ready-some"
WAIT = {"BERTIR_READY": f"{WAITED}/{READY}"}
# What a process gives back glibc keeps, and gives it again when it asks for more; else large pieces go to the kernel and come
# back page by page, each of them zeroed. No other C library looks at this.
KEPT_BYTES = 4 << 30
KEEPING_MEMORY = {
    "GLIBC_TUNABLES": f"glibc.malloc.mmap_threshold={KEPT_BYTES}:glibc.malloc.trim_threshold={KEPT_BYTES}"
}
LOG_BYTES = 16 << 20
LINE_BYTES = 4096  # of a longer line its end is told
# The engine is asked how a step is doing at first after the one, in the end each other of these.
FIRST_PAUSE, LONGEST_PAUSE = 0.02, 0.5
# A container that was told to end, and a log that is to end with it, are waited for so long.
SECONDS_TO_END = 20.0


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one step may use. None of it is part of a derivation: it can't change what comes out."""

    memory_bytes: int = 8 << 30
    scratch_bytes: int = 2 << 30
    pids: int = 512
    open_files: int = 4096
    output_bytes: int = 16 << 30
    seconds: float = 3600


@dataclass(frozen=True, kw_only=True)
class Command:
    """One step as the engine sees it.

    Args:
        name: of the step, for messages and labels.
        arguments: the program and its arguments, by paths inside the container.
        inputs: path inside the container -> file on the host, mounted read-only.
        outputs: names of the files that the step must leave in `/out`.
        environment: on top of the image's own.
        surroundings: what should not matter; `invoke check` varies it.
        waits: it is started before its inputs below `/in` are all there.
        idles: until they are, others get the processor first.
        yields: it leaves the processor to others that want it.
        tell: is given each line that it prints, as it comes; called by a thread that reads along.
    """

    name: str
    arguments: Sequence[str]
    inputs: Mapping[str, Path]
    outputs: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    surroundings: Surroundings = field(default_factory=Surroundings)
    waits: bool = False
    idles: bool = False
    yields: bool = False
    tell: Callable[[str], None] | None = None


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A step that ended well: its outputs, opened (regular files, all there), its log, its seconds.

    Args:
        volume: the folder that the outputs lie in.
    """

    outputs: Mapping[str, BinaryIO]
    volume: Path
    log: Path
    seconds: float


class StepRun:
    """One step's container, from its start to its outputs. A context manager: nothing of it is left afterwards.

    A command that waits for its inputs may be started before they are there: its program then imports what it needs, and
    goes on once it is given them.
    """

    def __init__(self, engine: Engine, image: str, command: Command, scratch: Path) -> None:
        self.command = command
        self._engine = engine
        self._image = image
        self._volume = scratch / VOLUME
        self._inputs = scratch / INPUTS
        self._log = scratch / "log"
        # Named before it is made: an interruption while the engine makes it must not lose it.
        self._name = f"bertir-{uuid.uuid4().hex}"
        self._stack = contextlib.ExitStack()
        self._begun = 0.0
        self._stopped: StepError | None = None

    def __enter__(self) -> Self:
        # The container's user is the same everywhere and owns nothing on the host: the volume is open to all,
        # inside a folder that only the invoking user may enter.
        self._volume.mkdir()
        self._volume.chmod(0o777)
        self._log.touch()
        with contextlib.ExitStack() as stack:
            stack.callback(self._engine.empty, self._image, self._volume)
            folders = {}
            if self.command.waits:
                lay(self.command.inputs, WAITED, self._inputs)
                folders = {WAITED: self._inputs}
            self._begun = time.monotonic()
            self._running = stack.enter_context(self._started(folders))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @contextlib.contextmanager
    def _started(self, folders: Mapping[str, Path]) -> Iterator[contextlib.ExitStack]:
        """Start the container and the reading of its log; the stack that is given ends both."""
        with contextlib.ExitStack() as stack:
            stack.callback(self._engine.remove, self._name)
            self._container = self._engine.create(
                self._name, self._image, self.command, self._volume, folders
            )
            self._engine.start(self._container, self.command.name)
            self._reader = _Reader(self._engine.log_of(self._container), self._log, self.command.tell)
            self._reader.start()
            stack.callback(self._reader.end)
            yield stack

    def give_some(self, inputs: Mapping[str, Path]) -> None:
        """Give a command that waits some of the inputs that it lacks: it may begin with them, and has no more of the processor yet.

        Raises:
            OSError: they can't be laid out for it.
        """
        lay(inputs, WAITED, self._inputs)
        (self._inputs / SOME).touch()

    def give(self, inputs: Mapping[str, Path]) -> None:
        """Give a command that waits the inputs that it lacks, and let it go on: its time begins now.

        Raises:
            OSError: they can't be laid out for it.
            EngineError: it has ended, or can't be let go on.
        """
        lay(inputs, WAITED, self._inputs)
        if not self._engine.is_running(self._container):
            raise EngineError(f"{self.command.name} ended before it had its inputs")
        self._engine.let_go_on(self._container, self.command)
        self._begun = time.monotonic()
        (self._inputs / READY).touch()

    @contextlib.contextmanager
    def finished(self, beside: Sequence[StepRun] = ()) -> Iterator[Finished]:
        """Wait for the end, and give the outputs, which last as long as the `with` block.

        Args:
            beside: others that run meanwhile, and are looked after as well: nobody waits for them yet.

        Raises: as `Engine.run`.
        """
        command, limits = self.command, self.command.limits
        end = self._end(beside)
        seconds = time.monotonic() - self._begun
        if end.status != 0:
            raise failure(
                command.name,
                end,
                self._log,
                _kept(self._engine.folder, self._log, command.name),
                memory=limits.memory_bytes if self._engine.limits_memory else 0,
                scratch=limits.scratch_bytes,
            )
        with taken(self._volume, command.outputs, limits.output_bytes, command.name) as outputs:
            yield Finished(outputs=outputs, volume=self._volume, log=self._log, seconds=seconds)

    def look_after(self) -> None:
        """Stop it if it does what it may not; whoever waits for it then is told."""
        limits = self.command.limits
        if self._stopped is None and (fault := _fault_of(self._volume, limits, self._engine.folder)):
            self._stop(StepError(f"{self.command.name}: {fault[0]}; it was stopped", advice=fault[1]))

    def _stop(self, why: StepError) -> None:
        self._stopped = why
        _kill(self._engine, self._container)

    def _end(self, beside: Sequence[StepRun]) -> End:
        # A container that has ended has nothing left that runs (pid_namespaces(7)), and is removed when this run is closed.
        with contextlib.nullcontext() if self._engine.contains else self._running:
            stopped = self._watched(beside)
            # It ends when the container has.
            self._reader.join(SECONDS_TO_END)
            self._reader.end()
            if stopped:
                kept = _kept(self._engine.folder, self._log, self.command.name)
                stopped.advice = advised(stopped.advice, kept)
                raise stopped
            status, out_of_memory = self._engine.ending_of(self._container)
        return End(
            status=status,
            out_of_memory=out_of_memory,
            free=free_bytes(self._volume),
            taken=usage(self._volume, self.command.limits.output_bytes).taken,
            disk=self._engine.folder,
        )

    def _watched(self, beside: Sequence[StepRun]) -> StepError | None:
        """Wait for the container's end; give why it was made to end, if it was."""
        limits = self.command.limits
        until = self._begun + limits.seconds
        pause = FIRST_PAUSE
        while self._stopped is None and self._engine.is_running(self._container):
            if time.monotonic() >= until:
                self._stop(
                    StepTimeoutError(
                        f"{self.command.name}: stopped after {limits.seconds:.0f} s, its time limit"
                    )
                )
                break
            self.look_after()
            for other in beside:
                with contextlib.suppress(EngineError):  # told when somebody waits for it
                    other.look_after()
            # Whoever prints nothing more is likely to end; but it may have closed its output, and go on.
            if self._reader.is_alive():
                self._reader.join(min(pause, max(0.0, until - time.monotonic())))
            else:
                time.sleep(FIRST_PAUSE)
            pause = min(2 * pause, LONGEST_PAUSE)
        return self._stopped


@contextlib.contextmanager
def run_step(engine: Engine, image: str, command: Command, scratch: Path) -> Iterator[Finished]:
    """Run a step to its end and give its outputs, which last as long as the `with` block.

    Raises: as `Engine.run`.
    """
    with StepRun(engine, image, command, scratch) as run, run.finished() as finished:
        yield finished


def _fault_of(volume: Path, limits: Limits, disk: Path) -> tuple[str, str] | None:
    """Say what a step does that it may not, or can't go on with, and what to do about it."""
    found = usage(volume, limits.output_bytes)
    if found.fault:
        return found.fault, ""
    if (free := free_bytes(volume)) < FULL_BYTES:
        return disk_full(disk, taken=found.taken, free=free)
    return None


def _kill(engine: Engine, container: str) -> None:
    engine.kill(container)
    until = time.monotonic() + SECONDS_TO_END
    while engine.is_running(container):
        if time.monotonic() > until:
            raise EngineError(
                f"the engine can't end the container {container}",
                advice="See what it is doing (`docker ps`, `docker top`); bertir's next run removes it.",
            )
        time.sleep(FIRST_PAUSE)


class _Reader(threading.Thread):
    """Copies what a container prints into a file, to its end, up to a size that a disk bears; and tells it line by line."""

    def __init__(self, stream: Output, log: Path, tell: Callable[[str], None] | None) -> None:
        super().__init__(daemon=True)
        self._stream = stream
        self._log = log
        self._tell = tell
        self._begun = b""  # a line whose end hasn't come

    def run(self) -> None:
        # Without a buffer: it would be written when the file is closed, and a full disk be told of there.
        with self._log.open("wb", buffering=0) as file:
            for chunk in self._stream:
                # Read to the end, or the step would wait for a reader.
                with contextlib.suppress(OSError):  # the disk is full: the watch will see that too
                    file.write(chunk[: max(0, LOG_BYTES - file.tell())])
                if self._tell is not None:
                    self._lines(chunk, self._tell)

    def _lines(self, chunk: bytes, tell: Callable[[str], None]) -> None:
        *lines, begun = (self._begun + chunk).splitlines(keepends=True) or [b""]
        if begun.endswith((b"\n", b"\r")):
            lines, begun = [*lines, begun], b""
        self._begun = begun[-LINE_BYTES:]
        for line in lines:
            tell(line[-LINE_BYTES:].decode("utf-8", errors="replace").rstrip())

    def end(self) -> None:
        """End it, if it hasn't ended; the engine may hang."""
        if self.is_alive():
            self._stream.close()
            self.join(1)


def _kept(folder: Path, log: Path, step: str) -> Path | None:
    """Keep a step's log for the user to read; None if it can't be.

    Its digest is in its name: of several builds that fail in the same step none takes away what another told of.
    """
    try:
        kept = folder / "logs" / f"{step}-{Digest.of_file(log).short}.log"
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(log.read_bytes())
    except OSError:  # a full disk, say, which is told already
        return None
    return kept


def empty(engine: Engine, image: str, volume: Path) -> None:
    """Empty an output volume, whoever owns what is in it: the caller must be able to remove the folder around it."""
    if emptying.emptied(str(volume)):
        return
    # The step's user made folders that this one, who isn't root, may not change. (An attempt to, in the sweep of a
    # store, has closed the volume itself to others.)
    with contextlib.suppress(OSError):
        volume.chmod(0o777)
    command = Command(
        name="empty",
        arguments=("/usr/bin/python3", "-c", Path(emptying.__file__).read_text(encoding="utf-8"), "/out"),
        inputs={},
        outputs=(),
    )
    name = f"bertir-{uuid.uuid4().hex}"
    until = time.monotonic() + emptying.MOST_SECONDS
    with contextlib.suppress(
        EngineError
    ):  # the engine has died, and is told of; the next run clears this away
        try:
            container = engine.create(name, image, command, volume, {})
            engine.start(container, command.name)
            while engine.is_running(container) and time.monotonic() < until:
                time.sleep(FIRST_PAUSE)
        finally:
            engine.remove(name)
    emptying.emptied(str(volume))

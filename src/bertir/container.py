"""Run one step, by whatever engine: its limits, its end, and what is left of it afterwards.

A step's container has no network, a read-only root, no capabilities, no way to gain privileges, a user
that isn't root, limits on memory, processes, files and time, its inputs mounted read-only and one writable folder,
`/out`. The engine is asked again and again while a step runs, so that one which has died or hangs is noticed. What the
local engine, which has no containers, keeps of this is in local.py.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from bertir import emptying
from bertir.errors import EngineError, StepError, StepTimeoutError
from bertir.failure import End, advised, disk_full, failure
from bertir.laying import INPUTS as WAITED
from bertir.laying import lay
from bertir.outputs import taken, usage
from bertir.room import FULL_BYTES, free_bytes
from bertir.step_log import Reader, kept
from bertir.surroundings import Surroundings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import TracebackType
    from typing import BinaryIO

    from bertir.engines import Engine

VOLUME = "out"  # the output volume's folder, in the caller's own
INPUTS = "in"  # the folder of inputs that are waited for, beside it; a step sees it as `WAITED`
# A step that waits looks for the first among its inputs, or for the second if it can begin with some (docker/steps/said.py).
READY, SOME = ".ready", ".ready-some"
WAIT = {"BERTIR_READY": f"{WAITED}/{READY}"}
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
        self.volume = scratch / VOLUME
        self.log = scratch / "log"
        self._inputs = scratch / INPUTS
        self._given: dict[str, tuple[Path, int, int]] = {}
        self._yields: bool | None = None if command.idles else command.yields
        # Named before it is made: an interruption while the engine makes it must not lose it.
        self._name = f"bertir-{uuid.uuid4().hex}"
        self._stack = contextlib.ExitStack()
        self._begun = 0.0
        self._stopped: StepError | None = None

    @property
    def container(self) -> Self:
        """What is looked after: this one, which is a container."""
        return self

    def __enter__(self) -> Self:
        # The container's user is the same everywhere and owns nothing on the host: the volume is open to all,
        # inside a folder that only the invoking user may enter.
        self.volume.mkdir()
        self.volume.chmod(0o777)
        self.log.touch()
        with contextlib.ExitStack() as stack:
            stack.callback(self._engine.empty, self._image, self.volume)
            folders = {}
            if self.command.waits:
                self.lay(self.command.inputs)
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
            self._container = self._engine.create(self._name, self._image, self.command, self.volume, folders)
            self._engine.start(self._container, self.command.name)
            self._reader = Reader(self._engine.log_of(self._container), self.log, self.command.tell)
            self._reader.start()
            stack.callback(self._reader.end)
            yield stack

    def lay(self, inputs: Mapping[str, Path], sign: str = "") -> None:
        """Lay out inputs for a command that waits for them, and in the end the file that it waits for, if one is named.

        What lies there already is seen to be the same file still: in the store it may have been found damaged, and made anew.

        Raises:
            OSError: they can't be; or another one is there.
            EngineError: it was started with another one.
        """
        given = {path: (source, *_identity(source)) for path, source in inputs.items()}
        new = {path: source for path, source in inputs.items() if self._given.get(path) != given[path]}
        if stale := [path for path in new if path in self._given and not path.startswith(f"{WAITED}/")]:
            raise EngineError(f"{self.command.name} was started with another {stale[0]}")
        lay(new, WAITED, self._inputs)
        self._given |= given
        if sign:
            (self._inputs / sign).touch()

    def give_some(self, inputs: Mapping[str, Path]) -> None:
        """Give a command that waits some of the inputs that it lacks: it may begin with them, and has no more of the processor yet.

        Raises:
            OSError: they can't be laid out for it.
        """
        self.lay(inputs, SOME)

    def give(self, inputs: Mapping[str, Path]) -> None:
        """Give a command that waits the inputs that it lacks, and let it go on: its time begins now.

        Raises:
            OSError: they can't be laid out for it.
            EngineError: it has ended, or can't be let go on.
        """
        self.lay(inputs)
        if not self.is_running():
            raise EngineError(f"{self.command.name} ended before it had its inputs")
        self.let_go_on(yields=self.command.yields)
        self._begun = time.monotonic()
        (self._inputs / READY).touch()

    # what a step that shares a container asks of it, too (together.py)

    def is_running(self) -> bool:
        return self._engine.is_running(self._container)

    def let_go_on(self, *, yields: bool) -> None:
        """Give the container its part of the processor, or the smaller one of a step that yields, unless it has it."""
        if self._yields != yields:
            self._engine.let_go_on(self._container, replace(self.command, yields=yields))
            self._yields = yields

    def read_out(self) -> None:
        """Have in the log all that a container which has ended printed."""
        self._reader.join(SECONDS_TO_END)
        self._reader.end()

    def end_for(self, name: str) -> bool:
        """End the container as one of its steps has failed; say whether the kernel ended a process there for want of memory."""
        if self._stopped is None:
            self._stop(StepError(f"{self.command.name}: it was stopped, as {name} has failed"))
        return self.ending()[1]

    @contextlib.contextmanager
    def finished(self, beside: Sequence[StepRun] = ()) -> Iterator[Finished]:
        """Wait for the end, and give the outputs, which last as long as the `with` block.

        Args:
            beside: others that run meanwhile, and are looked after as well: nobody waits for them yet.

        Raises: as `Engine.run`.
        """
        end = self._end(beside)
        with self.outcome(self.command, end, self.log, time.monotonic() - self._begun) as finished:
            yield finished

    @contextlib.contextmanager
    def outcome(self, command: Command, end: End, log: Path, seconds: float) -> Iterator[Finished]:
        """Give the outputs of a command that ended well, or raise how it ended."""
        limits = self.command.limits
        if end.status != 0:
            raise failure(
                command.name,
                end,
                log,
                kept(self._engine.folder, log, command.name),
                memory=limits.memory_bytes if self._engine.limits_memory else 0,
                scratch=limits.scratch_bytes,
            )
        with taken(self.volume, command.outputs, limits.output_bytes, command.name) as outputs:
            yield Finished(outputs=outputs, volume=self.volume, log=log, seconds=seconds)

    def look_after(self) -> None:
        """Stop it if it does what it may not; whoever waits for it then is told."""
        limits = self.command.limits
        if self._stopped is None and (fault := _fault_of(self.volume, limits, self._engine.folder)):
            self._stop(StepError(f"{self.command.name}: {fault[0]}; it was stopped", advice=fault[1]))

    def _stop(self, why: StepError) -> None:
        self._stopped = why
        _kill(self._engine, self._container)

    def _end(self, beside: Sequence[StepRun]) -> End:
        # A container that has ended has nothing left that runs (pid_namespaces(7)), and is removed when this run is closed.
        with contextlib.nullcontext() if self._engine.contains else self._running:
            stopped = self.watched(
                self.command, self._begun, beside, lambda: not self.is_running(), self._rest
            )
            self.read_out()
            if stopped:
                raise self.told(stopped, self.command, self.log)
            status, out_of_memory = self.ending()
        return self.end_of(status, out_of_memory=out_of_memory)

    def told(self, stopped: StepError, command: Command, log: Path) -> StepError:
        """Give why a command was stopped, with where its log is."""
        return type(stopped)(
            str(stopped), advice=advised(stopped.advice, kept(self._engine.folder, log, command.name))
        )

    def ending(self) -> tuple[int, bool]:
        """Give the status of a container that has ended, and whether the kernel ended a process of it for want of memory."""
        return self._engine.ending_of(self._container)

    def end_of(self, status: int, *, out_of_memory: bool) -> End:
        return End(
            status=status,
            out_of_memory=out_of_memory,
            free=free_bytes(self.volume),
            taken=usage(self.volume, self.command.limits.output_bytes).taken,
            disk=self._engine.folder,
        )

    def watched(
        self,
        command: Command,
        begun: float,
        beside: Sequence[StepRun],
        is_over: Callable[[], bool],
        rest: Callable[[float], None],
    ) -> StepError | None:
        """Wait until a command is over; give why it was made to end, if it was.

        Args:
            command: the command.
            begun: when it had its inputs.
            beside: as in `finished`.
            is_over: whether it is.
            rest: waits so many seconds, or until it is likely to be over.
        """
        until = begun + command.limits.seconds
        pause = FIRST_PAUSE
        while self._stopped is None and not is_over():
            if time.monotonic() >= until:
                self._stop(
                    StepTimeoutError(
                        f"{command.name}: stopped after {command.limits.seconds:.0f} s, its time limit"
                    )
                )
                break
            self.look_after()
            for other in beside:
                with contextlib.suppress(EngineError):  # told when somebody waits for it
                    other.look_after()
            rest(min(pause, max(0.0, until - time.monotonic())))
            pause = min(2 * pause, LONGEST_PAUSE)
        return self._stopped

    def _rest(self, seconds: float) -> None:
        # Whoever prints nothing more is likely to end; but it may have closed its output, and go on.
        if self._reader.is_alive():
            self._reader.join(seconds)
        else:
            time.sleep(FIRST_PAUSE)


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


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

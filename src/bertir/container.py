"""Run one step in a container: its limits, its end, and what is left of it afterwards.

A step's container has no network, a read-only root, no capabilities, no way to gain privileges, a user
that isn't root, limits on memory, processes, files and time, its inputs mounted read-only and one writable folder,
`/out`. The engine is asked again and again while a step runs, so that one which has died or hangs is noticed.
"""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bertir import emptying
from bertir.digest import Digest
from bertir.errors import EngineError, StepError, StepTimeoutError
from bertir.failure import End, advised, disk_full, failure
from bertir.outputs import taken, usage
from bertir.room import FULL_BYTES, free_bytes
from bertir.surroundings import Surroundings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import BinaryIO

    from bertir.engine import Engine, LogStream

VOLUME = "out"  # the output volume's folder, in the caller's own
LOG_BYTES = 16 << 20
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
    """

    name: str
    arguments: Sequence[str]
    inputs: Mapping[str, Path]
    outputs: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    surroundings: Surroundings = field(default_factory=Surroundings)


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A step that ended well: its outputs, opened (regular files, all there), its log, its seconds."""

    outputs: Mapping[str, BinaryIO]
    log: Path
    seconds: float


@contextlib.contextmanager
def run_step(engine: Engine, image: str, command: Command, scratch: Path) -> Iterator[Finished]:
    """Run a step to its end and give its outputs, which last as long as the `with` block.

    Raises: as `Engine.run`.
    """
    # The container's user is the same everywhere and owns nothing on the host: the volume is open to all,
    # inside a folder that only the invoking user may enter.
    volume = scratch / VOLUME
    volume.mkdir()
    volume.chmod(0o777)
    log = scratch / "log"
    log.touch()
    try:
        begun = time.monotonic()
        end = _end_of(engine, image, command, volume, log)
        seconds = time.monotonic() - begun
        limits = command.limits
        if end.status != 0:
            raise failure(
                command.name,
                end,
                log,
                _kept(engine.folder, log, command.name),
                memory=limits.memory_bytes,
                scratch=limits.scratch_bytes,
            )
        with taken(volume, command.outputs, limits.output_bytes, command.name) as outputs:
            yield Finished(outputs=outputs, log=log, seconds=seconds)
    finally:
        empty(engine, image, volume)


def _end_of(engine: Engine, image: str, command: Command, volume: Path, log: Path) -> End:
    # Named before it is made: an interruption while the engine makes it must not lose it.
    name = f"bertir-{uuid.uuid4().hex}"
    try:
        container = engine.create(name, image, command, volume)
        engine.start(container, command.name)
        reader = _Reader(engine.log_of(container), log)
        reader.start()
        try:
            stopped = _watched(engine, container, command, volume, reader)
            # It ends when the container has.
            reader.join(SECONDS_TO_END)
        finally:
            reader.end()
        if stopped:
            stopped.advice = advised(stopped.advice, _kept(engine.folder, log, command.name))
            raise stopped
        status, out_of_memory = engine.ending_of(container)
    finally:
        engine.remove(name)
    return End(
        status=status,
        out_of_memory=out_of_memory,
        free=free_bytes(volume),
        taken=usage(volume, command.limits.output_bytes).taken,
        disk=engine.folder,
    )


def _watched(
    engine: Engine, container: str, command: Command, volume: Path, reader: _Reader
) -> StepError | None:
    """Wait for a container's end; give why it was made to end, if it was."""
    limits = command.limits
    until = time.monotonic() + limits.seconds
    pause = FIRST_PAUSE
    while engine.is_running(container):
        stop: StepError | None = None
        if time.monotonic() >= until:
            stop = StepTimeoutError(f"{command.name}: stopped after {limits.seconds:.0f} s, its time limit")
        elif fault := _fault_of(volume, limits, engine.folder):
            stop = StepError(f"{command.name}: {fault[0]}; it was stopped", advice=fault[1])
        if stop is not None:
            _kill(engine, container)
            return stop
        # Whoever prints nothing more is likely to end; but it may have closed its output, and go on.
        if reader.is_alive():
            reader.join(min(pause, max(0.0, until - time.monotonic())))
        else:
            time.sleep(FIRST_PAUSE)
        pause = min(2 * pause, LONGEST_PAUSE)
    return None


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
    """Copies what a container prints into a file, to its end, up to a size that a disk bears."""

    def __init__(self, stream: LogStream, log: Path) -> None:
        super().__init__(daemon=True)
        self._stream = stream
        self._log = log

    def run(self) -> None:
        # Without a buffer: it would be written when the file is closed, and a full disk be told of there.
        with self._log.open("wb", buffering=0) as file:
            for chunk in self._stream:
                # Read to the end, or the step would wait for a reader.
                with contextlib.suppress(OSError):  # the disk is full: the watch will see that too
                    file.write(chunk[: max(0, LOG_BYTES - file.tell())])

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
            container = engine.create(name, image, command, volume)
            engine.start(container, command.name)
            while engine.is_running(container) and time.monotonic() < until:
                time.sleep(FIRST_PAUSE)
        finally:
            engine.remove(name)
    emptying.emptied(str(volume))

"""Runs steps by an engine: one after another, beside one another, and started ahead of their inputs.

What is started ahead imports what it needs while another step runs, and waits. A step is the same however it was started;
whatever is amiss with one that waits, the step is started as any other.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from bertir.container_step import PENDING
from bertir.derivation import Outcome
from bertir.digest import read_chunks
from bertir.errors import EngineError, NoRoomError
from bertir.frozen import dataclass
from bertir.interruption import held
from bertir.store import Artifact

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import BinaryIO

    from bertir.container import Command, Finished, StepRun
    from bertir.container_step import ContainerStep
    from bertir.engines import Engine
    from bertir.progress import Progress
    from bertir.store import Blob, Store
    from bertir.surroundings import Surroundings
    from bertir.together import PartRun

# What a step that was to save time may end in without any harm: it is run as any other, and says then what is amiss.
AMISS = (EngineError, NoRoomError, OSError)


@dataclass(frozen=True, kw_only=True)
class Running:
    """A step that was started.

    Args:
        step: of one that was started ahead, some inputs are `PENDING`.
        linked: its inputs, of which there may be links in its folder.
        started: when it had its inputs.
        ends: what ends it, whatever became of it.
    """

    step: ContainerStep
    run: StepRun | PartRun
    linked: list[Blob]
    started: datetime
    ends: contextlib.ExitStack


class Runner:
    """The running steps of one build. When it is closed none is left.

    Args:
        engine: gives the engine; called only when a step is to be started.
        progress: is told what the steps print.
    """

    def __init__(
        self, store: Store, surroundings: Surroundings, engine: Callable[[], Engine], progress: Progress
    ) -> None:
        self._store = store
        self._progress = progress
        self._surroundings = surroundings
        self._engine = engine
        self._ahead: dict[str, Running] = {}  # by name, until their inputs are there
        self._started: list[StepRun] = []
        self._ended: list[contextlib.ExitStack] = []  # what is left of steps that ended well
        self._stack = contextlib.ExitStack()
        self._stack.callback(self._clear_away)

    def close(self) -> None:
        self._stack.close()

    def _clear_away(self) -> None:
        """Remove what is left of steps that ended well."""
        with contextlib.ExitStack() as stack:
            for ends in self._ended:
                stack.callback(ends.close)
            self._ended.clear()

    def start(self, step: ContainerStep, image: str) -> Running:
        """Give a step that runs: one that was started ahead, and now has its inputs, or another.

        Raises:
            EngineError: it can't be started.
        """
        waiting = self._ahead.pop(step.name, None)
        if waiting is None:
            return self._start(step, image)
        with contextlib.ExitStack() as stack:
            stack.callback(waiting.ends.close)
            if waiting.step.is_ahead_of(step):
                missing = {
                    path: blob for path, blob in step.inputs.items() if waiting.step.inputs[path] is PENDING
                }
                # All of them: what it was started with has been lying there for as long as the step before it took.
                paths = self._checked(step.inputs)
                # Of an engine that can't do this, or has ended it, the step is run as any other.
                with contextlib.suppress(*AMISS):
                    waiting.linked.extend(missing.values())
                    with self._store.linking(missing.values()):
                        waiting.run.give(paths)
                    stack.pop_all()
                    return replace(waiting, step=step, started=datetime.now(UTC))
        return self._start(step, image)

    def start_ahead(self, steps: Iterable[ContainerStep], image: str) -> None:
        """Start steps that some step before them will give their inputs to, unless they were started already.

        Those that begin with the same import share a container, in which it is done once. One that can't be started is run as
        any other when it has its inputs, and says then what is amiss.
        """
        sharing: dict[str, list[ContainerStep]] = {}
        for step in steps:
            if step.name not in self._ahead:
                # By what it imports; or by its name, if it shares nothing.
                sharing.setdefault(step.imports or f"/{step.name}", []).append(step)
        for alike in sharing.values():
            with contextlib.suppress(*AMISS):
                if len(alike) > 1:
                    self._start_together(alike, image)
                else:
                    self._ahead[alike[0].name] = self._start(alike[0], image, waits=True)

    def give_ahead(self, steps: Iterable[ContainerStep]) -> None:
        """Give steps that were started ahead those of their inputs that are there by now; some are `PENDING` still.

        One that can't be given them is run as any other when it has all, and says then what is amiss.

        Raises:
            LostObjectError: one of these is damaged, in the store.
        """
        if self._ahead:
            for step in steps:
                self._give_some(step)

    def _give_some(self, step: ContainerStep) -> None:
        waiting = self._ahead.get(step.name)
        if waiting is None or not waiting.step.is_ahead_of(step):
            return
        there = {
            path: blob
            for path, blob in step.inputs.items()
            if waiting.step.inputs[path] is PENDING and blob is not PENDING
        }
        del self._ahead[step.name]
        with contextlib.ExitStack() as stack:
            stack.callback(waiting.ends.close)
            paths = self._checked(there)
            with contextlib.suppress(*AMISS):
                waiting.linked.extend(there.values())
                with self._store.linking(there.values()):
                    waiting.run.give_some(paths)
                stack.pop_all()
                self._ahead[step.name] = replace(waiting, step=step)

    def _start(self, step: ContainerStep, image: str, *, waits: bool = False) -> Running:
        command = self._command(step, waits=waits)
        with contextlib.ExitStack() as stack:
            run, _, linked = stack.enter_context(self._container([step], command, image))
            ends = stack.pop_all()
            self._stack.callback(ends.close)
            return Running(step=step, run=run, linked=linked, started=datetime.now(UTC), ends=ends)

    def _start_together(self, steps: Sequence[ContainerStep], image: str) -> None:
        """Start steps ahead, in one container."""
        from bertir.together import PartRun, Together, together

        commands = [self._command(step, waits=True) for step in steps]
        with contextlib.ExitStack() as stack:
            run, scratch, linked = stack.enter_context(
                self._container(steps, together(commands, steps[0].imports), image)
            )
            ends = stack.pop_all()
            self._stack.callback(ends.close)
        shared = Together(run, ends.close, commands)
        each = {step.name: contextlib.ExitStack() for step in steps}
        for name, parts_end in each.items():  # each of them first: the container ends with the last
            parts_end.callback(shared.let_go, name)
            self._stack.callback(parts_end.close)
        with contextlib.ExitStack() as stack:  # of none that can't be told of is any taken
            for parts_end in each.values():
                stack.callback(parts_end.close)
            parts = [
                each[step.name].enter_context(PartRun(shared, command, scratch / f"log-{step.name}"))
                for step, command in zip(steps, commands, strict=True)
            ]
            stack.pop_all()
        started = datetime.now(UTC)
        for step, part in zip(steps, parts, strict=True):
            self._ahead[step.name] = Running(
                step=step, run=part, linked=linked, started=started, ends=each[step.name]
            )

    @contextlib.contextmanager
    def _container(
        self, steps: Iterable[ContainerStep], command: Command, image: str
    ) -> Iterator[tuple[StepRun, Path, list[Blob]]]:
        """Run a container for steps, in a folder of links to their inputs: the container, the folder, and what is linked there."""
        with contextlib.ExitStack() as stack:
            scratch, linked = stack.enter_context(self._store.folder_of_links())
            linked += {blob for step in steps for blob in step.inputs.values() if blob is not PENDING}
            with self._store.linking(linked):
                run = stack.enter_context(self._engine().begin(image, command, scratch))
            self._started.append(run)
            stack.callback(self._started.remove, run)
            yield run, scratch, linked

    def _command(self, step: ContainerStep, *, waits: bool) -> Command:
        from bertir.container import Command

        return Command(
            name=step.name,
            arguments=step.arguments,
            inputs=self._checked(step.inputs),
            outputs=step.outputs,
            surroundings=self._surroundings,
            waits=waits,
            idles=waits and bool(self._started),  # the first of all is what everything waits for
            yields=step.yields,
            tell=partial(self._progress.log, step.name),
        )

    def _checked(self, inputs: Mapping[str, Blob]) -> dict[str, Path]:
        """Give where the inputs are that are there, once their bytes were read."""
        return {
            path: self._store.checked(blob, what=path) for path, blob in inputs.items() if blob is not PENDING
        }

    def finish(self, running: Running) -> Outcome:
        """Wait for a step's end, and store what it gave.

        Its container is removed while the next step is waited for: to do it at once takes a quarter of a second, in which
        nothing runs.
        """
        self._clear_away()
        step = running.step
        beside = [run for run in self._started if run is not running.run.container]
        with running.run.finished(beside) as finished:
            files = {
                name: self._stored(finished, name, file, f"{name} of {step.name}")
                for name, file in finished.outputs.items()
            }
            log = self._store.add_file(finished.log)
        facts = {
            "seconds": round(finished.seconds, 3),
            "started": running.started.isoformat(timespec="seconds"),
            "bytes_in": sum(blob.size for blob in step.inputs.values()),
            "engine": self._engine().facts().to_json(),
            "log": str(log.digest),
        }
        with held():  # one that is nowhere would be left
            self._ended.append(running.ends.pop_all())
        return Outcome(artifact=Artifact(files=files), facts=facts)

    def _stored(self, finished: Finished, name: str, file: BinaryIO, what: str) -> Blob:
        """Store an output: it is moved, if what wrote it can't write it any more.

        To be this user's own is no help where the step's user is the same.
        """
        if self._engine().contains and os.geteuid() == 0:
            return self._store.take(finished.volume / name, file, what=what)
        blob = self._store.add(read_chunks(file), what=what)
        with contextlib.suppress(OSError):  # it is there twice now, and its container may go on
            (finished.volume / name).unlink()
        return blob

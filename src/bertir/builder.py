"""A builder: the store, the fetcher and the engine that a build uses, and how it runs a step with them.

Nothing is opened before it is needed: a build with nothing to do asks no engine.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

from bertir import __version__, emptying
from bertir.derivation import MOMENT, Derivation, Outcome, Realised, realise
from bertir.digest import Digest, read_chunks, tree_digest
from bertir.errors import BertirError, EngineError
from bertir.estimate import require_room_for_image
from bertir.intent import load_intent
from bertir.lock import load_image_lock
from bertir.model import load_models
from bertir.store import Artifact, Blob
from bertir.surroundings import Surroundings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from types import TracebackType

    from bertir.container import StepRun
    from bertir.engine import Engine
    from bertir.fetch import Fetcher
    from bertir.image import Image
    from bertir.intent import ImageIntent
    from bertir.lock import DebianPackage, ImageLock, WheelPin
    from bertir.materials import Pins
    from bertir.model import Model
    from bertir.progress import Progress
    from bertir.store import Store


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where the files of the project lie."""

    root: Path
    models: Path

    @property
    def docker(self) -> Path:
        return self.root / "docker"

    @property
    def steps(self) -> Path:
        return self.docker / "steps"

    @property
    def task_data(self) -> Path:
        return self.root / "task_data.toml"

    @property
    def patches(self) -> Path:
        return self.root / "patches"


# In the place of an input that an earlier step gives, and hasn't given yet.
PENDING = Blob(digest=Digest("0" * 64), size=0)


@dataclass(frozen=True, kw_only=True)
class ContainerStep:
    """A step that runs in the container, as data: its derivation and its command both follow from it.

    Args:
        arguments: the program and its arguments, by paths inside the container.
        inputs: path inside the container -> stored file, mounted there read-only.
        outputs: what the step must leave in `/out`.
    """

    name: str
    version: int = 1
    arguments: Sequence[str]
    inputs: Mapping[str, Blob]
    outputs: Sequence[str]

    def derivation(self, image: Digest) -> Derivation:
        return Derivation(
            step=self.name,
            version=self.version,
            image=image,
            parameters={"arguments": list(self.arguments), "outputs": sorted(self.outputs)},
            inputs={path: blob.digest for path, blob in self.inputs.items()},
        )

    def is_ahead_of(self, step: ContainerStep) -> bool:
        """Whether this is that step, with some inputs that aren't there yet."""
        return (self.name, self.version, self.arguments, self.outputs, self.inputs.keys()) == (
            step.name,
            step.version,
            step.arguments,
            step.outputs,
            step.inputs.keys(),
        ) and all(blob in (PENDING, step.inputs[path]) for path, blob in self.inputs.items())


@dataclass(frozen=True, kw_only=True)
class Running:
    """A step whose container was started.

    Args:
        step: of one that was started ahead, some inputs are `PENDING`.
        started: when it had its inputs.
        ends: what ends it, whatever became of it.
    """

    step: ContainerStep
    run: StepRun
    started: datetime
    ends: contextlib.ExitStack


class Builder:
    """Realises steps. A context manager: it closes the engine's connection, if it had to open one.

    While it is open, `invoke gc` takes nothing that it uses.
    """

    def __init__(
        self,
        *,
        layout: Layout,
        store: Store,
        fetcher: Fetcher,
        environment: Mapping[str, str],
        progress: Progress,
        surroundings: Surroundings | None = None,
    ) -> None:
        self.surroundings = surroundings or Surroundings()
        self.layout = layout
        self.store = store
        self.fetcher = fetcher
        self.progress = progress
        self.realised: list[Realised] = []
        self.environment = environment
        self._stack = contextlib.ExitStack()
        self._ahead: dict[str, Running] = {}  # by name, until their inputs are there
        self._begun: dict[Digest, Running] = {}  # by key, until they are waited for

    def __enter__(self) -> Self:
        self._stack.enter_context(self.store.in_use())
        self.reap()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @cached_property
    def intent(self) -> ImageIntent:
        return load_intent(self.layout.docker)

    @cached_property
    def lock(self) -> ImageLock:
        """The image's lock, seen to be true to itself: its layers make the ID that it says."""
        from bertir.image import locked_image

        lock = load_image_lock(self.layout.docker, self.intent)
        locked_image(self.intent, lock)
        return lock

    @cached_property
    def models(self) -> Mapping[str, Model]:
        return load_models(self.layout.models)

    @cached_property
    def pins(self) -> Pins:
        """Every pin of the models and the source, read once: a hundred builds may share a builder."""
        from bertir.materials import load_pins

        return load_pins(self)

    @cached_property
    def code(self) -> Mapping[str, str]:
        """The version of this bertir, one digest over its own modules, and its commit if it runs as committed."""
        from bertir.checkout import committed

        folder = Path(__file__).parent
        modules = {path.name: Digest.of_file(path) for path in folder.glob("*.py")}
        facts = {"version": __version__, "digest": str(tree_digest(modules))}
        return facts | ({"commit": commit} if (commit := committed(self.layout.root)) else {})

    @cached_property
    def engine(self) -> Engine:
        from bertir.engine import connect

        engine = self._stack.enter_context(connect(self.environment, folder=self.store.root))
        engine.require_architecture(self.intent.architecture)
        if removed := engine.remove_abandoned(self.store.is_abandoned):
            self.progress.say("engine", f"removed {removed} containers of builds that were killed")
        if engine.not_limited:
            what = ", ".join(engine.not_limited)
            self.progress.say(
                "engine", f"it can't limit this here, and steps run without such a limit: {what}"
            )
        return engine

    def reap(self) -> None:
        """Remove what killed builds left: their containers first, as one that runs on may still write to its volume."""
        if self.store.abandoned():
            # Without an engine none of its containers runs, or none can be asked; a lock may be what is to be made anew.
            with contextlib.suppress(BertirError):
                image = self.engine.find_image((self.lock.image_id, self.lock.manifest))
                if image is not None:
                    self._clear_leftovers(image)
        self.store.sweep()

    # steps

    def realise(
        self, derivation: Derivation, run: Callable[[], Outcome], *, locked: bool = False
    ) -> Realised:
        """Realise a step on the host, telling the user whether it ran.

        The record says when it ran, and by which bertir: provenance tells it long after.

        Args:
            derivation: the step.
            run: what runs it.
            locked: whether this builder holds the step's lock already.
        """

        def recorded() -> Outcome:
            self.store.hints.confirm()
            started, begun = datetime.now(UTC), time.monotonic()
            outcome = run()
            circumstances = {
                "bertir": dict(self.code),
                "started": started.isoformat(timespec="seconds"),
                "finished": datetime.now(UTC).isoformat(timespec="seconds"),
                "seconds": round(time.monotonic() - begun, 3),
                "bytes_out": outcome.artifact.size,
            }
            return replace(outcome, facts=circumstances | dict(outcome.facts))

        def waiting() -> None:
            self.progress.say(derivation.step, "waiting for another process that runs this step")

        result = realise(self.store, derivation, recorded, waiting, locked=locked)
        if result.cached:
            self.progress.say(derivation.step, "nothing to do, in the store")
        else:
            seconds = result.facts["seconds"]
            self.progress.say(
                derivation.step, f"done in {seconds:.1f} s, {result.artifact.size / 1e6:.1f} MB"
            )
        self.realised.append(result)
        return result

    def run(self, step: ContainerStep, ahead: Sequence[ContainerStep] = ()) -> Realised:
        """Realise a step in the container.

        Args:
            step: the step.
            ahead: steps that follow, of which some inputs are `PENDING`. While this one runs, their programs are started
                and import what they need; they wait until `run` or `begin` has their inputs.

        Raises:
            StepError, EngineError: see `Engine.run`.
        """
        derivation = step.derivation(self.lock.image_id)
        begun = self._begun.pop(derivation.key, None)
        if begun is None:
            return self.realise(derivation, lambda: self._run(step, self.load_image, ahead))
        with begun.ends:
            return self.realise(derivation, lambda: self._outcome(begun), locked=True)

    def begin(self, step: ContainerStep) -> None:
        """Start a step that `run` is called for later, and don't wait for it; unless it is in the store, or somebody runs it."""
        derivation = step.derivation(self.lock.image_id)
        if self.store.load_record(derivation.step, derivation.key) is not None:
            return
        with contextlib.ExitStack() as stack:
            if not stack.enter_context(self.store.lock_if_free(derivation.lock)):
                return
            if self.store.load_record(derivation.step, derivation.key) is not None:
                return  # somebody else ran it a moment ago
            self.store.hints.confirm()
            from bertir.engine import ImageGoneError

            with contextlib.suppress(ImageGoneError):  # `run` will load it
                begun = self._started(step, self.load_image())
                self.progress.say(step.name, "running in the container, beside the next")
                ends = stack.pop_all()
                ends.callback(begun.ends.close)
                self._begun[derivation.key] = replace(begun, ends=ends)
                self._stack.callback(ends.close)

    def _run(
        self, step: ContainerStep, image: Callable[[], str], ahead: Sequence[ContainerStep] = ()
    ) -> Outcome:
        """Run a step in the image that `image` gives the ID of, loading it if need be; it is asked again if it went."""
        from bertir.engine import ImageGoneError

        try:
            return self._run_in(step, image(), ahead)
        except ImageGoneError:
            self.progress.say("image", "somebody removed it from the engine")
            return self._run_in(step, image(), ahead)

    def _clear_leftovers(self, image: str) -> None:
        """Remove what killed builds left that this user may not: folders that a step's user made."""
        from bertir.container import VOLUME, empty

        for folder in self.store.abandoned():
            if (folder / VOLUME).is_dir():
                empty(self.engine, image, folder / VOLUME)
                emptying.removed(folder)

    def _run_in(self, step: ContainerStep, image: str, ahead: Sequence[ContainerStep]) -> Outcome:
        self._clear_leftovers(image)
        running = self._started(step, image)
        with running.ends:
            self.progress.say(step.name, "running in the container")
            for later in ahead:
                self._start_ahead(later, image)
            return self._outcome(running)

    def start_ahead(self, steps: Iterable[ContainerStep]) -> None:
        """Start steps that are to run in any case, before their inputs are there; if the image is loaded and the engine does it."""
        with contextlib.suppress(EngineError):
            image = self.engine.find_image((self.lock.image_id, self.lock.manifest))
            if image is not None:
                for step in steps:
                    self._start_ahead(step, image)

    def _start_ahead(self, step: ContainerStep, image: str) -> None:
        """Start a step that some step before it will give its inputs to, unless it was started already."""
        if step.name not in self._ahead:
            waiting = self._start(step, image, waits=True)
            self._ahead[step.name] = waiting
            self._stack.callback(waiting.ends.close)

    def _started(self, step: ContainerStep, image: str) -> Running:
        """Give a step that runs: one that was started ahead, and now has its inputs, or another."""
        waiting = self._ahead.pop(step.name, None)
        if waiting is None:
            return self._start(step, image)
        with contextlib.ExitStack() as stack:
            stack.callback(waiting.ends.close)
            if waiting.step.is_ahead_of(step):
                missing = {
                    path: blob for path, blob in step.inputs.items() if waiting.step.inputs[path] is PENDING
                }
                # Of an engine that can't do this, or has ended it, the step is run as any other.
                with contextlib.suppress(EngineError):
                    paths = self._checked(missing)
                    with self.store.linking(missing.values()):
                        waiting.run.give(paths)
                    stack.pop_all()
                    return replace(waiting, step=step, started=datetime.now(UTC))
        return self._start(step, image)

    def _start(self, step: ContainerStep, image: str, *, waits: bool = False) -> Running:
        from bertir.container import Command

        command = Command(
            name=step.name,
            arguments=step.arguments,
            inputs=self._checked(step.inputs),
            outputs=step.outputs,
            surroundings=self.surroundings,
            waits=waits,
        )
        with contextlib.ExitStack() as stack:
            scratch = stack.enter_context(self.store.temporary_folder())
            run = stack.enter_context(self.engine.begin(image, command, scratch))
            return Running(step=step, run=run, started=datetime.now(UTC), ends=stack.pop_all())

    def _checked(self, inputs: Mapping[str, Blob]) -> dict[str, Path]:
        """Give where the inputs are that are there, once their bytes were read."""
        return {
            path: self.store.checked(blob, what=path) for path, blob in inputs.items() if blob is not PENDING
        }

    def _outcome(self, running: Running) -> Outcome:
        """Wait for a step's end, and store what it gave."""
        step = running.step
        with running.run.finished() as finished:
            files = {
                name: self.store.add(read_chunks(file), what=f"{name} of {step.name}")
                for name, file in finished.outputs.items()
            }
            log = self.store.add_file(finished.log)
        facts = {
            "seconds": round(finished.seconds, 3),
            "started": running.started.isoformat(timespec="seconds"),
            "bytes_in": sum(blob.size for blob in step.inputs.values()),
            "engine": self.engine.facts().to_json(),
            "log": str(log.digest),
        }
        return Outcome(artifact=Artifact(files=files), facts=facts)

    # the image

    def load_image(self) -> str:
        """Give the ID by which the engine has the locked image, assembling and loading it if need be.

        Raises:
            ImageError: it comes out with another ID than the locked one.
            NoRoomError: the store's disk, or the engine's, has not the room for it.
        """

        def assembled() -> Image:
            require_room_for_image(self.store, self.lock, self.engine.image_folder())
            return self.assemble_image()

        return self._loaded(self.lock.image_id, self.lock.manifest, assembled)

    def _loaded(self, image_id: Digest, manifest: Digest, image: Callable[[], Image]) -> str:
        """Give the ID of a loaded image; of several processes that lack it one loads it, and the others wait."""
        # Asked each time, not remembered: somebody may remove it between two steps.
        if found := self.engine.find_image((image_id, manifest)):
            return found

        def waiting() -> None:
            self.progress.say("image", "waiting for another process that loads it")

        with self.store.lock(f"load-{image_id.hex}", waiting=waiting, after=MOMENT):
            return self.engine.find_image((image_id, manifest)) or self._load(image())

    def remove_image(self) -> None:
        """Remove the locked image, and the interpreter's, from the engine; a user's own tags of them stay."""
        from bertir.image import interpreter_image, locked_image

        debian = next(layer for layer in self.lock.layers if layer.name == "debian")
        for image in (locked_image(self.intent, self.lock), interpreter_image(self.intent, debian)):
            self.engine.remove_image(image.reference)

    def has_image(self) -> bool:
        """Whether an engine answers and has the locked image."""
        try:
            return self.engine.find_image((self.lock.image_id, self.lock.manifest)) is not None
        except EngineError:
            return False

    def assemble_image(self) -> Image:
        """Give the locked image with all its layers in the store."""
        from bertir.assemble import Materials, assemble_image

        materials = Materials(packages=self._debian_packages, wheels=self._wheels, precompile=self.precompile)

        def waiting() -> None:
            self.progress.say("image", "waiting for another process that assembles it")

        with self.store.lock(f"image-{self.lock.image_id.hex}", waiting=waiting, after=MOMENT):
            self.progress.say("image", f"assembling {self.lock.image_id.short} from locked packages")
            return assemble_image(self.store, self.intent, self.lock, materials)

    def assemble_anew(self) -> Image:
        """Give the image as it comes out here, whatever the lock says; `invoke check` compares it."""
        from bertir.assemble import Materials, assemble_layers
        from bertir.image import describe_image

        materials = Materials(packages=self._debian_packages, wheels=self._wheels, precompile=self.precompile)
        return describe_image(self.intent, assemble_layers(self.store, self.intent, materials))

    def _load(self, image: Image) -> str:
        from bertir.image import archive, archive_size

        size = archive_size(image)
        self.progress.say("image", f"loading {image.reference}, {size / 1e6:.0f} MB, into the engine")
        chunks = self.progress.counted("image", "loading", archive(self.store, image), size)
        return self.engine.load_image(chunks, image.reference, (image.id, image.manifest_digest))

    def _debian_packages(self) -> Sequence[tuple[DebianPackage, Path]]:
        return self.fetcher.debian_packages(self.lock.debian)

    def _wheels(self) -> Sequence[tuple[WheelPin, Path]]:
        return self.fetcher.wheels(self.lock.wheels, self.intent.python)

    @contextlib.contextmanager
    def precompile(self, interpreter: Image, sources: Blob) -> Iterator[Path]:
        """Compile the image's Python sources by its own interpreter; give the tar of `.pyc` files."""
        program = self.store.add_bytes((self.layout.steps / "precompile.py").read_bytes())
        step = ContainerStep(
            name="precompile",
            arguments=("/usr/bin/python3", "/step/precompile.py", "/in/sources.tar", "/out/pyc.tar"),
            inputs={"/step/precompile.py": program, "/in/sources.tar": sources},
            outputs=("pyc.tar",),
        )

        def run() -> Outcome:
            # It stays loaded: its one layer is the large image's first, and somebody else's build may be using it.
            return self._run(
                step, lambda: self._loaded(interpreter.id, interpreter.manifest_digest, lambda: interpreter)
            )

        result = self.realise(step.derivation(interpreter.id), run)
        yield self.store.checked(result.artifact["pyc.tar"], what="the compiled modules")

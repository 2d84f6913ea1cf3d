"""A builder: the store, the fetcher and the engine that a build uses, and how it runs a step with them.

What steps run in is a runtime's (runtime.py); the image, which containers are made of, is here.

Nothing is opened before it is needed: a build with nothing to do asks no engine.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

from bertir import __version__, emptying
from bertir.container_step import ContainerStep
from bertir.derivation import MOMENT, Realised, realise
from bertir.digest import Digest, tree_digest
from bertir.engines import DOCKER, ImageGoneError
from bertir.errors import BertirError, EngineError
from bertir.estimate import require_room_for_image
from bertir.frozen import dataclass
from bertir.intent import load_intent
from bertir.lock import load_image_lock
from bertir.model import load_models
from bertir.progress import State
from bertir.runner import AMISS, Runner
from bertir.runtime import chosen_runtime
from bertir.surroundings import Surroundings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from types import TracebackType

    from bertir.derivation import Derivation, Outcome
    from bertir.engine import Engine as ContainerEngine
    from bertir.engines import Engine
    from bertir.fetch import Fetcher
    from bertir.image import Image
    from bertir.intent import ImageIntent
    from bertir.lock import DebianPackage, ImageLock, WheelPin
    from bertir.materials import Pins
    from bertir.model import Model
    from bertir.progress import Progress
    from bertir.runner import Running
    from bertir.runtime import Runtime
    from bertir.store import Blob, Store


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


class Builder:
    """Realises steps. A context manager: it closes the engine's connection, if it had to open one.

    While it is open, `invoke gc` takes nothing that it uses.

    Args:
        chosen: the engine that runs steps, by its name (engines.py).
        memory: the bytes that its steps may take together; None is what is free.
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
        chosen: str = DOCKER,
        memory: int | None = None,
    ) -> None:
        self.chosen = chosen
        self.memory = memory
        self._overlaps: dict[int, bool] = {}
        self.surroundings = surroundings or Surroundings()
        self.layout = layout
        self.store = store
        self.fetcher = fetcher
        self.progress = progress
        self.realised: list[Realised] = []
        self.environment = environment
        self._stack = contextlib.ExitStack()
        self._runner = Runner(store, self.surroundings, lambda: self.engine, progress)
        # What runs beside others, by key, until it is waited for: with what ends it and lets go of its lock.
        self._begun: dict[Digest, tuple[Running, contextlib.ExitStack]] = {}

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            stack.push(self)  # who is interrupted in here has no `with` block yet that would end it
            self._stack.enter_context(self.progress.shown())
            self._stack.enter_context(self.store.in_use())
            self.reap()
            stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Each is ended, also if another's end is interrupted; the engine's connection is closed last.
        with self._stack, contextlib.ExitStack() as stack:
            stack.callback(self._runner.close)
            for _, ends in self._begun.values():
                stack.callback(ends.close)

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
    def runtime(self) -> Runtime:
        """What steps run in.

        Raises:
            ConfigurationError, ImageError: they can't run in that, here.
        """
        return chosen_runtime(self, self.chosen)

    @cached_property
    def engine(self) -> Engine:
        """What runs steps."""
        return self.runtime.engine()

    @cached_property
    def containers(self) -> ContainerEngine:
        """The container engine."""
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
        """Remove what killed builds left."""
        if self.store.abandoned():
            # Without an engine none of its containers runs, or none can be asked; a lock may be what is to be made anew.
            with contextlib.suppress(BertirError):
                self.runtime.reap()
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
            self.progress.say(
                derivation.step, "waiting for another process that runs this step", State.WAITING
            )

        result = realise(self.store, derivation, recorded, waiting, locked=locked)
        if result.cached:
            self.progress.say(derivation.step, "nothing to do, in the store", State.STORED)
        else:
            seconds = result.facts["seconds"]
            self.progress.say(
                derivation.step, f"done in {seconds:.1f} s, {result.artifact.size / 1e6:.1f} MB", State.DONE
            )
        self.realised.append(result)
        return result

    def run(
        self,
        step: ContainerStep,
        *,
        ahead: Iterable[ContainerStep] = (),
        beside: Iterable[ContainerStep] = (),
    ) -> Realised:
        """Realise a step in the container.

        Args:
            step: the step.
            ahead: steps that follow, of which some inputs are `PENDING`. If this one is run, their programs are started
                meanwhile, and wait until their inputs are there.
            beside: steps that are wanted later and need nothing of this one. If this one is run they are begun, and `run`
                with them waits for their end.

        Raises:
            StepError, EngineError: see `Engine.run`.
        """
        derivation = step.derivation(self.runtime.identity)
        if derivation.key in self._begun:
            begun, ends = self._begun.pop(derivation.key)
            with ends:
                return self.realise(derivation, lambda: self._runner.finish(begun), locked=True)

        return self.realise(derivation, lambda: self._run(step, self.runtime.provide, ahead, beside))

    def _begin(self, step: ContainerStep, image: str) -> None:
        """Start a step, and don't wait for it; unless it was begun, or is in the store, or somebody runs it.

        If it can't be started, it is when its turn comes, and says then what is amiss.
        """
        derivation = step.derivation(self.runtime.identity)
        if derivation.key in self._begun:
            return
        with contextlib.suppress(*AMISS), contextlib.ExitStack() as stack:
            if not stack.enter_context(self.store.lock_if_free(derivation.lock)):
                return
            if self._is_stored(derivation):
                return
            running = self._runner.start(step, image)
            stack.callback(running.ends.close)
            self.progress.say(step.name, f"running {self.runtime.where}, beside", State.RUNNING)
            self._begun[derivation.key] = running, stack.pop_all()

    def overlaps(self, weights: int) -> bool:
        """Whether there is the memory for steps of a build of so many bytes of weights to run beside one another.

        Asked when one of them is about to run, and the engine answers. What was found stays: it doesn't depend on what they take since.
        """
        if weights not in self._overlaps:
            from bertir.memory import estimate, free_memory

            free = free_memory(self) if self.memory is None else self.memory
            takes = estimate(weights)
            self._overlaps[weights] = takes <= free
            if takes > free:
                self.progress.say(
                    "engine",
                    f"steps run one after another: beside one another they may take {takes / 1e6:.0f} MB of memory,"
                    f" and there are {free / 1e6:.0f}",
                )
        return self._overlaps[weights]

    def start_ahead(self, steps: Iterable[ContainerStep]) -> None:
        """Start steps that are to run in any case, before their inputs are there; if what they run in is there, and the engine does it."""
        with contextlib.suppress(EngineError):
            image = self.runtime.find()
            if image is not None:
                self._runner.start_ahead(steps, image)

    def give_ahead(self, steps: Iterable[ContainerStep]) -> None:
        """Give steps that were started ahead those of their inputs that aren't `PENDING` any more: they may begin with them."""
        self._runner.give_ahead(steps)

    def _run(
        self,
        step: ContainerStep,
        image: Callable[[], str],
        ahead: Iterable[ContainerStep] = (),
        beside: Iterable[ContainerStep] = (),
    ) -> Outcome:
        """Run a step in the image that `image` gives the ID of, loading it if need be; it is asked again if it went."""
        try:
            return self._run_in(step, image(), ahead, beside)
        except ImageGoneError:
            self.progress.say("image", "somebody removed it from the engine")
            return self._run_in(step, image(), ahead, beside)

    def _run_in(
        self, step: ContainerStep, image: str, ahead: Iterable[ContainerStep], beside: Iterable[ContainerStep]
    ) -> Outcome:
        self.clear_leftovers(image)
        beside, ahead = list(beside), list(ahead)
        self._runner.start_ahead(self._sharing(step, (*beside, *ahead)), image)
        running = self._runner.start(step, image)
        with running.ends:
            self.progress.say(step.name, f"running {self.runtime.where}", State.RUNNING)
            for other in beside:
                self._begin(other, image)
            self._runner.start_ahead(ahead, image)
            return self._runner.finish(running)

    def _sharing(self, step: ContainerStep, others: Iterable[ContainerStep]) -> Sequence[ContainerStep]:
        """A step that is about to run, and those to be run that can share its container; none if it has nothing to share."""
        identity = self.runtime.identity
        found = [
            other
            for other in others
            if step.imports
            and other.imports == step.imports
            and not self._is_stored(other.derivation(identity))
        ]
        return [step, *found] if found else []

    def _is_stored(self, derivation: Derivation) -> bool:
        return self.store.load_record(derivation.step, derivation.key) is not None

    def clear_leftovers(self, image: str) -> None:
        """Remove what killed builds left that this user may not: folders that a step's user made."""
        from bertir.container import VOLUME

        for folder in self.store.abandoned():
            if (folder / VOLUME).is_dir():
                self.engine.empty(image, folder / VOLUME)
                emptying.removed(folder)

    # the image

    def load_image(self) -> str:
        """Give the ID by which the engine has the locked image, assembling and loading it if need be.

        Raises:
            ImageError: it comes out with another ID than the locked one.
            NoRoomError: the store's disk, or the engine's, has not the room for it.
        """

        def assembled() -> Image:
            require_room_for_image(self.store, self.lock, self.containers.image_folder())
            return self.assemble_image()

        return self.loaded(self.lock.image_id, self.lock.manifest, assembled)

    def loaded(self, image_id: Digest, manifest: Digest, image: Callable[[], Image]) -> str:
        """Give the ID of a loaded image; of several processes that lack it one loads it, and the others wait."""
        # Asked each time, not remembered: somebody may remove it between two steps.
        if found := self.containers.find_image((image_id, manifest)):
            return found

        def waiting() -> None:
            self.progress.say("image", "waiting for another process that loads it", State.WAITING)

        with self.store.lock(f"load-{image_id.hex}", waiting=waiting, after=MOMENT):
            return self.containers.find_image((image_id, manifest)) or self._load(image())

    def remove_image(self) -> None:
        """Remove the locked image, the interpreter's and that for jobs from the engine; a user's own tags of them stay."""
        from bertir.image import interpreter_image, locked_image
        from bertir.job import load_job

        debian = next(layer for layer in self.lock.layers if layer.name == "debian")
        step, interpreter = locked_image(self.intent, self.lock), interpreter_image(self.intent, debian)
        for image in (load_job(self.layout.root, self.intent, self.lock).image, step, interpreter):
            self.containers.remove_image(image.reference)

    def is_provided(self) -> bool:
        """Whether what steps run in is there, and an engine that answers has it."""
        try:
            return self.runtime.find() is not None
        except EngineError:
            return False

    def assemble_image(self) -> Image:
        """Give the locked image with all its layers in the store."""
        from bertir.assemble import Materials, assemble_image

        materials = Materials(packages=self._debian_packages, wheels=self._wheels, precompile=self.precompile)

        def waiting() -> None:
            self.progress.say("image", "waiting for another process that assembles it", State.WAITING)

        with self.store.lock(f"image-{self.lock.image_id.hex}", waiting=waiting, after=MOMENT):
            self.progress.say(
                "image", f"assembling {self.lock.image_id.short} from locked packages", State.RUNNING
            )
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
        self.progress.say(
            "image", f"loading {image.reference}, {size / 1e6:.0f} MB, into the engine", State.RUNNING
        )
        chunks = self.progress.counted("image", "loading", archive(self.store, image), size)
        loaded = self.containers.load_image(chunks, image.reference, (image.id, image.manifest_digest))
        self.progress.say("image", f"loaded as {image.reference}", State.DONE)
        return loaded

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
                step, lambda: self.loaded(interpreter.id, interpreter.manifest_digest, lambda: interpreter)
            )

        result = self.realise(step.derivation(interpreter.id), run)
        yield self.store.checked(result.artifact["pyc.tar"], what="the compiled modules")

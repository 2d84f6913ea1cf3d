"""What steps run in: a container of the locked image, or where there are no containers, this machine.

A runtime has an identity, known without asking or making anything, which stands in each step's key; it finds or provides what
has that identity; and it opens the engine that runs steps in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from bertir.engines import LOCAL, MARKER
from bertir.estimate import image_works

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from bertir.builder import Builder
    from bertir.digest import Digest
    from bertir.engines import Engine
    from bertir.estimate import Work


class Runtime(Protocol):
    """What a builder's steps run in."""

    @property
    def where(self) -> str:
        """Where a step runs, as the user is told."""

    @property
    def identity(self) -> Digest:
        """Of what steps run in; a part of their keys."""

    @property
    def stated(self) -> Mapping[str, Any] | None:
        """What is told of it in place of the locked image, if it isn't that."""

    def engine(self) -> Engine: ...

    def find(self) -> str | None:
        """Give the name by which the engine has it, if it is there."""

    def provide(self) -> str:
        """Give that name, once it is there."""

    def works(self) -> list[Work]:
        """What providing it writes."""

    def made_of(self) -> tuple[str, ...]:
        """How the names of materials begin that are needed to provide it."""

    def reap(self) -> None:
        """Remove what steps of killed builds left that a sweep can't."""


def chosen_runtime(builder: Builder, engine: str, marker: Path = MARKER) -> Runtime:
    """Give what an engine of this name (engines.py) runs steps in, here.

    Raises:
        ConfigurationError: it can't, here.
    """
    if engine != LOCAL:
        return Containers(builder)
    from bertir.local_runtime import InImage, InVirtualenv

    return InImage(builder, marker) if marker.exists() else InVirtualenv(builder)


class Containers:
    """Containers of the locked image."""

    where = "in the container"
    stated = None

    def __init__(self, builder: Builder) -> None:
        self._builder = builder

    @property
    def identity(self) -> Digest:
        return self._builder.lock.image_id

    def engine(self) -> Engine:
        return self._builder.containers

    def find(self) -> str | None:
        lock = self._builder.lock
        return self._builder.containers.find_image((lock.image_id, lock.manifest))

    def provide(self) -> str:
        return self._builder.load_image()

    def works(self) -> list[Work]:
        return image_works(self._builder.store, self._builder.lock)

    def made_of(self) -> tuple[str, ...]:
        return () if self._builder.is_provided() else ("debian/", "wheel/")

    def reap(self) -> None:
        # As a container that runs on may still write to its volume.
        image = self.find()
        if image is not None:
            self._builder.clear_leftovers(image)

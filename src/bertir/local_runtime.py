"""What the local engine runs steps in: the image itself, where bertir runs inside it, or a virtualenv of the same wheels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertir.digest import Digest
from bertir.engines import DOCKER
from bertir.errors import ConfigurationError, ImageError
from bertir.estimate import virtualenv_works
from bertir.redact import shown
from bertir.small_file import read_small
from bertir.virtualenv import Machine, Virtualenv, python_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bertir.builder import Builder
    from bertir.engines import Engine
    from bertir.estimate import Work
    from bertir.intent import ImageIntent

_IMAGE_PYTHON = Path("/usr/bin/python3")


class InImage:
    """The image that bertir itself runs in; a marker in it says that its lower layers are the locked image's.

    Raises:
        ImageError: they are another image's. ConfigurationError: the marker can't be read.
    """

    where = "as a process, in this image"
    stated = None

    def __init__(self, builder: Builder, marker: Path) -> None:
        self._builder = builder
        self.identity = builder.lock.image_id
        found = _marked(marker)
        if found != self.identity:
            raise ImageError(
                f"bertir runs inside another image than the locked one\n  expected {self.identity}\n  found    {found}",
                advice="Run it in the image that was made from this checkout, or choose --engine"
                f" {DOCKER} where there is a container engine.",
            )

    def engine(self) -> Engine:
        return _engine(self._builder, _IMAGE_PYTHON, self._builder.intent.python.version, self.where)

    def find(self) -> str | None:
        return str(self.identity)

    def provide(self) -> str:
        return str(self.identity)

    def works(self) -> list[Work]:
        return []

    def made_of(self) -> tuple[str, ...]:
        return ()

    def reap(self) -> None:
        """Do nothing: a step has ended when bertir has."""


class InVirtualenv:
    """A virtualenv in the store, made from the locked wheels.

    Raises:
        ConfigurationError: this machine or its Python isn't one that the wheels are for.
    """

    where = "as a process, in the virtualenv"

    def __init__(self, builder: Builder) -> None:
        self._builder = builder
        machine = Machine.here()
        machine.require(builder.intent.python)
        self._virtualenv = Virtualenv(intent=builder.intent, lock=builder.lock, machine=machine)
        self.identity = self._virtualenv.identity

    @property
    def stated(self) -> Mapping[str, Any]:
        return {"digest": str(self.identity), **self._virtualenv.facts}

    def engine(self) -> Engine:
        python = python_of(self._virtualenv.place(self._builder.store))
        return _engine(self._builder, python, self._virtualenv.machine.python, self.where)

    def find(self) -> str | None:
        return str(self.identity) if self._virtualenv.find(self._builder.store) else None

    def provide(self) -> str:
        from bertir.virtualenv_making import provide

        builder = self._builder
        provide(builder.store, self._virtualenv, builder.fetcher, builder.progress)
        return str(self.identity)

    def works(self) -> list[Work]:
        if self._virtualenv.place(self._builder.store).exists():
            return []
        return virtualenv_works(self._builder.store, self._builder.lock)

    def made_of(self) -> tuple[str, ...]:
        return () if self.find() else ("wheel/",)

    def reap(self) -> None:
        """Do nothing: a step has ended when bertir has."""


def _marked(marker: Path) -> Digest:
    try:
        return Digest.from_str(json.loads(read_small(marker))["image"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigurationError(
            f"{marker} should say which image this is, and doesn't: {type(error).__name__}: {shown(str(error))}",
            advice=f"Run bertir in an image of its own, or choose --engine {DOCKER}.",
        ) from error


def _engine(builder: Builder, python: Path, version: str, where: str) -> Engine:
    from bertir.local import WITHOUT, Interpreter, LocalEngine

    builder.progress.say("engine", f"local: steps run {where}, without {WITHOUT}")
    intent = builder.intent
    interpreter = Interpreter(
        path=python, version=version, environment=intent.environment, home=_home(intent)
    )
    return LocalEngine(builder.store.root, interpreter)


def _home(intent: ImageIntent) -> dict[str, str]:
    """Give the files that the image has in its user's home directory."""
    home = intent.environment.get("HOME", "/").strip("/") + "/"
    return {file.path.removeprefix(home): file.text for file in intent.files if file.path.startswith(home)}

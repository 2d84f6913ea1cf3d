"""A virtualenv with what the image's Python has, as data: the locked wheels, and what of this machine is part of it.

How it is made is in virtualenv_making.py.
"""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Self

from bertir.digest import Digest
from bertir.errors import ConfigurationError
from bertir.frozen import dataclass
from bertir.store import VIRTUALENVS

if TYPE_CHECKING:
    from pathlib import Path

    from bertir.intent import ImageIntent, PythonIntent
    from bertir.lock import ImageLock
    from bertir.store import Store

_ADVICE = "Use --engine docker; or"


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What of this machine is part of a virtualenv."""

    python: str
    implementation: str
    architecture: str
    libc: str

    @classmethod
    def here(cls) -> Self:
        try:
            libc = os.confstr("CS_GNU_LIBC_VERSION") or ""
        except (ValueError, OSError):  # another C library doesn't know the question
            libc = ""
        return cls(
            python=".".join(map(str, sys.version_info[:3])),
            implementation=sys.implementation.name,
            architecture=os.uname().machine,
            libc=libc,
        )

    def require(self, wanted: PythonIntent) -> None:
        """Refuse a machine that the locked wheels are not for.

        Raises:
            ConfigurationError: and what it takes.
        """
        if self.implementation != "cpython" or self.python.rpartition(".")[0] != wanted.version:
            raise ConfigurationError(
                f"--engine local outside the image needs CPython {wanted.version}, of which the locked wheels are,"
                f" and this is {self.implementation} {self.python}",
                advice=f"{_ADVICE} make bertir's virtualenv anew: make PYTHON=python{wanted.version} build",
            )
        if self.architecture != wanted.machine:
            raise ConfigurationError(
                f"--engine local needs a machine of the kind {wanted.machine}, and this is {self.architecture}",
                advice="The locked wheels have programs for that one alone.",
            )
        name, _, version = self.libc.partition(" ")
        if name != "glibc" or _numbers(version) < _numbers(wanted.glibc):
            raise ConfigurationError(
                f"--engine local outside the image needs glibc {wanted.glibc} or newer, for which the wheels were"
                f" chosen, and this is {self.libc or 'another C library'}",
                advice=f"{_ADVICE} a newer distribution.",
            )


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".") if part.isdigit()]


@dataclass(frozen=True, kw_only=True)
class Virtualenv:
    """What one is made of, which is known without making it."""

    intent: ImageIntent
    lock: ImageLock
    machine: Machine

    @property
    def facts(self) -> dict[str, Any]:
        """What reports say of it, and what its identity is the digest of."""
        return {
            **asdict(self.machine),
            "environment": dict(self.intent.environment),
            "rules": str(Digest.of_json(asdict(self.intent.python))),
            "wheels": [
                {"name": pin.name, "version": pin.version, "digest": str(pin.digest)}
                for pin in self.lock.wheels
            ],
        }

    @property
    def identity(self) -> Digest:
        """Stands in a step's key where else the image's ID does; it is no image's."""
        return Digest.of_json({"virtualenv": self.facts})

    def place(self, store: Store) -> Path:
        # Its python is a link to this one's: another installation of the same version makes one of its own.
        base = Digest.of_json([str(self.identity), os.path.realpath(sys.executable)])
        return store.root / VIRTUALENVS / base.hex

    def find(self, store: Store) -> Path | None:
        """Give its folder if it is there, and make this moment that of its last use."""
        place = self.place(store)
        return place if store.touch(place) else None


def python_of(folder: Path) -> Path:
    return folder / "bin" / "python"

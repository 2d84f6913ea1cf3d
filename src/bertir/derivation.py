"""A step as data: everything that its result depends on, and the key made from it."""

from __future__ import annotations

import contextlib
from dataclasses import field
from typing import TYPE_CHECKING, Any

from bertir.digest import Digest
from bertir.frozen import dataclass
from bertir.store import Artifact, Record

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from bertir.store import Store

# Raised whenever the meaning of a derivation or the facts of its record change, so that no record of before is taken
# for one of after.
FORMAT = 2
MOMENT = 1.0  # seconds; who waits for less needs no explanation


@dataclass(frozen=True, kw_only=True)
class Derivation:
    """A step and its inputs, by digest.

    Args:
        step: its name: `freeze`, `convert`, ….
        version: raised when the host's part of the step changes what comes out.
        image: the image ID, for a step that runs in the container.
        parameters: JSON; all that the command line or the environment of the step is made of.
        inputs: digest of each input by name.
    """

    step: str
    version: int
    image: Digest | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, Digest] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "step": self.step,
            "version": self.version,
            "image": str(self.image) if self.image else None,
            "parameters": dict(self.parameters),
            "inputs": {name: str(digest) for name, digest in self.inputs.items()},
        }

    @property
    def key(self) -> Digest:
        return Digest.of_json(self.to_json())

    @property
    def lock(self) -> str:
        """The name of the lock that whoever runs the step holds."""
        return f"{self.step}-{self.key.hex}"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What running a step gave: its artifact, and facts of the run (seconds, log) that are no part of it."""

    artifact: Artifact
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Realised:
    """A derivation's artifact, with whether it was there already."""

    derivation: Derivation
    artifact: Artifact
    facts: Mapping[str, Any]
    cached: bool


def realise(
    store: Store,
    derivation: Derivation,
    run: Callable[[], Outcome],
    waiting: Callable[[], None] = lambda: None,
    *,
    locked: bool = False,
) -> Realised:
    """Give the stored artifact, or run the step once and store what it gave.

    Several processes may ask for the same derivation at the same time: one runs it, the others wait and find it.
    `waiting` is called once by each that waits for longer than a moment. With `locked`, the caller holds the step's lock.
    """
    key = derivation.key
    if (record := store.load_record(derivation.step, key)) is not None:
        return _realised(derivation, record, cached=True)
    with contextlib.nullcontext() if locked else store.lock(derivation.lock, waiting=waiting, after=MOMENT):
        if (record := store.load_record(derivation.step, key)) is not None:
            return _realised(derivation, record, cached=True)
        outcome = run()
        record = Record(artifact=outcome.artifact, derivation=derivation.to_json(), facts=outcome.facts)
        store.save_record(derivation.step, key, record)
        return _realised(derivation, record, cached=False)


def _realised(derivation: Derivation, record: Record, *, cached: bool) -> Realised:
    return Realised(derivation=derivation, artifact=record.artifact, facts=record.facts, cached=cached)

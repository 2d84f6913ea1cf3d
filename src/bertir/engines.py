"""What runs steps, whatever that is: what a build asks of it, and which one the user chose.

There are two: `docker`, a container engine (engine.py), and `local`, this machine's own processes (local.py). What a step is
run in, and so what its key says of that, is in runtime.py.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from bertir.errors import ConfigurationError, ImageError
from bertir.frozen import dataclass
from bertir.nearest import did_you_mean
from bertir.redact import shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager

    from bertir.container import Command, Finished, StepRun

DOCKER, LOCAL = "docker", "local"
ENGINES = (DOCKER, LOCAL)
VARIABLE = "BERTIR_ENGINE"
# In an image that bertir itself may run in, and nowhere else: it says which image its lower layers are.
MARKER = Path("/usr/local/share/bertir/image.json")


class ImageGoneError(ImageError):
    """The engine no longer has an image that it had: somebody removed it meanwhile."""


@dataclass(frozen=True, kw_only=True)
class EngineFacts:
    """What an engine says of itself; goes into reports, never into a key.

    Args:
        not_limited: what it can't limit here, though it could elsewhere.
        without: what no step that it runs is kept from.
    """

    name: str
    version: str
    api_version: str
    architecture: str
    kernel: str
    not_limited: str = ""
    without: str = ""

    def to_json(self) -> dict[str, str]:
        """Give what a record keeps; without what there is nothing of."""
        told: dict[str, str] = asdict(self)
        return {
            name: value for name, value in told.items() if value or name not in ("not_limited", "without")
        }


class Output(Protocol):
    """What a step prints, read by one thread, which another may end."""

    def __iter__(self) -> Iterator[bytes]: ...

    def close(self) -> None: ...


class Engine(Protocol):
    """What a build asks of whatever runs its steps. `image` is what the runtime has found or provided (runtime.py)."""

    @property
    def folder(self) -> Path:
        """The store's; logs of failed steps are kept in it."""

    @property
    def memory(self) -> int:
        """The bytes of memory of its machine, or those that are left to what it runs; 0 if it doesn't say."""

    @property
    def limits_memory(self) -> bool:
        """Whether a step is told to have a limit of memory (`Limits`)."""

    @property
    def contains(self) -> bool:
        """Whether all that a step may have started is gone when it has ended."""

    def facts(self) -> EngineFacts: ...

    def begin(self, image: str, command: Command, scratch: Path) -> StepRun:
        """Like `run`, without waiting for the end; use what it gives as a context manager."""

    def run(self, image: str, command: Command, scratch: Path) -> AbstractContextManager[Finished]:
        """Run a step to its end and give its outputs, which last as long as the `with` block."""

    def empty(self, image: str, volume: Path) -> None:
        """Empty an output volume, whoever owns what is in it."""

    # one step: made under a name, by which it is removed, then known by what `create` gave

    def create(
        self, name: str, image: str, command: Command, volume: Path, folders: Mapping[str, Path]
    ) -> str: ...

    def start(self, container: str, step: str) -> None: ...

    def let_go_on(self, container: str, command: Command) -> None: ...

    def log_of(self, container: str) -> Output: ...

    def is_running(self, container: str) -> bool: ...

    def ending_of(self, container: str) -> tuple[int, bool]: ...

    def kill(self, container: str) -> None: ...

    def remove(self, name: str) -> None: ...


def chosen(option: str, environment: Mapping[str, str], marker: Path = MARKER) -> str:
    """Give the engine's name: what the option says, else the environment, else what fits where bertir runs.

    Raises:
        ConfigurationError: there is no such engine.
    """
    named, said = ("--engine", option) if option else (VARIABLE, environment.get(VARIABLE, ""))
    if not said:
        return LOCAL if marker.exists() else DOCKER
    if said not in ENGINES:
        raise ConfigurationError(
            f"{named} must be {' or '.join(ENGINES)}, and is {shown(said)}",
            advice=did_you_mean(said, ENGINES),
        )
    return said

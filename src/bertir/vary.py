"""Variations of `invoke check`, as data: what each is made of, how they are chosen and put together.

A variation changes something on the host (the process that runs bertir), in the container (where the bits are made), or
both. It also names its witnesses: what the rebuild must report otherwise than the baseline did, or it varied nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from bertir.errors import ConfigurationError
from bertir.nearest import did_you_mean
from bertir.surroundings import Surroundings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bertir.machine import Machine


class Means(Enum):
    """What has to be made ready for a rebuild, beyond a wrapper and an environment."""

    OTHER_PLACE = "checkout and store lie under a longer path with odd letters"
    OTHER_HOME = "a home directory of its own"
    OTHER_USER = "the folders belong to another user"
    DISORDER = "checkout and output are seen through disorderfs"
    OLD_OUTPUT = "an older build lies in the output folder"
    WARM_STORE = "the user's own store, with all that it holds"
    PODMAN = "podman's Docker API, in a storage of its own"


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """Under what a rebuild runs; as it stands, just as the machine has it.

    Args:
        environment: of the host's process, on top of its own.
        wrapper: a command that runs the command that follows it.
        means: what must be made ready first.
        surroundings: inside the step's container.
    """

    environment: Mapping[str, str] = field(default_factory=dict)
    wrapper: tuple[str, ...] = ()
    means: frozenset[Means] = frozenset()
    surroundings: Surroundings = field(default_factory=Surroundings)


@dataclass(frozen=True, kw_only=True)
class Variation:
    """One thing that should not matter.

    Args:
        what: what is done, for people.
        witnesses: what the rebuild must report otherwise than the baseline did (`rebuild.observe`).
        needs: what the machine must have; a key of `Machine.missing`, if it hasn't.
        touches_image: whether it can reach the assembly of the image; if not, the image is taken as it is.
        alone: can't be combined with others in one rebuild.
    """

    name: str
    what: str
    witnesses: tuple[str, ...]
    conditions: Conditions
    needs: tuple[str, ...] = ()
    touches_image: bool = True
    alone: bool = False

    def unavailable(self, machine: Machine) -> str:
        """Why it can't be done on this machine; empty if it can."""
        return "; ".join(machine.missing[need] for need in self.needs if need in machine.missing)


def combine(chosen: Sequence[Variation]) -> Conditions:
    """Give the conditions of one rebuild under all of `chosen`."""
    environment: dict[str, str] = {}
    inside: dict[str, str] = {}
    mounts: dict[str, str] = {}
    wrapper: list[str] = []
    means: set[Means] = set()
    hostname, cpus = Surroundings().hostname, ""
    for variation in chosen:
        conditions = variation.conditions
        environment |= conditions.environment
        wrapper += conditions.wrapper
        means |= conditions.means
        around = conditions.surroundings
        inside |= around.environment
        mounts |= around.mounts
        hostname = hostname if around.hostname == Surroundings().hostname else around.hostname
        cpus = around.cpus or cpus
    surroundings = Surroundings(environment=inside, hostname=hostname, cpus=cpus, mounts=mounts)
    return Conditions(
        environment=environment, wrapper=tuple(wrapper), means=frozenset(means), surroundings=surroundings
    )


def parse_names(text: str, known: Sequence[Variation]) -> tuple[Variation, ...]:
    """Read `--vary`: names with commas between, in any order, each once; nothing is all of them.

    Raises:
        ConfigurationError: there is no such variation.
    """
    if not text.strip():
        return tuple(known)
    names = [name.strip() for name in text.split(",")]
    by_name = {variation.name: variation for variation in known}
    if unknown := sorted(set(names) - by_name.keys()):
        advice = [did_you_mean(name, by_name) for name in unknown]
        raise ConfigurationError(
            f"--vary has no {', '.join(map(repr, unknown))}",
            advice=" ".join([*filter(None, advice), f"There are: {', '.join(by_name)}."]),
        )
    return tuple(variation for variation in known if variation.name in names)


def rebuilds(chosen: Sequence[Variation], *, each: bool) -> list[tuple[Variation, ...]]:
    """Group variations into rebuilds: one each, or one with all that can be combined and one for each other.

    With one each there is one more, of nothing: what differs there differs whatever is varied.
    """
    if each:
        return [(), *((variation,) for variation in chosen)]
    together = tuple(variation for variation in chosen if not variation.alone)
    return [*([together] if together else []), *((variation,) for variation in chosen if variation.alone)]

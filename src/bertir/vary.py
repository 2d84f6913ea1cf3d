"""What `invoke check` varies between two builds, as data; after reprotest's list.

A variation changes something on the host (the process that runs bertir), in the container (where the bits are made), or
both. It also names its witnesses: what the rebuild must report otherwise than the baseline did, or it varied nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from bertir.errors import ConfigurationError
from bertir.surroundings import Surroundings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bertir.machine import Machine

OTHER_ID = 65531  # a user and group that own nothing: not root, and not the steps' own 65532
FAKETIME_IN_CONTAINER = "/faketime/libfaketime.so.1"
CLOCK = {
    "FAKETIME": "+400d",  # another day, month and year; relative, so that it still ticks
    # Waiting and time limits go by the monotonic clock, which tells no date.
    "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    "FAKETIME_DONT_RESET": "1",
}
# What compilers, Python packages and build systems are known to read; harmless, and none of it bertir's business.
NOISE = {
    "CFLAGS": "-march=native -O3",
    "LDFLAGS": "-Wl,--as-needed",
    "MAKEFLAGS": "-j7",
    "PYTHONPATH_OF_SOMEBODY": "/nonexistent",
    "TMPDIR_OF_SOMEBODY": "/nonexistent",
    "COLUMNS": "47",
    "TERM": "dumb",
    "EDITOR": "ed",
    "MAIL": "/var/mail/somebody",
    "LOGNAME": "somebody",
    "DEB_BUILD_OPTIONS": "parallel=3",
    "GIT_AUTHOR_NAME": "Some Body",
    "GIT_AUTHOR_EMAIL": "somebody@localhost",
    "GIT_COMMITTER_DATE": "2001-02-03T04:05:06Z",
    "NOISE": "\N{LATIN SMALL LETTER E WITH ACUTE} \t'\"$(no) %s {0}",
}


class Means(Enum):
    """What has to be made ready for a rebuild, beyond a wrapper and an environment."""

    OTHER_PLACE = "checkout and store lie under a longer path with odd letters"
    OTHER_HOME = "a home directory of its own"
    OTHER_USER = "the folders belong to another user"
    DISORDER = "the folders are seen through disorderfs"
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


def variations(machine: Machine) -> tuple[Variation, ...]:
    """Every variation there is, with values that differ from what this machine has. Wrappers nest in this order."""
    umask = "077" if machine.umask != 0o077 else "022"
    locale = "C.UTF-8" if machine.locale == "C" else "C"
    clock = CLOCK | {"LD_PRELOAD": machine.faketime}
    return (
        Variation(
            name="umask",
            what=umask,
            witnesses=("host umask",),
            conditions=Conditions(wrapper=_shell(f"umask {umask}")),
        ),
        Variation(
            name="tz",
            what="14 hours east of Greenwich, in the container too",
            witnesses=("host zone", "container zone"),
            conditions=Conditions(
                environment={"TZ": "<+14>-14"}, surroundings=Surroundings(environment={"TZ": "<+14>-14"})
            ),
        ),
        Variation(
            name="locale",
            what=f"{locale} on the host, C in the container",
            witnesses=("host locale", "container locale"),
            conditions=Conditions(
                environment={"LC_ALL": locale, "LANG": locale, "LANGUAGE": "tr"},
                surroundings=Surroundings(environment={"LC_ALL": "C", "LANGUAGE": "tr"}),
            ),
        ),
        Variation(
            name="clock",
            what="400 days ahead, in the container too (libfaketime)",
            witnesses=("host clock", "container clock"),
            needs=("faketime",),
            conditions=Conditions(
                environment=clock,
                surroundings=Surroundings(
                    environment=CLOCK | {"LD_PRELOAD": FAKETIME_IN_CONTAINER},
                    mounts={FAKETIME_IN_CONTAINER: machine.faketime},
                ),
            ),
        ),
        Variation(
            name="home",
            what="an empty home directory, and no cache directory set",
            witnesses=("host home",),
            conditions=Conditions(
                means=frozenset({Means.OTHER_HOME}),
                environment={"XDG_CACHE_HOME": "", "XDG_CONFIG_HOME": ""},
                surroundings=Surroundings(environment={"HOME": "/tmp"}),  # noqa: S108 - in there
            ),
        ),
        Variation(
            name="host-name",
            what="another one, in the container too",
            witnesses=("host name", "container name"),
            needs=("root", "unshare"),
            conditions=Conditions(
                wrapper=(
                    "unshare",
                    "--uts",
                    *_shell("echo elsewhere.example > /proc/sys/kernel/hostname"),
                ),
                surroundings=Surroundings(hostname="elsewhere"),
            ),
        ),
        Variation(
            name="path",
            what="checkout and store elsewhere, under odd letters",
            witnesses=("host checkout", "host store"),
            conditions=Conditions(means=frozenset({Means.OTHER_PLACE})),
        ),
        Variation(
            name="cpus",
            what=f"1 instead of {len(machine.cpus)}, in the container too",
            witnesses=("host cpus", "container cpus"),
            needs=("cpus", "taskset"),
            conditions=Conditions(
                wrapper=("taskset", "--cpu-list", str(machine.cpus[0])),
                surroundings=Surroundings(cpus=str(machine.cpus[0])),
            ),
        ),
        Variation(
            name="file-order",
            what="shuffled directory entries under checkout and store (disorderfs)",
            witnesses=("host device",),
            needs=("root", "disorderfs"),
            conditions=Conditions(means=frozenset({Means.DISORDER})),
        ),
        Variation(
            name="environment",
            what=f"{len(NOISE)} variables more, in the container too, and another SOURCE_DATE_EPOCH on the host",
            witnesses=("host noise", "container noise"),
            conditions=Conditions(
                environment=NOISE | {"SOURCE_DATE_EPOCH": "1"}, surroundings=Surroundings(environment=NOISE)
            ),
        ),
        Variation(
            name="hash-seed",
            what="PYTHONHASHSEED 4711 on the host, 42 in the container, whose image fixes 0",
            witnesses=("host hash", "container hash"),
            conditions=Conditions(
                environment={"PYTHONHASHSEED": "4711"},
                surroundings=Surroundings(environment={"PYTHONHASHSEED": "42"}),
            ),
        ),
        Variation(
            name="cpu-isa",
            what="ONEDNN_MAX_CPU_ISA=SSE41 in the container",
            witnesses=("container isa",),
            touches_image=False,
            conditions=Conditions(surroundings=Surroundings(environment={"ONEDNN_MAX_CPU_ISA": "SSE41"})),
        ),
        Variation(
            name="onednn",
            what="TF_ENABLE_ONEDNN_OPTS=1 in the container, whose image fixes 0",
            witnesses=("container onednn",),
            touches_image=False,
            conditions=Conditions(surroundings=Surroundings(environment={"TF_ENABLE_ONEDNN_OPTS": "1"})),
        ),
        Variation(
            name="output",
            what="another build lies where this one is published",
            witnesses=("host output",),
            touches_image=False,
            conditions=Conditions(means=frozenset({Means.OLD_OUTPUT})),
        ),
        Variation(
            name="user",
            what=f"user and group {OTHER_ID}",
            witnesses=("host user",),
            needs=("root", "setpriv", "other-user"),
            conditions=Conditions(
                means=frozenset({Means.OTHER_USER}),
                wrapper=(
                    "setpriv",
                    f"--reuid={OTHER_ID}",
                    f"--regid={OTHER_ID}",
                    "--clear-groups" if machine.socket_group is None else f"--groups={machine.socket_group}",
                ),
            ),
        ),
        Variation(
            name="warm-store",
            what="the user's own store, and what it holds of earlier builds",
            witnesses=("steps from the store",),
            touches_image=False,
            alone=True,
            conditions=Conditions(means=frozenset({Means.WARM_STORE})),
        ),
        Variation(
            name="podman",
            what="podman's Docker API instead of the engine",
            witnesses=("host engine",),
            needs=("root", "podman"),
            alone=True,
            conditions=Conditions(means=frozenset({Means.PODMAN})),
        ),
    )


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
        raise ConfigurationError(
            f"--vary has no {', '.join(map(repr, unknown))}", advice=f"There are: {', '.join(by_name)}."
        )
    return tuple(variation for variation in known if variation.name in names)


def rebuilds(chosen: Sequence[Variation], *, each: bool) -> list[tuple[Variation, ...]]:
    """Group variations into rebuilds: one each, or one with all that can be combined and one for each other."""
    if each:
        return [(variation,) for variation in chosen]
    together = tuple(variation for variation in chosen if not variation.alone)
    return [*([together] if together else []), *((variation,) for variation in chosen if variation.alone)]


def _shell(command: str) -> tuple[str, ...]:
    return ("sh", "-c", f'{command} && exec "$@"', "sh")

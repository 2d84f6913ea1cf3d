"""The variations that `invoke check` knows, after reprotest's list."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bertir.surroundings import Surroundings
from bertir.vary import Conditions, Means, Variation

if TYPE_CHECKING:
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
PRIVATE = 0o077


def variations(machine: Machine) -> tuple[Variation, ...]:
    """Every variation there is, with values that differ from what this machine has. Wrappers nest in this order."""
    umask = "077" if machine.umask != PRIVATE else "022"
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
            what="shuffled directory entries of checkout and output (disorderfs)",
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
            name="clock",
            what="400 days ahead, in the container too (libfaketime)",
            witnesses=("host clock", "container clock"),
            needs=("faketime",),
            conditions=Conditions(
                # Innermost: libfaketime keeps a semaphore, which who has changed the user since couldn't open.
                wrapper=("env", *(f"{name}={value}" for name, value in clock.items())),
                surroundings=Surroundings(
                    environment=CLOCK | {"LD_PRELOAD": FAKETIME_IN_CONTAINER},
                    mounts={FAKETIME_IN_CONTAINER: machine.faketime},
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
            needs=("root", "podman", "unshare"),
            alone=True,
            conditions=Conditions(means=frozenset({Means.PODMAN})),
        ),
    )


def _shell(command: str) -> tuple[str, ...]:
    return ("sh", "-c", f'{command} && exec "$@"', "sh")

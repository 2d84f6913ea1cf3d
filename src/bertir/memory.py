"""What builds take of the machine's memory: how much one takes at most, how many may run at once, and whether the steps of one may.

An estimate: the container's limit is what holds. It is there so that several builds at once don't drive a machine into
swap, or one another's steps into the kernel's arms.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bertir.container import Limits
from bertir.errors import EngineError

if TYPE_CHECKING:
    from bertir.builder import Builder

# The most that a build's containers take together: the step that runs, what runs beside it, and what waits for its inputs. Measured as
# what is resident in all of them, twenty times a second, GB (docs/benchmarks.md): a BERT of 0.002 GB 0.94; BERT-Base (0.438) 2.05 to 2.21, and 2.59
# with its import (1.80 and 1.98 since `convert` and `reference` take less). BERT-Large (1.34), by the anonymous memory of all, then at most 3.51.
OF_ITSELF = 1_150_000_000
PER_WEIGHT_BYTE = 3.5
AT_ONCE = (
    3  # of a build's steps, each with its limit: two in a container that steps share, and one in its own
)
# Beside its steps: the process that hashes and copies.
OF_HOST = 100_000_000
_MEMINFO = Path("/proc/meminfo")
_OWN_GROUPS, _GROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


@dataclass(frozen=True, kw_only=True)
class _Files:
    """Where control groups tell of their memory (cgroups(7)).

    Args:
        folders: where they may be mounted.
        limits: files that hold one; `max` is none.
        inherited: in memory.stat, the least limit of all groups above.
        cache: and what can be dropped.
    """

    folders: tuple[str, ...]
    limits: tuple[str, ...]
    used: str
    inherited: str
    cache: tuple[str, ...]


_UNLIMITED = 1 << 60  # version 1 writes the largest number of pages for no limit
_V1 = _Files(
    folders=("memory",),
    limits=("memory.limit_in_bytes",),
    used="memory.usage_in_bytes",
    inherited="hierarchical_memory_limit",
    cache=("total_inactive_file", "total_active_file"),
)
_V2 = _Files(
    folders=("", "unified"),
    limits=("memory.max", "memory.high"),
    used="memory.current",
    inherited="",
    cache=("inactive_file", "active_file"),
)


def estimate(weights: int) -> int:
    """Give the bytes of memory that a build of weights of so many bytes takes at most, whatever the recipe.

    So much it takes where steps run beside one another. One after another, they take as much as the largest of them.
    """
    return OF_HOST + min(OF_ITSELF + int(PER_WEIGHT_BYTE * weights), AT_ONCE * Limits().memory_bytes)


def free_memory(builder: Builder) -> int:
    """Give the bytes that builds may take together: what is free here, and no more than the engine's machine has."""
    free = _available()
    # On this machine, as it mounts folders of it; but that may be a virtual one, which has less. And if none answers,
    # the builds say so.
    with contextlib.suppress(EngineError):
        free = min(free, builder.engine.memory or free)
    return free


def left_by_groups() -> int:
    """Give the bytes that the control groups of this process leave it, a container's or a pod's; 0 if they limit nothing."""
    try:
        lines = _OWN_GROUPS.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return 0
    left = []
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "memory" not in controllers.split(","):
            continue
        files = _V1 if controllers else _V2
        # In a container the path may be the one outside; what is mounted there is its own group, at the root.
        group = Path(path.lstrip("/"))
        for mounted in files.folders:
            for folder in (group, *group.parents):
                with contextlib.suppress(OSError, ValueError, KeyError):
                    left.append(_left_by(_GROUPS / mounted / folder, files))
    return min(left, default=0)


def _left_by(folder: Path, files: _Files) -> int:
    """Give what one group leaves, of which at least a byte is left.

    Raises:
        OSError, ValueError, KeyError: it has no limit, or tells something else.
    """
    told = dict(
        line.split(maxsplit=1) for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines()
    )
    said = [(folder / name).read_text(encoding="ascii").strip() for name in files.limits]
    limits = [int(limit) for limit in [*said, told.get(files.inherited, "max")] if limit != "max"]
    limit = min((limit for limit in limits if limit < _UNLIMITED), default=0)
    if not limit:
        raise ValueError(limits)
    cache = sum(int(told[name]) for name in files.cache)
    return max(1, limit - int((folder / files.used).read_text(encoding="ascii")) + cache)


def _available() -> int:
    """Give what the kernel thinks can be had without swapping; where it doesn't say, what there is."""
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = _MEMINFO.read_text(encoding="ascii").splitlines()
        line = next(line for line in lines if line.startswith("MemAvailable:"))
        return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")

"""What builds take of the machine's memory: how much one takes at most, and how many may run at once.

An estimate: the container's limit is what holds. It is there so that several builds at once don't drive a machine into
swap, or one another's steps into the kernel's arms.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from bertir.container import Limits
from bertir.errors import EngineError

if TYPE_CHECKING:
    from bertir.builder import Builder

# The most that a build's containers take together: the step that runs, what runs beside it, and what waits for its inputs. Measured as
# what is resident in all of them, twenty times a second, GB (docs/benchmarks.md): a BERT of 0.002 GB 0.94; BERT-Base (0.438) 2.05 to 2.21, and 2.59
# with its import. BERT-Large (1.34), by the anonymous memory of all, at most 3.51.
OF_ITSELF = 1_150_000_000
PER_WEIGHT_BYTE = 3.5
AT_ONCE = 2  # of a build's steps, each with the container's limit
# Beside its steps: the process that hashes and copies.
OF_HOST = 100_000_000
_MEMINFO = Path("/proc/meminfo")


def estimate(weights: int) -> int:
    """Give the bytes of memory that a build of weights of so many bytes takes at most, whatever the recipe."""
    return OF_HOST + min(OF_ITSELF + int(PER_WEIGHT_BYTE * weights), AT_ONCE * Limits().memory_bytes)


def free_memory(builder: Builder) -> int:
    """Give the bytes that builds may take together: what is free here, and no more than the engine's machine has."""
    free = _available()
    # On this machine, as it mounts folders of it; but that may be a virtual one, which has less. And if none answers,
    # the builds say so.
    with contextlib.suppress(EngineError):
        free = min(free, builder.engine.memory or free)
    return free


def _available() -> int:
    """Give what the kernel thinks can be had without swapping; where it doesn't say, what there is."""
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = _MEMINFO.read_text(encoding="ascii").splitlines()
        line = next(line for line in lines if line.startswith("MemAvailable:"))
        return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")

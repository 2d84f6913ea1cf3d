"""Which locks are stale: each is read as whoever uses it reads it, and says what it isn't true to any more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bertir.host_lock import check_host_locks, check_optimum_lock
from bertir.image import locked_image
from bertir.intent import load_intent
from bertir.job import load_job
from bertir.lock import load_image_lock
from bertir.upstream import load_source_lock, load_upstream

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from bertir.builder import Layout

# In this order they are made: the job's from the image's and the host's. What benchmarks compare with is made when it is asked
# for alone, as it is chosen for one kind of machine.
LOCKS, BENCH_LOCK = ("source", "image", "host", "job"), "bench"


def lock_checks(layout: Layout) -> Mapping[str, Callable[[], object]]:
    """Give what reads each lock, by its name; it raises a LockError or a ConfigurationError if something is amiss."""

    def job() -> object:
        step = load_intent(layout.docker)
        return load_job(layout.root, step, load_image_lock(layout.docker, step))

    return {
        "source": lambda: load_source_lock(layout.patches, load_upstream(layout.patches)),
        "image": lambda: locked_image(load_intent(layout.docker), load_image_lock(layout.docker)),
        "host": lambda: check_host_locks(layout.root),
        "job": job,
        BENCH_LOCK: lambda: check_optimum_lock(layout.root),
    }

"""What many targets cost: cached ones, and those of `invoke build-matrix` with one job and with two."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.contenders import Contender
from benchmarks.runs import Run
from benchmarks.workplace import FailedError, fresh_store

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from benchmarks.workplace import Ground

NUMBERS = (1, 10, 100)
JOBS = (1, 2)
MATRIX = "build-matrix"


def cached(number: int) -> Callable[[Ground], Run]:
    """Publish so many targets of which every step is in the store, by one `invoke build-matrix`.

    They are copies of one checkpoint under other names: as many to find, to read, and to publish as if they differed.
    """

    def run(ground: Ground) -> Run:
        if ground.store is None:
            raise FailedError("there was no cold build before")
        folder = ground.place.folder / f"cached-{number}"
        lists = [
            f"--checkpoints={','.join(_copies(ground, folder, number))}",
            f"--output={folder / 'output'}",
        ]
        if not (folder / "output").exists():  # what is published for the first time is written
            ground.place.invoke(MATRIX, *lists, store=ground.store)
        return Run(cost=ground.place.invoke(MATRIX, *lists, store=ground.store).total)

    return run


def _copies(ground: Ground, folder: Path, number: int) -> list[str]:
    """Give so many folders that hold the checkpoint."""
    copies = [folder / f"{ground.subject.name}-{copy}" for copy in range(number)]
    for copy in copies:
        copy.mkdir(parents=True, exist_ok=True)
        for path in ground.checkpoint.iterdir():
            if not (copy / path.name).exists():
                (copy / path.name).hardlink_to(path)
    return [str(copy) for copy in copies]


def matrix(jobs: int) -> Callable[[Ground], Run]:
    """Build both recipes in both precisions by `invoke build-matrix`, in a store that has no record of any step."""

    def run(ground: Ground) -> Run:
        folder = ground.place.empty_folder(f"matrix-{jobs}")
        store = folder / "store"
        fresh_store(ground, store)
        ended = ground.place.invoke(
            MATRIX,
            f"--checkpoints={ground.checkpoint}",
            "--recipes=reshapable,meta-graph",
            "--precisions=fp16,fp32",
            f"--jobs={jobs}",
            f"--output={folder / 'output'}",
            store=store,
        )
        return Run(cost=ended.total)

    return run


def cached_contenders() -> list[Contender]:
    return [
        Contender(name=f"cached-{number}", title=f"{number} cached", run=cached(number), times=5)
        for number in NUMBERS
    ]


def matrix_contenders() -> list[Contender]:
    return [
        Contender(name=f"matrix-{jobs}", title=f"`invoke {MATRIX} --jobs {jobs}`", run=matrix(jobs), times=3)
        for jobs in JOBS
    ]

"""What many targets cost: cached ones in one process, and those of `invoke build-matrix` with one job and two."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from tiny_bert import make_model

from benchmarks.contenders import Contender, commands
from benchmarks.workplace import FailedError, Run, SkippedError, fresh_store

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.workplace import Ground

NUMBERS = (1, 10, 100)
JOBS = (1, 2)
MATRIX = "build-matrix"


def cached(number: int) -> Callable[[Ground], Run]:
    """Realise so many targets that are in the store, in one process."""

    def run(ground: Ground) -> Run:
        if ground.store is None:
            raise FailedError("there was no cold build before")
        place = ground.place
        command = [sys.executable, "-m", "benchmarks.cached_targets", str(number), str(ground.checkpoint)]
        output = place.folder / f"{ground.subject.name}-output"
        paths = f"{place.root}:{place.root / 'src'}"
        environment = {"PYTHONPATH": paths, "BERTIR_STORE": str(ground.store)}
        return Run(
            cost=place.command(*command, str(output), folder=place.root, environment=environment).total
        )

    return run


def matrix(jobs: int) -> Callable[[Ground], Run]:
    """Build both recipes in both precisions by `invoke build-matrix`, in a store that has no record of any step."""

    def run(ground: Ground) -> Run:
        place = ground.place
        if not _has_task(ground):
            raise SkippedError(f"this checkout has no task {MATRIX}")
        folder = place.empty_folder(f"matrix-{jobs}")
        contents = {path.name: path.read_bytes() for path in ground.hugging_face.iterdir()}
        wheel = folder / "wheel"
        wheel.mkdir()
        model = make_model(wheel, contents)
        store = folder / "store"
        fresh_store(ground, store)
        ended = place.invoke(
            MATRIX,
            "--models=tiny-bert",
            "--recipes=reshapable,meta-graph",
            "--precisions=fp16,fp32",
            f"--jobs={jobs}",
            f"--output={folder / 'output'}",
            store=store,
            environment=model.environment,
        )
        return commands((MATRIX, ended))

    return run


def _has_task(ground: Ground) -> bool:
    listed = ground.place.command(sys.executable, "-m", "invoke", "--list", folder=ground.place.root).output
    return any(line.split()[:1] == [MATRIX] for line in listed.splitlines())


def cached_contenders() -> list[Contender]:
    return [
        Contender(name=f"cached-{number}", title=f"{number} cached", run=cached(number), times=5)
        for number in NUMBERS
    ]


def matrix_contenders() -> list[Contender]:
    return [
        Contender(name=f"matrix-{jobs}", title=f"`{MATRIX} --jobs {jobs}`", run=matrix(jobs), times=3)
        for jobs in JOBS
    ]

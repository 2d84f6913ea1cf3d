"""One run of the suite: every contender once a round, so that whatever else the machine does falls on all of them."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from benchmarks import optimum
from benchmarks.containers import Events
from benchmarks.contenders import contenders
from benchmarks.machine import machine, versions
from benchmarks.many import cached_contenders, matrix_contenders
from benchmarks.patched import copy_checkout
from benchmarks.results import Result, Results
from benchmarks.shapes import BERT_BASE, BERT_TINY, describe
from benchmarks.workplace import Workplace, prepare, run_folder, successful, template_store
from bertir.errors import BertirError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from benchmarks.contenders import Contender
    from benchmarks.workplace import Ground
    from bertir.progress import Progress

CACHED, MATRIX = "cached", "matrix"
# Of bertir's own variables none but those that say where something comes from: the suite has stores of its own.
_KEPT = {"BERTIR_BERT_URL", "BERTIR_MIRROR", "BERTIR_DEBIAN_MIRROR"}


@dataclass(frozen=True, kw_only=True)
class Group:
    """Contenders that are compared with one another, on one shape."""

    name: str
    title: str
    ground: Ground
    contenders: Sequence[Contender]


def run_suite(
    root: Path,
    environment: Mapping[str, str],
    cache: Path,
    progress: Progress,
    *,
    quick: bool,
    rounds: int | None = None,
) -> Results:
    """Measure everything.

    Args:
        root: of the checkout.
        environment: of the process.
        cache: folder of what is kept between runs.
        progress: where progress is told.
        quick: the tiny shape alone, in one round.
        rounds: at most so many; None is as many as each contender wants.

    Raises:
        BertirError: there is no engine, or what all contenders need can't be made.
    """
    told, used = machine(), versions(root)
    begun, date = time.monotonic(), datetime.now(UTC)
    with run_folder(cache) as folder, Events() as events:
        place = Workplace(
            root=root,
            cache=cache,
            folder=folder,
            token=f"bench-{folder.name}",
            image=used["image"],
            events=events,
            environment={
                name: value
                for name, value in environment.items()
                # Else a module that was changed would be compiled anew by each run, which is nobody's way.
                if name != "PYTHONDONTWRITEBYTECODE" and (not name.startswith("BERTIR_") or name in _KEPT)
            },
            progress=progress,
        )
        groups = _groups(place, environment, quick=quick)
        most = 1 if quick else rounds
        results = [result for group in groups for result in measure_rounds(group, progress, most=most)]
    return Results(
        date=date.isoformat(timespec="seconds"),
        seconds=round(time.monotonic() - begun, 1),
        quick=quick,
        machine=told,
        versions=used,
        groups={group.name: group.title for group in groups},
        results=tuple(results),
    )


def _groups(place: Workplace, environment: Mapping[str, str], *, quick: bool) -> list[Group]:
    place.progress.say("bench", "seeing that the image is loaded")
    loaded = place.command(
        sys.executable, "-m", "invoke", "image", folder=place.root, environment=environment
    )
    successful(loaded, "invoke image")
    programs, reason = None, ""
    try:
        programs = optimum.virtualenv(place.root, place.cache / "optimum", place.progress)
    except BertirError as error:
        reason = str(error)
        place.progress.say("optimum", reason)
    template = template_store(place.root, place.environment, place.folder / "template")
    checkout = copy_checkout(place.root, place.folder / "checkout")
    grounds = {
        subject.name: prepare(place, subject, template, checkout)
        for subject in ([BERT_TINY] if quick else [BERT_BASE, BERT_TINY])
    }
    all_ = contenders(programs, reason)
    shapes = [
        Group(name=name, title=describe(ground.subject), ground=ground, contenders=all_)
        for name, ground in grounds.items()
    ]
    tiny = grounds[BERT_TINY.name]
    return [
        *shapes,
        Group(
            name=CACHED,
            title="targets of the tiny shape of which every step is in the store, in one process",
            ground=tiny,
            contenders=cached_contenders(),
        ),
        Group(
            name=MATRIX,
            title="both recipes in both precisions of the tiny shape, cold store",
            ground=tiny,
            contenders=matrix_contenders(),
        ),
    ]


def measure_rounds(group: Group, progress: Progress, *, most: int | None = None) -> list[Result]:
    """Run each contender once a round, as often as it wants to be; one that fails isn't tried again."""
    results = {one.name: Result(group=group.name, name=one.name, title=one.title) for one in group.contenders}
    rounds = max(one.times for one in group.contenders)
    if most is not None:
        rounds = min(rounds, most)
    for number in range(rounds):
        for one in group.contenders:
            result = results[one.name]
            if number >= one.times or result.failed:
                continue
            try:
                run = one.run(group.ground)
            except BertirError as error:
                result.failed = f"failed: {error}"
                progress.say(group.name, f"round {number + 1}: {one.name} {result.failed}")
            else:
                result.runs.append(run)
                progress.say(group.name, f"round {number + 1}: {one.name} {run.cost.seconds:.2f} s")
    return list(results.values())

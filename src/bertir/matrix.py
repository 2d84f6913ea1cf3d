"""Many builds, of which none stops the others: what needs no step is published at once, then the rest is built.

A whole build is one piece of work, done in a process of its own (workers.py). Steps that several of them share run once,
as the store's locks see to it (derivation.py): whoever comes second waits, and finds the artifact.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
import traceback
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertir import materials, pipeline, show
from bertir.amount import size
from bertir.ended import BUILT, FAILED, PUBLISHED, REFUSED, UNCHANGED, Ended, Matrix
from bertir.engines import chosen
from bertir.errors import BertirError, ConfigurationError
from bertir.healing import healed
from bertir.memory import estimate, free_memory
from bertir.model import load_models
from bertir.preflight import Rehearsal, is_stored, weight_bytes
from bertir.progress import Level, Progress
from bertir.redact import PASSPHRASE, shown
from bertir.relay import followed, relayed, show_ended
from bertir.session import Session
from bertir.store import Artifact
from bertir.targets import expand, in_turn
from bertir.weights import of_checkpoint, of_model, require_length

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from bertir.builder import Builder, Layout
    from bertir.local_checkpoint import Options
    from bertir.materials import Pins
    from bertir.model import Model
    from bertir.publish import Published
    from bertir.report import Build
    from bertir.targets import Target
    from bertir.wanted import Lists, Work


MOST_JOBS = 61  # as many as the standard library's pool takes anywhere


@dataclass(frozen=True, kw_only=True)
class Order:
    """A build, for a process that knows nothing yet.

    Args:
        started: when all of it began, by the machine's monotonic clock.
        takes: the bytes of memory that it takes at most.
        memory: those that there are for all.
        level: how much it tells.
        pipe: where its progress is shown (relay.py); none if nowhere.
    """

    target: Target
    layout: Layout
    environment: Mapping[str, str]
    started: float
    output: Path
    offline: bool
    mirror: str
    paranoid: bool
    engine: str
    takes: int
    memory: int
    level: Level
    pipe: str


def build_matrix(session: Session, lists: Lists, work: Work) -> Matrix:
    """Build every combination of `lists`.

    Raises:
        ConfigurationError: a list or an option can't be; nothing is begun.
        Interrupted: a signal came; nothing runs any more.
    """
    begun = time.monotonic()
    jobs = _jobs(work.jobs)
    memory = size("--memory", work.memory) if work.memory else None
    models = load_models(session.layout.models)
    targets = expand(lists, models)
    output = Path(work.output)
    engine = chosen(work.engine, session.environment)
    with session.builder(
        offline=work.offline or bool(work.bundle),
        mirror=work.mirror,
        paranoid=work.paranoid,
        engine=engine,
    ) as builder:
        if work.bundle:
            wanted = [target.request.model or None for target in targets]
            materials.unpack(builder, wanted, Path(work.bundle), task_data=lists.task_data)
        found = {ended.target: ended for ended in done_already(builder, targets, output)}
        if left := in_turn(target for target in targets if target not in found):
            memory = free_memory(builder) if memory is None else memory
            with builder.store.temporary_folder() as folder, followed(session.progress, folder) as pipe:
                orders = [
                    Order(
                        target=target,
                        layout=session.layout,
                        environment={
                            name: value for name, value in session.environment.items() if name != PASSPHRASE
                        },
                        started=session.progress.started,
                        output=output,
                        offline=builder.fetcher.offline,
                        mirror=work.mirror,
                        paranoid=work.paranoid,
                        engine=engine,
                        takes=_takes(target, models),
                        memory=memory,
                        level=session.progress.level,
                        pipe=pipe,
                    )
                    for target in left
                ]
                show_ended(session.progress, len(found), len(targets))
                for ended in build_all(orders, jobs=jobs, memory=memory):
                    found[ended.target] = ended
                    show_ended(session.progress, len(found), len(targets), ended.target.name)
    return Matrix(
        ended=[found[target] for target in targets],
        jobs=jobs,
        memory=memory,
        seconds=time.monotonic() - begun,
    )


def _jobs(text: str) -> int:
    jobs = 0
    with contextlib.suppress(ValueError):  # Python reads no number of over 4,300 digits
        jobs = int(text) if text.isascii() and text.isdigit() else 0
    if text and not 1 <= jobs <= MOST_JOBS:
        raise ConfigurationError(f"--jobs must be a whole number from 1 to {MOST_JOBS}, and is {shown(text)}")
    return jobs or min(len(os.sched_getaffinity(0)), MOST_JOBS)


def _takes(target: Target, models: Mapping[str, Model]) -> int:
    model = None if target.checkpoint else models[target.request.model]
    return estimate(weight_bytes(model, target.local))


# what needs no step


def done_already(builder: Builder, targets: Iterable[Target], output: Path) -> Iterator[Ended]:
    """Publish what has every step in the store, and refuse what can't be; of most of the others nothing is said.

    No step is run, nothing is fetched, no engine is asked, and no process is started for it.
    """
    store = _Stored(
        builder=builder,
        rehearsal=Rehearsal.of(builder),
        pins=builder.pins,
        output=output,
    )
    for target in targets:
        begun, result = time.monotonic(), REFUSED
        try:
            store.require(target)
            result = FAILED
            given = store.publish(target)
        except ConfigurationError as error:
            ended = _wrong(target, error, time.monotonic() - begun, result)
        except (BertirError, OSError):  # a step that is to be done; or what the build itself will say
            continue
        else:
            if given is None:
                continue
            ended = _published(target, *given, time.monotonic() - begun)
        _tell(replace(builder.progress, about=target.name), ended)
        yield ended


@dataclass(frozen=True, kw_only=True)
class _Stored:
    """What the builds of the store alone have in common.

    Args:
        checkpoints: which of the user's were looked for, and whether they are in the store.
    """

    builder: Builder
    rehearsal: Rehearsal
    pins: Pins
    output: Path
    checkpoints: dict[Options, bool] = field(default_factory=dict)

    def require(self, target: Target) -> None:
        """Refuse what no build can begin with.

        Raises:
            ConfigurationError.
        """
        pipeline.check(target.request)
        if target.local:
            weights = of_checkpoint(target.local, Artifact(files={}))
        else:
            weights = of_model(self.pins.models[target.request.model])
        require_length(weights, target.request.tokens(weights.max_positions))

    def publish(self, target: Target) -> tuple[Build, Published] | None:
        local = target.local
        if target.checkpoint:
            # Read once for all builds of it; and not copied into the store before there was seen to be room.
            if target.checkpoint not in self.checkpoints:
                self.checkpoints[target.checkpoint] = is_stored(self.builder.store, local)
            if not self.checkpoints[target.checkpoint]:
                return None
        build = pipeline.build_and_verify(self.rehearsal, target.request, self.pins, local)
        return build, pipeline.publish_build(self.builder, build, self.output)


# what does


def build_all(orders: Sequence[Order], *, jobs: int, memory: int) -> Iterator[Ended]:
    """Build them, and give each as it ends.

    Raises:
        Interrupted: a signal came; nothing runs any more.
    """
    from bertir.workers import Budget, Lost, do_all

    budget = Budget(jobs=jobs, memory=memory)
    for order, ended in do_all(build, orders, budget, lambda order: order.takes):
        if isinstance(ended, Lost):
            error = BertirError(
                "its process, or that of another build beside it, was killed",
                advice="Is the machine short of memory (dmesg)? Run the same command again, or with fewer --jobs:"
                " what was finished is in the store.",
            )
            yield _wrong(order.target, error, 0.0)
        else:
            yield ended


def build(order: Order) -> Ended:
    """Build in this process, and give how it ended, whatever that was."""
    with relayed(order.pipe, order.target.name) as view:
        progress = Progress(
            stream=sys.stderr,
            started=order.started,
            about=order.target.name,
            level=order.level,
            view=view,
        )
        ended = _ended(order, progress)
        _tell(progress, ended)
    return ended


def _ended(order: Order, progress: Progress) -> Ended:
    target, begun = order.target, time.monotonic()
    session = Session(layout=order.layout, environment=order.environment, progress=progress)
    try:
        local = target.local
        with session.builder(
            offline=order.offline,
            mirror=order.mirror,
            paranoid=order.paranoid,
            engine=order.engine,
            memory=order.memory,
        ) as builder:
            built, published = healed(
                lambda: pipeline.build_ir(builder, target.request, order.output, local), progress
            )
    except Exception as error:  # noqa: BLE001 - the other builds go on, whatever it is
        if not isinstance(error, (BertirError, OSError, MemoryError, RecursionError)):
            traceback.print_exc()  # a fault of bertir's
        return _wrong(target, error, time.monotonic() - begun)
    return _published(target, built, published, time.monotonic() - begun)


# how it ended


def _published(target: Target, built: Build, published: Published, seconds: float) -> Ended:
    facts = show.build_facts(built, published, seconds)
    if any(not step.cached for step in built.steps):
        result = BUILT
    else:
        result = UNCHANGED if published.unchanged else PUBLISHED
    return Ended(target=target, result=result, seconds=seconds, facts=facts)


def _wrong(target: Target, error: Exception, seconds: float, result: str = FAILED) -> Ended:
    told = error if isinstance(error, BertirError) else BertirError(_words(error))
    facts: dict[str, Any] = show.error_facts(told)["error"]
    return Ended(target=target, result=result, seconds=seconds, error=facts)


def _words(error: Exception) -> str:
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename is not None else ""
        return f"{where}{error.strerror or error}"
    return f"{type(error).__name__}: {error}"


def _tell(progress: Progress, ended: Ended) -> None:
    first = ended.error["message"].splitlines()[0] if ended.error else f"in {ended.seconds:.1f} s"
    progress.say("matrix", f"{ended.result}: {first}" if ended.error else f"{ended.result} {first}")

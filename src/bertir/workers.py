"""Several pieces of work at once, each in a process of its own: the standard library's pool, a budget of memory, and their end.

Signals: a terminal's Ctrl-C reaches every process of its foreground. The workers don't listen to it; this process does,
and passes on the first one, once. Each worker then ends its work in order, as a single build does (interruption.py), and
what else is pressed reaches this process alone. A worker whose parent was killed is killed by the kernel, and the next
run clears away what is left.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self, TypeVar

from bertir.interruption import SIGNALS, Interrupted, end_with_parent, held, interruptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Future
    from types import FrameType, TracebackType

Order = TypeVar("Order")
Given = TypeVar("Given")


@dataclass(frozen=True, kw_only=True)
class Lost:
    """Stands for what a worker would have given that was ended from outside in the middle of its work."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How much may be done at once.

    Args:
        jobs: pieces of work.
        memory: bytes that they may take together; what takes more by itself is done alone.
    """

    jobs: int
    memory: int


def do_all(
    work: Callable[[Order], Given],
    orders: Sequence[Order],
    budget: Budget,
    takes: Callable[[Order], int],
) -> Iterator[tuple[Order, Given | Lost]]:
    """Do the work for each order, as many at once as the budget allows, and give what came of each as it ends.

    They begin in the order given, except that one which has not the memory yet lets others pass. `work`, the orders and
    what comes of them go from process to process, so they must be picklable; what `work` raises ends everything.

    Raises:
        Interrupted: a signal came. All work has ended then.
    """
    waiting = list(orders)
    running: dict[Future[Given | Lost], Order] = {}
    with _Workers(budget.jobs) as workers:
        while waiting or running:
            while (place := _next(waiting, list(running.values()), budget, takes)) is not None:
                order = waiting.pop(place)
                running[workers.begin(work, order)] = order
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                order = running.pop(future)
                try:
                    given = future.result()
                except BrokenProcessPool:  # it or another was killed: the pool ends all of its workers then
                    given = Lost()
                yield order, given


def _next(
    waiting: Sequence[Order], running: Sequence[Order], budget: Budget, takes: Callable[[Order], int]
) -> int | None:
    """Give the place of the first that fits beside what runs; beside nothing anything does."""
    if len(running) >= budget.jobs:
        return None
    left = budget.memory - sum(map(takes, running))
    places = (place for place, order in enumerate(waiting) if not running or takes(order) <= left)
    return next(places, None)


class _Workers:
    """A pool of processes, made anew if one of them is killed. A context manager: at its end none is left."""

    def __init__(self, jobs: int) -> None:
        self._jobs = jobs
        self._pool = self._fresh()

    def _fresh(self) -> ProcessPoolExecutor:
        # By `spawn`: a fork has whatever locks other threads held.
        return ProcessPoolExecutor(
            self._jobs, mp_context=multiprocessing.get_context("spawn"), initializer=_get_ready
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with held():
            if kind is not None:
                for process in multiprocessing.active_children():
                    process.terminate()
            self._pool.shutdown(cancel_futures=True)

    def begin(self, work: Callable[[Order], Given], order: Order) -> Future[Given | Lost]:
        # A worker begins with the signals that are blocked here, and so can't be ended before it is ready to.
        with held(), _blocked():
            try:
                return self._pool.submit(_do, work, order)
            except BrokenProcessPool:
                self._pool = self._fresh()
                return self._pool.submit(_do, work, order)


@contextlib.contextmanager
def _blocked() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# in a worker


class _Idle:
    """What an idle worker does when it is told to end: it remembers that. Found again as the process's own handler."""

    def __init__(self) -> None:
        self.told = False

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        self.told = True


def _get_ready() -> None:
    end_with_parent(signal.SIGKILL)
    # Never ignored, be it for a moment: one that has come meanwhile, and is blocked, would be forgotten.
    signal.signal(signal.SIGTERM, _Idle())
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    parent = multiprocessing.parent_process()
    if (
        parent is None or os.getppid() != parent.pid
    ):  # it was killed before it could be asked to take this one along
        os._exit(1)


def _do(work: Callable[[Order], Given], order: Order) -> Given | Lost:
    idle = signal.getsignal(signal.SIGTERM)
    try:
        with interruptions():
            # Told before `interruptions` was there; what comes from here on is raised.
            if isinstance(idle, _Idle) and idle.told:
                return Lost()
            return work(order)
    except Interrupted:
        return Lost()

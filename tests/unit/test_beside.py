from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING

import pytest

from bertir.beside import Stop, beside
from bertir.interruption import Interrupted, held, interruptions

if TYPE_CHECKING:
    from collections.abc import Iterator


pytestmark = pytest.mark.usefixtures("signals")


def test_work_is_done_beside_the_block_and_gives_its_result() -> None:
    met = threading.Barrier(2, timeout=60)

    def work(_: Stop) -> int:
        met.wait()
        return 7

    with beside(work) as future:
        met.wait()
    assert future.result() == 7


def test_a_failure_of_the_work_is_told_in_place_of_one_of_the_block() -> None:
    def work(_: Stop) -> None:
        raise ValueError("the work's")

    with pytest.raises(ValueError, match="the work's"), beside(work):
        raise TypeError("the block's")


def test_a_failure_of_the_block_is_told_if_the_work_has_none_and_the_work_is_finished() -> None:
    done: list[int] = []

    def work(stop: Stop) -> None:
        done.extend(stop.until(range(3)))

    with pytest.raises(TypeError, match="the block's"), beside(work):
        raise TypeError("the block's")
    assert done == [0, 1, 2]


def test_work_without_end_ends_when_the_block_is_interrupted() -> None:
    begun = threading.Event()
    ended = []

    def for_ever() -> Iterator[int]:
        until = time.monotonic() + 60
        while time.monotonic() < until:  # for ever, were it not that a test must end
            begun.set()
            time.sleep(0.001)
            yield 1

    def work(stop: Stop) -> None:
        try:
            for _ in stop.until(for_ever()):
                pass
        except CancelledError:
            ended.append(threading.current_thread())
            raise

    with pytest.raises(Interrupted), interruptions(), beside(work):  # noqa: PT012 - signalled once the work goes
        assert begun.wait(60)
        signal.raise_signal(signal.SIGINT)
    assert [thread.is_alive() for thread in ended] == [False]


@pytest.mark.parametrize("block_fails", [True, False])
def test_work_without_end_ends_when_it_is_the_wait_for_it_that_is_interrupted(*, block_fails: bool) -> None:
    done = threading.Event()
    ended: list[str] = []  # a thread's is_alive is wrong once Python was interrupted while it waited for it

    def for_ever() -> Iterator[int]:
        until = time.monotonic() + 10
        while time.monotonic() < until:  # for ever, were it not that a test must end
            time.sleep(0.001)
            yield 1

    def work(stop: Stop) -> None:
        assert done.wait(60)
        time.sleep(0.1)  # the block has ended, and the main thread waits
        os.kill(os.getpid(), signal.SIGINT)
        try:
            for _ in stop.until(for_ever()):
                pass
            ended.append("by itself")
        except CancelledError:
            ended.append("as it was told to")
            raise

    with pytest.raises(Interrupted), interruptions(), beside(work):  # noqa: PT012 - signalled once it has ended
        done.set()
        if block_fails:
            raise TypeError("the block's")
    assert ended == ["as it was told to"]


def test_what_a_thread_holds_keeps_no_signal_from_the_main_one() -> None:
    holding, told = threading.Event(), threading.Event()

    def work(_: Stop) -> str:
        with held():
            holding.set()
            assert told.wait(60)
        return "nothing was raised here"

    with interruptions(), beside(work) as future:
        assert holding.wait(60)
        try:
            with pytest.raises(Interrupted):
                signal.raise_signal(signal.SIGTERM)
        finally:
            told.set()
    assert future.result() == "nothing was raised here"

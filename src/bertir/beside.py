"""Do one piece of work in a thread beside another, and leave neither behind."""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import CancelledError, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Future

T = TypeVar("T")


class Stop:
    """Tells work in a thread that it isn't wanted any more."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        self._event.set()

    def until(self, items: Iterable[T]) -> Iterator[T]:
        """Give the items; once it is set, raise `CancelledError` in place of the next."""
        for item in items:
            if self._event.is_set():
                raise CancelledError
            yield item


@contextlib.contextmanager
def beside(work: Callable[[Stop], T]) -> Iterator[Future[T]]:
    """Do `work` in a thread while the block runs. The thread has ended when the block has.

    If the block fails, the work goes on to its end, and a failure of it is what is raised: what the block
    was doing may have failed for the same reason. If the block is interrupted, or the wait for the work is, the work is told to
    stop.
    """
    stop, pool = Stop(), ThreadPoolExecutor(1)
    try:
        future = pool.submit(work, stop)
        try:
            yield future
        except Exception:
            future.result()
            raise
        wait([future])
    except BaseException:  # an interruption while it was waited for, too
        stop.set()
        raise
    finally:
        pool.shutdown()

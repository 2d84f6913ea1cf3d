"""A pool of real processes: how many run at once, what one that is killed costs, and how all of them end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pool_work
import pytest
from checkout import ROOT
from pool_work import Piece, beside, failing, killed, told_to_end
from running_task import STATUSES, wait_until

from bertir.workers import Budget, Lost, _next, do_all

if TYPE_CHECKING:
    from collections.abc import Iterator

MUCH = 1000


def memory(piece: Piece) -> int:
    return piece.memory


def test_each_piece_of_work_gives_what_came_of_it(tmp_path: Path) -> None:
    pieces = [Piece(folder=tmp_path, name=name) for name in "abc"]
    given = list(do_all(killed, pieces, Budget(jobs=2, memory=MUCH), memory))
    assert sorted(given, key=lambda item: item[0].name) == [(piece, piece.name) for piece in pieces]


def test_nothing_to_do_starts_nothing() -> None:
    assert list(do_all(killed, [], Budget(jobs=2, memory=MUCH), memory)) == []


def test_as_many_as_there_are_jobs_run_at_once(tmp_path: Path) -> None:
    one = Piece(folder=tmp_path, name="one", waits_for="other")
    other = Piece(folder=tmp_path, name="other", waits_for="one")
    assert len(list(do_all(beside, [one, other], Budget(jobs=2, memory=MUCH), memory))) == 2


@pytest.mark.parametrize(
    "budget", [Budget(jobs=1, memory=MUCH), Budget(jobs=4, memory=10)], ids=["one job", "no memory for two"]
)
def test_what_may_not_run_beside_another_does_not(tmp_path: Path, budget: Budget) -> None:
    pieces = [Piece(folder=tmp_path, name=name, memory=6) for name in "abcd"]
    assert [others for _, others in do_all(beside, pieces, budget, memory)] == [[], [], [], []]


@pytest.mark.parametrize(
    ("waiting", "running", "jobs", "place"),
    [
        ([6, 6], [], 2, 0),
        ([6, 6], [6], 2, None),
        ([6, 4], [6], 2, 1),  # one that fits is let past
        ([4, 4], [6], 2, 0),
        ([1, 1], [1, 1], 2, None),
        ([99, 1], [], 2, 0),  # too large for the budget: alone
        ([99, 1], [1], 2, 1),
        ([1], [99], 2, None),  # and nothing beside it
        ([], [1], 2, None),
    ],
)
def test_the_first_that_fits_into_the_memory_is_next(
    tmp_path: Path, waiting: list[int], running: list[int], jobs: int, place: int | None
) -> None:
    def pieces(sizes: list[int]) -> list[Piece]:
        return [Piece(folder=tmp_path, name="", memory=size) for size in sizes]

    assert _next(pieces(waiting), pieces(running), Budget(jobs=jobs, memory=10), memory) == place


def test_a_worker_that_is_killed_costs_its_own_piece_and_no_later_one(tmp_path: Path) -> None:
    pieces = [Piece(folder=tmp_path, name=name) for name in ("first", "killed", "third", "fourth")]
    given = [came for _, came in do_all(killed, pieces, Budget(jobs=1, memory=MUCH), memory)]
    assert given == ["first", Lost(), "third", "fourth"]


def test_what_runs_beside_a_worker_that_is_killed_is_ended_in_order(tmp_path: Path) -> None:
    (tmp_path / "enough").touch()
    # The first two see to it that there are two workers, and that the pool has an eye on both.
    waits = {"one": "other", "other": "one", "killed": "beside", "beside": "", "fifth": ""}
    pieces = [Piece(folder=tmp_path, name=name, waits_for=other) for name, other in waits.items()]
    given = {piece.name: came for piece, came in do_all(killed, pieces, Budget(jobs=2, memory=MUCH), memory)}
    assert given == {"one": "one", "other": "other", "killed": Lost(), "beside": Lost(), "fifth": "fifth"}
    wait_until((tmp_path / "beside is clean").exists, "its end")
    assert not (tmp_path / "beside was not ended").exists()


def test_a_worker_that_is_told_to_end_by_somebody_else_costs_its_own_piece(tmp_path: Path) -> None:
    pieces = [Piece(folder=tmp_path, name=name) for name in ("told", "second")]
    given = [came for _, came in do_all(told_to_end, pieces, Budget(jobs=1, memory=MUCH), memory)]
    assert given == [Lost(), "second"]


def test_what_the_work_raises_is_raised_when_all_has_ended(tmp_path: Path) -> None:
    (tmp_path / "enough").touch()
    pieces = [Piece(folder=tmp_path, name=name) for name in ("fails", "beside", "third")]
    with pytest.raises(ValueError, match="fails"):
        list(do_all(failing, pieces, Budget(jobs=2, memory=MUCH), memory))
    assert (tmp_path / "beside is clean").exists()
    assert not (tmp_path / "beside was not ended").exists()


# how it ends


@contextlib.contextmanager
def working(folder: Path, *, pieces: int, jobs: int) -> Iterator[subprocess.Popen[str]]:
    environment = dict(os.environ) | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'tests' / 'support'}"}
    with subprocess.Popen(
        [sys.executable, pool_work.__file__, str(folder), str(pieces), str(jobs)],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def ended_by_control_c(process: subprocess.Popen[str]) -> bool:
    """Press it once more, unless that has ended the process."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.1)
    return process.poll() is not None


def is_empty(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


def marks(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


ENDED = {f"{name} {what}" for name in "01" for what in ("has begun", "cleans up", "is clean")}


@pytest.mark.parametrize("kind", ["SIGTERM", "SIGINT", "SIGINT twice"])
def test_a_signal_ends_all_that_runs_in_order_and_nothing_more_begins(tmp_path: Path, kind: str) -> None:
    with working(tmp_path, pieces=3, jobs=2) as process:
        wait_until(lambda: {"0 has begun", "1 has begun"} <= marks(tmp_path), "both to begin")
        # Ctrl-C reaches everything in the terminal's foreground, and SIGTERM this process alone.
        if kind == "SIGTERM":
            process.terminate()
        else:
            os.killpg(process.pid, signal.SIGINT)
        wait_until(lambda: {"0 cleans up", "1 cleans up"} <= marks(tmp_path), "both to clean up")
        if kind == "SIGINT twice":
            os.killpg(process.pid, signal.SIGINT)
        (tmp_path / "enough").touch()
        _, said = process.communicate(timeout=60)
        assert process.returncode == STATUSES[kind]
        assert marks(tmp_path) == {*ENDED, "enough"}
        assert "Traceback" not in said
        assert ("cleaning up" in said) == (kind == "SIGINT twice")
        wait_until(lambda: is_empty(process.pid), "the end of every process")


@pytest.mark.parametrize("later", [0.0, 0.02, 0.05, 0.1, 0.2])
def test_a_worker_that_has_not_begun_yet_is_ended_too(tmp_path: Path, later: float) -> None:
    (tmp_path / "enough").touch()
    with working(tmp_path, pieces=1, jobs=1) as process:
        # As soon as there is a worker: its interpreter is only just starting.
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        wait_until(lambda: len(children.read_text(encoding="ascii").split()) > 1, "a worker")
        time.sleep(later)
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=60)
        assert (process.returncode, said) == (130, "")
        assert marks(tmp_path) in ({"enough"}, {"enough", "0 has begun", "0 cleans up", "0 is clean"})


@pytest.mark.parametrize("kind", ["third Ctrl-C", "SIGKILL"])
def test_if_this_process_is_ended_at_once_so_are_its_workers(tmp_path: Path, kind: str) -> None:
    with working(tmp_path, pieces=2, jobs=2) as process:
        wait_until(lambda: {"0 has begun", "1 has begun"} <= marks(tmp_path), "both to begin")
        if kind == "SIGKILL":
            process.kill()
        else:
            # Of signals that come faster than they are heard, several are one.
            wait_until(lambda: ended_by_control_c(process), "its end")
        assert process.wait(timeout=60) == (-signal.SIGKILL if kind == "SIGKILL" else 130)
        wait_until(lambda: is_empty(process.pid), "the end of every process")
        assert not {"0 is clean", "1 is clean"} & marks(tmp_path)

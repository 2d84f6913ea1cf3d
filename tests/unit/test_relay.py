"""The view of many builds: what processes of their own tell it, through one pipe."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from bertir.live import LiveView
from bertir.progress import Progress, State
from bertir.relay import followed, relayed, show_ended

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def view() -> LiveView:
    return LiveView(io.StringIO())


@pytest.fixture
def progress(view: LiveView) -> Iterator[Progress]:
    progress = Progress(stream=io.StringIO(), view=view)
    with progress.shown():
        yield progress


def drawn(view: LiveView) -> list[str]:
    console = Console(file=io.StringIO(), width=100, color_system=None)
    with console.capture() as captured:
        console.print(view.drawn(console))
    return [line.rstrip() for line in captured.get().splitlines()]


def until(view: LiveView, wanted: str) -> list[str]:
    """The rows, once one of them is so: events come through a pipe, in their time."""
    for _ in range(500):
        rows = drawn(view)
        if any(re.fullmatch(wanted, row) for row in rows):
            return rows
        time.sleep(0.01)
    pytest.fail(f"no row is {wanted!r}: {drawn(view)}")


def test_each_build_is_a_row_until_it_ends_and_the_first_row_counts_them(
    view: LiveView, progress: Progress, tmp_path: Path
) -> None:
    with (
        followed(progress, tmp_path) as pipe,
        relayed(pipe, "one/fp16") as one,
        relayed(pipe, "other/fp16") as other,
    ):
        assert one
        assert other
        show_ended(progress, 1, 3)
        one.open()
        until(view, r". one/fp16 +0\.\d s begins")
        other.open()
        one.say("freeze", "done in 1.0 s", State.DONE, "")
        one.log("convert", "a line that mo printed")
        other.say("image", "waiting for another process", State.WAITING, "")
        rows = until(view, r"◌ other/fp16 +0\.\d s image: waiting for another process")
        assert re.fullmatch(r". matrix +0\.\d s 1 of 3 ended", rows[0])
        # A stage that is done is not a build that is: its sign is that of what runs.
        assert re.fullmatch(r"▸ one/fp16 +0\.\d s freeze: done in 1\.0 s  a line that mo printed", rows[1])
        one.close()
        other.say("image", "told", State.RUNNING, "")
        rows = until(view, r". other/fp16 +0\.\d s image: told")
        assert not any("one/fp16" in row for row in rows)
        show_ended(progress, 3, 3, "other/fp16")  # it was killed, and said nothing
        [row] = drawn(view)
        assert re.fullmatch(r"✓ matrix +0\.\d s 3 of 3 ended", row)


def test_bytes_that_go_by_in_a_build_are_told_with_their_stage(
    view: LiveView, progress: Progress, tmp_path: Path
) -> None:
    with followed(progress, tmp_path) as pipe, relayed(pipe, "one/fp16") as one:
        there = Progress(stream=io.StringIO(), view=one)
        with there.shown():
            for _ in there.counted("fetch", "a wheel", slowly(), 4_000_000):
                pass
            until(view, r". one/fp16 +\d\.\d s fetch, a wheel: 4\.0 of 4\.0 MB, .*")


def slowly() -> Iterator[bytes]:
    for _ in range(4):
        time.sleep(0.11)
        yield b"x" * 1_000_000


def test_a_fact_of_a_build_is_kept_above_the_rows(tmp_path: Path) -> None:
    stream = io.StringIO()
    progress = Progress(stream=stream, view=LiveView(stream))
    with (
        progress.shown(),
        followed(progress, tmp_path) as pipe,
        relayed(pipe, "one/fp16") as one,
    ):
        assert one
        show_ended(progress, 0, 1)
        one.say("checkpoint", "uncased", None, "[ 0.1 s] checkpoint one/fp16: uncased")
    assert "[ 0.1 s] checkpoint one/fp16: uncased\n" in stream.getvalue()


def test_what_is_no_event_stops_nothing(view: LiveView, progress: Progress, tmp_path: Path) -> None:
    with followed(progress, tmp_path) as pipe:
        descriptor = os.open(pipe, os.O_WRONLY)
        for said in (b"{", b"[]", b"1", b"{}", b"\xff", b'{"about": "a", "stage": "b", "count": {}}'):
            os.write(descriptor, said + b"\n")
        os.close(descriptor)
        with relayed(pipe, "one") as one:
            assert one
            one.open()
        until(view, r". one +0\.\d s begins")


def test_a_pipe_that_is_full_stops_no_build_and_what_matters_is_told_in_a_line(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDWR)  # and reads nothing
    stream = io.StringIO()
    with relayed(str(tmp_path / "pipe"), "one") as one:
        progress = Progress(stream=stream, view=one, about="one")
        for number in range(5000):
            progress.log("freeze", f"line {number} of very many")
        progress.say("freeze", "done", State.DONE)
    os.close(reader)
    assert re.fullmatch(r"\[ +\d\.\d s\] freeze +one: done\n", stream.getvalue())


def test_an_event_is_never_written_in_pieces(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDWR)
    stream = io.StringIO()
    with relayed(str(tmp_path / "pipe"), "one") as one:
        progress = Progress(stream=stream, view=one)
        progress.say("freeze", "ä" * 3000, State.RUNNING)  # more than a pipe takes in one piece
        progress.say("freeze", "short", State.RUNNING)
    told = os.read(reader, 1 << 16).decode().splitlines()
    os.close(reader)
    assert [json.loads(one)["text"] for one in told] == ["short"]
    assert "ä" * 3000 in stream.getvalue()


def test_processes_that_tell_at_once_are_all_heard(
    view: LiveView, progress: Progress, tmp_path: Path
) -> None:
    program = """
import sys
from bertir.progress import Progress, State
from bertir.relay import relayed
with relayed(sys.argv[1], sys.argv[2]) as view:
    progress = Progress(stream=sys.stderr, view=view)
    view.open()
    for number in range(100):
        progress.log("freeze", f"line {number}")
    progress.say("freeze", "the last", State.RUNNING)
"""
    with followed(progress, tmp_path) as pipe:
        told = [
            subprocess.Popen([sys.executable, "-c", program, pipe, name], stderr=subprocess.PIPE)
            for name in ("a", "b", "c")
        ]
        assert [process.communicate()[1] for process in told] == [b"", b"", b""]
        for name in ("a", "b", "c"):
            until(view, rf". {name} +\d\.\d s freeze: the last")


def test_without_a_view_there_is_no_pipe_and_at_its_end_no_thread_is_left(tmp_path: Path) -> None:
    with followed(Progress(stream=io.StringIO()), tmp_path) as pipe:
        assert pipe == ""
    assert list(tmp_path.iterdir()) == []
    progress = Progress(stream=io.StringIO(), view=LiveView(io.StringIO()))
    with followed(progress, tmp_path):
        assert "progress" in {thread.name for thread in threading.enumerate()}
    assert "progress" not in {thread.name for thread in threading.enumerate()}


def test_where_no_pipe_can_be_made_it_is_told_in_lines(tmp_path: Path) -> None:
    progress = Progress(stream=io.StringIO(), view=LiveView(io.StringIO()))
    with followed(progress, tmp_path / "gone") as pipe:
        assert pipe == ""


def test_a_process_that_builds_many_keeps_no_pipe_open(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDWR)
    before = set(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names are compared
    for name in "abc":
        with relayed(str(tmp_path / "pipe"), name) as view:
            assert view
            view.close()
    assert set(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
    os.close(reader)


@pytest.mark.parametrize("pipe", ["", "nobody", "gone"])
def test_a_build_whom_nobody_listens_to_has_no_view(tmp_path: Path, pipe: str) -> None:
    os.mkfifo(tmp_path / "nobody")
    with relayed(str(tmp_path / pipe) if pipe else "", "one") as view:
        assert view is None

"""The live view: what a terminal shows of a build."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from checkout import ROOT
from rich.console import Console

from bertir import live
from bertir.live import LiveView
from bertir.progress import Level, Progress, State, chosen_level, is_for_a_person

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


class Terminal(io.StringIO):
    """A stream that says it is a terminal, or not."""

    def __init__(self, *, terminal: bool = True) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


def rows_of(view: LiveView, *, encoding: str = "utf-8", width: int = 100) -> list[str]:
    """What is drawn at this moment, a line each."""

    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="backslashreplace")
    console = Console(file=stream, width=width, force_terminal=True, color_system=None)
    console.print(view.drawn(console))
    stream.flush()
    buffer = stream.buffer
    assert isinstance(buffer, io.BytesIO)
    return [line.rstrip() for line in buffer.getvalue().decode(encoding).splitlines()]


def shown(view: LiveView) -> Progress:
    return Progress(stream=Terminal(), view=view)


def test_each_stage_has_one_row_with_its_sign_its_time_and_what_it_does() -> None:
    view = LiveView(Terminal())
    progress = shown(view)
    with progress.shown():
        progress.say("freeze", "running in the container", State.RUNNING)
        progress.say("freeze", "done in 1.0 s, 4.2 MB", State.DONE)
        progress.say("convert", "nothing to do, in the store", State.STORED)
        progress.say("verify", "running in the container", State.RUNNING)
        progress.say("image", "waiting for another process that loads it", State.WAITING)
        freeze, convert, verify, image = rows_of(view)
    assert re.fullmatch(r"✓ freeze +0\.\d s done in 1\.0 s, 4\.2 MB", freeze)
    assert re.fullmatch(r"✓ convert +nothing to do, in the store", convert)
    assert re.fullmatch(r"▸ verify +0\.\d s running in the container", verify)
    assert re.fullmatch(r"◌ image +0\.\d s waiting for another process that loads it", image)


def test_bytes_that_go_by_are_told_with_their_rate_and_end_with_their_last() -> None:
    view = LiveView(Terminal())
    progress = shown(view)
    with progress.shown():
        chunks = progress.counted("fetch", "a wheel", slowly([b"x" * 1_000_000] * 4), 4_000_000)
        *_, last = [rows_of(view) for _ in chunks]
        assert re.fullmatch(r"▸ fetch +\d\.\d s a wheel: 3\.0 of 4\.0 MB, \d+\.\d MB/s, \d+ s left", last[0])
        assert re.fullmatch(r"✓ fetch +\d\.\d s a wheel: 4\.0 of 4\.0 MB, .*", rows_of(view)[0])


def slowly(chunks: list[bytes]) -> Iterator[bytes]:
    event = threading.Event()
    for chunk in chunks:
        event.wait(0.11)
        yield chunk


def test_a_stage_that_says_itself_when_it_is_done_is_not_done_with_its_last_byte() -> None:
    view = LiveView(Terminal())
    progress = shown(view)
    with progress.shown():
        progress.say("image", "loading it", State.RUNNING)
        list(progress.counted("image", "loading", slowly([b"x" * 1_000_000] * 2), 2_000_000))
        assert rows_of(view)[0].startswith("▸ image")
        progress.say("image", "loaded", State.DONE)
        assert re.fullmatch(r"✓ image +0\.\d s loaded", rows_of(view)[0])


def test_the_last_line_that_a_step_printed_is_beside_it_and_moves_no_cursor() -> None:
    view = LiveView(Terminal())
    progress = shown(view)
    with progress.shown():
        progress.log("freeze", "of a step that isn't shown")
        progress.say("freeze", "running", State.RUNNING)
        progress.log("freeze", "INFO: \x1b[2J one")
        progress.log("freeze", "")
        assert rows_of(view)[0].endswith(r"running  INFO: \x1b[2J one")
        assert len(rows_of(view, width=40)[0]) <= 40
        progress.say("freeze", "done", State.DONE)
        assert rows_of(view)[0].endswith("done")


def test_a_terminal_without_such_signs_gets_others() -> None:
    view = LiveView(Terminal())
    with shown(view).shown():
        shown(view).say("freeze", "running", State.RUNNING)
        assert rows_of(view, encoding="latin-1")[0].startswith("> freeze")


def test_what_had_not_ended_when_the_build_did_was_stopped() -> None:
    stream = Terminal()
    view = LiveView(stream)
    progress = Progress(stream=stream, view=view)

    def interrupted() -> None:
        with progress.shown():
            progress.say("freeze", "running", State.RUNNING)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert re.search(r"freeze +0\.\d s stopped", ESCAPE.sub("", stream.getvalue()))
    progress.say("engine", "told in a line")
    assert stream.getvalue().endswith("] engine     told in a line\n".replace("] ", "s] "))


def test_a_build_with_nothing_to_do_is_told_in_lines_and_loads_no_rich() -> None:
    program = """
import sys
from bertir.live import LiveView
from bertir.progress import Progress, State
view = LiveView(sys.stdout)
progress = Progress(stream=sys.stdout, view=view)
with progress.shown():
    progress.say("freeze", "nothing to do, in the store", State.STORED)
    progress.say("checkpoint", "uncased")
assert not [name for name in sys.modules if name.partition(".")[0] == "rich"]
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(
        r"\[ +0\.\d s\] freeze +nothing to do, in the store\n\[ +0\.\d s\] checkpoint uncased\n", done.stdout
    )


def test_a_fact_is_kept_above_the_rows() -> None:
    stream = Terminal()
    view = LiveView(stream)
    progress = Progress(stream=stream, view=view)
    with progress.shown():
        progress.say("freeze", "running", State.RUNNING)
        progress.say("store", "the store held other bytes: making it anew [bold]")
    text = ESCAPE.sub("", stream.getvalue())
    assert re.search(r"s\] store {6}the store held other bytes: making it anew \[bold\]", text)


def test_logs_and_facts_of_several_threads_never_wait_for_one_another_for_good(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(live, "REFRESHES_A_SECOND", 2000)
    view = LiveView(Terminal())
    progress = shown(view)

    def talk(name: str) -> None:
        for number in range(300):
            progress.log(name, f"line {number}")
            progress.say(name, f"fact {number}", None if number % 3 else State.RUNNING)

    with progress.shown():
        progress.say("a", "running", State.RUNNING)
        threads = [threading.Thread(target=talk, args=(name,), daemon=True) for name in "abc"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert not any(thread.is_alive() for thread in threads)


@pytest.mark.parametrize(
    ("environment", "terminal", "expected"),
    [
        ({"TERM": "xterm"}, True, True),
        ({"TERM": "xterm", "CI": "false"}, True, True),
        ({"TERM": "xterm"}, False, False),
        ({"TERM": "xterm", "CI": "true"}, True, False),
        ({"TERM": "dumb"}, True, False),
        ({}, True, False),
    ],
)
def test_a_view_is_for_a_terminal_before_which_somebody_sits(
    environment: Mapping[str, str], *, terminal: bool, expected: bool
) -> None:
    assert is_for_a_person(Terminal(terminal=terminal), environment) is expected


def test_a_stream_that_is_closed_is_for_nobody() -> None:
    with Path(os.devnull).open("w", encoding="utf-8") as closed:
        pass
    assert not is_for_a_person(closed, {"TERM": "xterm"})


@pytest.mark.parametrize("colours", [True, False])
def test_without_colours_a_terminal_is_sent_none(*, colours: bool) -> None:
    program = (
        "import sys; from bertir.live import LiveView; from bertir.progress import Progress, State\n"
        "progress = Progress(stream=sys.stderr, view=LiveView(sys.stderr))\n"
        "with progress.shown(): progress.say('freeze', 'running', State.RUNNING)"
    )
    leader, follower = pty.openpty()
    environment = {**os.environ, "TERM": "xterm"} | ({} if colours else {"NO_COLOR": "1"})
    done = subprocess.run(
        [sys.executable, "-c", program], stderr=follower, env=environment, cwd=ROOT, check=False
    )
    os.close(follower)
    said = os.read(leader, 1 << 16).decode()
    os.close(leader)
    assert done.returncode == 0
    assert "freeze" in said
    assert bool(re.search(r"\x1b\[3[0-9]m", said)) is colours


def test_how_much_is_told_is_said_by_options_or_by_the_environment() -> None:
    assert chosen_level({}) is Level.NORMAL
    assert chosen_level({"BERTIR_PROGRESS": "quiet"}) is Level.QUIET
    assert chosen_level({"BERTIR_PROGRESS": "quiet"}, verbose=True) is Level.VERBOSE


def test_quiet_tells_nothing_and_verbose_what_the_steps_print() -> None:
    quiet, verbose = io.StringIO(), io.StringIO()
    for stream, level in ((quiet, Level.QUIET), (verbose, Level.VERBOSE)):
        progress = Progress(stream=stream, level=level)
        progress.say("freeze", "running", State.RUNNING)
        progress.log("freeze", "INFO: \x1b[2J one")
    assert quiet.getvalue() == ""
    assert re.fullmatch(
        r"\[ +0\.\d s\] freeze +running\n\[ +0\.\d s\] freeze +\| INFO: \\x1b\[2J one\n", verbose.getvalue()
    )

from __future__ import annotations

import io
import re

import pytest

from bertir import progress as progress_module
from bertir.progress import SILENT, Progress


def test_a_line_has_the_time_the_stage_and_the_fact() -> None:
    stream = io.StringIO()
    Progress(stream=stream).say("fetch", "47 Debian packages, 23.0 MB")
    assert re.fullmatch(r"\[ {3}0\.\d s\] fetch {6}47 Debian packages, 23\.0 MB\n", stream.getvalue())


def test_of_several_builds_a_line_says_which_one_it_is_of() -> None:
    stream = io.StringIO()
    Progress(stream=stream, about="tiny-bert/reshapable-fp16").say("freeze", "running in the container")
    assert stream.getvalue().endswith("s] freeze     tiny-bert/reshapable-fp16: running in the container\n")


def test_a_line_is_written_in_one_piece() -> None:
    written = []

    class Stream(io.StringIO):
        def write(self, text: str) -> int:
            written.append(text)
            return len(text)

    Progress(stream=Stream(), about="a build").say("freeze", "running")
    assert len(written) == 1


def test_silence_is_silent_and_still_passes_bytes_on() -> None:
    SILENT.say("fetch", "nobody hears it")
    assert list(SILENT.counted("fetch", "it", iter([b"a", b"b"]), 2)) == [b"a", b"b"]


def test_what_is_quick_is_not_counted_out_loud() -> None:
    stream = io.StringIO()
    assert b"".join(Progress(stream=stream).counted("fetch", "it", iter([b"ab"] * 100), None)) == b"ab" * 100
    assert stream.getvalue() == ""


@pytest.mark.parametrize(
    ("total", "expected"), [(4_000_000, r"of 4\.0 MB, .* s left"), (None, r"\d MB, .* MB/s$")]
)
def test_what_takes_long_says_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, total: int | None, expected: str
) -> None:
    monkeypatch.setattr(progress_module, "SECONDS_BETWEEN_LINES", 0.0)
    stream = io.StringIO()
    chunks = iter([b"x" * 1_000_000] * 4)
    list(Progress(stream=stream).counted("image", "loading", chunks, total))
    first, *_, last = stream.getvalue().splitlines()
    assert re.search(r"image +loading: 1\.0 ", first)
    assert re.search(r"loading: 4\.0 ", last)
    assert re.search(expected, first)
    assert "\x1b" not in stream.getvalue()
    assert "\r" not in stream.getvalue()


def test_an_empty_stream_of_known_size_divides_by_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_module, "SECONDS_BETWEEN_LINES", 0.0)
    assert list(Progress(stream=io.StringIO()).counted("image", "it", iter([b""]), 0)) == [b""]


def test_what_went_by_before_counts_and_is_not_in_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_module, "SECONDS_BETWEEN_LINES", 0.0)
    clock = iter([0.0, 2.0])
    monkeypatch.setattr("time.monotonic", lambda: next(clock, 2.0))
    stream = io.StringIO()
    progress = Progress(stream=stream, started=0.0)
    list(progress.counted("fetch", "it", iter([b"x" * 1_000_000]), 4_000_000, already=2_000_000))
    assert stream.getvalue().endswith("it: 3.0 of 4.0 MB, 0.5 MB/s, 2 s left\n")

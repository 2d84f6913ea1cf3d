"""Downloads against a server that does everything wrong that servers do, and processes that are killed meanwhile."""

from __future__ import annotations

import email.utils
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from file_server import Fault, FileServer, serve_files
from git_server import make_certificate
from hypothesis import given
from hypothesis import strategies as st

from bertir import download
from bertir.authority import FOR_DOWNLOADS
from bertir.digest import Digest
from bertir.download import Source
from bertir.errors import DigestMismatchError, FetchError
from bertir.part import State
from bertir.progress import SILENT, Progress
from bertir.store import StoreError
from bertir.web import Patience

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bertir.store import Store


def seeded(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)  # noqa: S311 - no secret


DATA = seeded(1, 3_000_000)
OTHER = seeded(2, 3_100_000)
HASTY = Patience(attempts=3, connect=5, silence=0.4, first_pause=0.01, longest_pause=3)
KEY = Digest.of_bytes(DATA)


@pytest.fixture
def files() -> Iterator[FileServer]:
    with serve_files() as server:
        server.files["/a.zip"] = DATA
        yield server


def source(files: FileServer, *, most: int = 10_000_000, patience: Patience = HASTY) -> Source:
    return Source(url=f"{files.url}/a.zip", key=KEY, most=most, what="a.zip", patience=patience)


def get(store: Store, files: FileServer, *, most: int = 10_000_000, patience: Patience = HASTY) -> bytes:
    wanted = source(files, most=most, patience=patience)
    return download.download(store, wanted, SILENT, lambda path: path.read_bytes())


def get_and(store: Store, files: FileServer, error: BaseException) -> None:
    """Download it, and fail to use it."""

    def use(_: Path) -> None:
        raise error

    download.download(store, source(files), SILENT, use)


def kept(store: Store) -> dict[str, int]:
    return {path.suffix: path.stat().st_size for path in (store.root / "downloads").iterdir()}


def test_a_file_is_downloaded_once_and_its_part_removed_after_its_use(
    store: Store, files: FileServer
) -> None:
    assert get(store, files) == DATA
    assert files.ranges == [None]
    assert kept(store) == {}


def test_an_empty_file_is_a_file(store: Store, files: FileServer) -> None:
    files.files["/a.zip"] = b""
    assert get(store, files) == b""


def test_a_dropped_connection_goes_on_where_it_broke(store: Store, files: FileServer) -> None:
    files.faults = [Fault(after=1_000_001), Fault(after=500_000)]
    assert get(store, files) == DATA
    assert files.ranges == [None, "bytes=1000001-", "bytes=1500001-"]
    assert {asked.if_range for asked in files.asked[1:]} == {'"1"'}


def test_a_server_that_drops_often_is_asked_as_long_as_it_brings_the_file_on(
    store: Store, files: FileServer
) -> None:
    files.files["/a.zip"] = data = seeded(3, 9_000_000)
    files.faults = [Fault(after=1_100_000)] * 7  # more than the three attempts that may fail in a row
    assert get(store, files) == data
    assert len(files.asked) == 8


def test_a_server_that_brings_nothing_on_is_not_asked_for_ever(store: Store, files: FileServer) -> None:
    files.faults = [Fault(after=1000)] * 20
    with pytest.raises(FetchError, match=r"asked 3 times") as raised:
        get(store, files)
    assert len(files.asked) == 3
    assert "0.0 MB are kept; the next run goes on from there" in raised.value.advice
    assert kept(store)[".part"] == 3000


def test_a_server_that_can_not_resume_is_not_asked_for_ever_either(store: Store, files: FileServer) -> None:
    files.etag = files.last_modified = None
    files.faults = [Fault(after=2_000_000)] * 20
    with pytest.raises(FetchError) as raised:
        get(store, files)
    assert len(files.asked) == 3
    assert set(files.ranges) == {
        None
    }  # without a validator, nothing says that the rest belongs to the beginning
    assert "kept" not in raised.value.advice


def test_the_next_process_goes_on_where_the_last_one_gave_up(store: Store, files: FileServer) -> None:
    files.faults = [Fault(after=1_000_000), Fault(after=0), Fault(after=0), Fault(after=0)]
    with pytest.raises(FetchError):
        get(store, files)
    assert kept(store)[".part"] == 1_000_000
    files.asked.clear()
    files.faults.clear()
    assert get(store, files) == DATA
    assert files.ranges == ["bytes=1000000-"]


def test_a_weak_etag_is_no_validator_and_a_date_is(store: Store, files: FileServer) -> None:
    files.etag = 'W/"1"'
    files.faults = [Fault(after=1_000_000)]
    assert get(store, files) == DATA
    assert files.asked[1].if_range == files.last_modified


@pytest.mark.parametrize("odd", ['"1', "1", '"\u00e9"', '"a b"', "", "x" * 200_000])
def test_an_odd_validator_is_none(odd: str) -> None:
    assert State(url="", etag=odd, last_modified=odd).validator == ""


def test_a_file_that_changed_meanwhile_is_begun_anew(store: Store, files: FileServer) -> None:
    files.faults = [Fault(after=1_000_000), Fault(status=503), Fault(status=503)]
    with pytest.raises(FetchError):
        get(store, files)
    files.files["/a.zip"], files.etag = OTHER, '"2"'
    files.last_modified = "Fri, 19 Oct 2018 00:00:00 GMT"
    assert get(store, files) == OTHER
    assert files.ranges[-1] == "bytes=1000000-"  # asked for the rest, and answered with 200 and all of it


def test_a_200_to_a_range_request_is_the_whole_file(store: Store, files: FileServer) -> None:
    files.faults = [Fault(after=1_000_000), Fault(ignore_range=True)]
    assert get(store, files) == DATA


@pytest.mark.parametrize(
    "fault",
    [
        Fault(ignore_if_range=True),  # 206 of the changed file
        Fault(shift=7),
        Fault(headers={"Content-Range": None}),
        Fault(headers={"Content-Range": "bytes 1000000-2999999/4000000"}),
        Fault(headers={"Content-Range": "lines 1000000-2999999/3000000"}),
        Fault(headers={"Content-Range": "bytes */*"}),
        Fault(headers={"ETag": '"2"'}),
    ],
    ids=lambda fault: str(fault)[6:60],
)
def test_a_206_of_something_else_is_not_appended(store: Store, files: FileServer, fault: Fault) -> None:
    if fault.ignore_if_range:
        files.faults = [Fault(after=1_000_000), Fault(status=503), Fault(status=503)]
        with pytest.raises(FetchError):
            get(store, files)
        files.files["/a.zip"], files.etag = OTHER, '"2"'
        files.faults = [fault]
        assert get(store, files) == OTHER
    else:
        files.faults = [Fault(after=1_000_000), fault]
        assert get(store, files) == DATA
    assert files.ranges[-2:] == ["bytes=1000000-", None]


def test_a_416_of_a_whole_part_ends_the_download(store: Store, files: FileServer) -> None:
    # The server announced more than it had; what came is all.
    files.faults = [Fault(headers={"Content-Length": "3000100"})]
    assert get(store, files) == DATA
    assert files.ranges == [None, "bytes=3000000-"]


def test_a_416_of_a_part_that_is_too_long_begins_anew(store: Store, files: FileServer) -> None:
    files.faults = [Fault(after=2_000_000), Fault(after=0), Fault(after=0)]
    with pytest.raises(FetchError):
        get(store, files)
    files.files["/a.zip"] = OTHER[:500_000]
    assert get(store, files) == OTHER[:500_000]
    assert files.ranges[-2:] == ["bytes=2000000-", None]


def test_a_content_length_that_is_too_short_gives_what_was_announced(store: Store, files: FileServer) -> None:
    # No HTTP client can see the rest; the digest does.
    files.faults = [Fault(headers={"Content-Length": "1000"})]
    assert get(store, files) == DATA[:1000]


@pytest.mark.parametrize("length", [None, "-5", "many", "1e6", "9" * 40])
def test_an_answer_without_a_usable_length_lasts_until_the_connection_ends(
    store: Store, files: FileServer, length: str | None
) -> None:
    files.faults = [Fault(headers={"Content-Length": length})]
    assert get(store, files) == DATA


def test_a_length_that_no_file_may_have_is_refused_before_a_byte_is_read(
    store: Store, files: FileServer
) -> None:
    with pytest.raises(DigestMismatchError, match=r"more than the 2999999 bytes") as raised:
        get(store, files, most=2_999_999)
    assert raised.value.exit_status == 102
    assert kept(store) == {}


def test_an_answer_without_an_end_is_cut_off(store: Store, files: FileServer) -> None:
    files.faults = [Fault(headers={"Content-Length": None})]
    with pytest.raises(DigestMismatchError):
        get(store, files, most=1_000_000)
    assert kept(store) == {}


def test_a_stalled_connection_is_given_up_and_the_download_goes_on(store: Store, files: FileServer) -> None:
    files.faults = [Fault(after=1_000_000, stall=3)]
    begun = time.monotonic()
    assert get(store, files) == DATA
    assert time.monotonic() - begun < 2.5
    assert files.ranges == [None, "bytes=1000000-"]


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_trouble_of_the_server_is_waited_out(store: Store, files: FileServer, status: int) -> None:
    files.faults = [Fault(status=status)]
    assert get(store, files) == DATA


@pytest.mark.parametrize("date", [False, True])
def test_retry_after_is_waited_for(store: Store, files: FileServer, date: bool) -> None:
    value = email.utils.formatdate(time.time() + 2, usegmt=True) if date else "1"
    files.faults = [Fault(status=503, headers={"Retry-After": value})]
    begun = time.monotonic()
    assert get(store, files) == DATA
    assert 0.9 <= time.monotonic() - begun < 3


def test_a_server_that_asks_for_hours_is_not_waited_for(store: Store, files: FileServer) -> None:
    files.faults = [Fault(status=503, headers={"Retry-After": "7200"})]
    with pytest.raises(FetchError, match=r"503 .*asks to come back in 7200 s"):
        get(store, files)
    assert len(files.asked) == 1


@given(st.text(max_size=30))
def test_whatever_stands_in_retry_after_is_seconds_or_nothing(text: str) -> None:
    seconds = download.retry_after(text)
    assert seconds is None or seconds >= 0


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 451])
def test_a_refusal_is_final_and_keeps_what_came_before(store: Store, files: FileServer, status: int) -> None:
    files.faults = [Fault(after=1_000_000), Fault(status=status)]
    with pytest.raises(FetchError, match=f"the server answered {status}") as raised:
        get(store, files)
    assert type(raised.value) is FetchError
    assert f"{files.url}/a.zip" in str(raised.value)
    assert len(files.asked) == 2
    assert kept(store)[".part"] == 1_000_000


def test_a_redirect_is_followed(store: Store, files: FileServer) -> None:
    files.files["/b.zip"] = OTHER
    files.faults = [Fault(status=302, headers={"Location": "/b.zip"})]
    assert get(store, files) == OTHER


@pytest.mark.parametrize("to", ["file:///etc/passwd", "ftp://127.0.0.1/x", "http://[", "data:,x"])
def test_a_redirect_to_what_is_not_http_is_refused(store: Store, files: FileServer, to: str) -> None:
    files.faults = [Fault(status=302, headers={"Location": to})]
    with pytest.raises(FetchError):
        get(store, files)


def test_a_redirect_in_a_circle_ends(store: Store, files: FileServer) -> None:
    files.faults = [Fault(status=302, headers={"Location": "/a.zip"})] * 100
    with pytest.raises(FetchError, match="redirects"):
        get(store, files)


def test_from_https_no_redirect_leads_to_plain_http(
    store: Store, files: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = make_certificate(tmp_path)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate[0]))
    with serve_files(certificate) as secure:
        secure.files["/a.zip"] = secure.files["/b.zip"] = DATA
        secure.faults = [Fault(status=301, headers={"Location": f"{files.url}/a.zip"})]
        with pytest.raises(FetchError, match=r"redirects from https to http://127\.0\.0\.1"):
            get(store, secure)
        assert files.asked == []
        secure.faults = [Fault(status=301, headers={"Location": f"{secure.url}/b.zip"})]
        assert get(store, secure) == DATA


def test_a_certificate_that_nobody_vouches_for_is_refused_at_once(store: Store, tmp_path: Path) -> None:
    with (
        serve_files(make_certificate(tmp_path)) as secure,
        pytest.raises(FetchError, match="certificate") as caught,
    ):
        get(store, secure, patience=Patience(attempts=50, first_pause=60))
    assert caught.value.advice == FOR_DOWNLOADS


def test_a_server_that_is_not_there_is_asked_again_and_then_named(store: Store) -> None:
    nobody = FileServer(url="http://127.0.0.1:9")
    with pytest.raises(
        FetchError, match=r"(?s)^a\.zip: Failed to .*refused \(asked 3 times\).*127\.0\.0\.1:9/a\.zip"
    ):
        get(store, nobody)


def test_a_password_in_a_url_is_not_shown(store: Store, files: FileServer) -> None:
    url = files.url.replace("http://", "http://someone:secret@")
    with pytest.raises(FetchError) as raised:
        get(store, FileServer(url=url + "/absent"))
    assert "secret" not in str(raised.value) + raised.value.advice
    assert "127.0.0.1" in str(raised.value)


# what is kept


def test_bytes_that_turn_out_wrong_are_not_gone_on_with(store: Store, files: FileServer) -> None:
    with pytest.raises(FetchError):
        get_and(store, files, FetchError("it is not the pinned one"))
    assert len(files.asked) == 1  # it came in one piece: it would be the same again
    assert kept(store) == {}


@pytest.mark.parametrize("error", [KeyboardInterrupt(), StoreError("the disk is full"), SystemExit(143)])
def test_a_whole_download_that_could_not_be_used_is_not_downloaded_again(
    store: Store, files: FileServer, error: BaseException
) -> None:
    with pytest.raises(type(error)):
        get_and(store, files, error)
    assert get(store, files) == DATA
    assert len(files.asked) == 1


def test_a_whole_download_of_unknown_length_is_not_downloaded_again_either(
    store: Store, files: FileServer
) -> None:
    files.faults = [Fault(headers={"Content-Length": None})]
    with pytest.raises(KeyboardInterrupt):
        get_and(store, files, KeyboardInterrupt())
    assert get(store, files) == DATA
    assert len(files.asked) == 1


def test_another_mirror_does_not_go_on_with_the_part_of_the_first(store: Store, files: FileServer) -> None:
    files.faults = [Fault(after=1_000_000), Fault(status=404)]
    with pytest.raises(FetchError):
        get(store, files)
    with serve_files() as other:
        other.files["/a.zip"] = OTHER
        assert get(store, other) == OTHER
        assert other.ranges == [None]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "1",
        '{"url": 1}',
        '{"etag": []}',
        "\udcff",
        "[" * 90_000,
        "x" * 200_000,
        '{"length": "1"}',
    ],
)
def test_a_damaged_note_about_a_part_begins_it_anew(store: Store, files: FileServer, text: str) -> None:
    files.faults = [Fault(after=1_000_000), Fault(status=404)]
    with pytest.raises(FetchError):
        get(store, files)
    [note] = (store.root / "downloads").glob("*.json")
    good = json.loads(note.read_text())
    changed = text if not text.startswith('{"') else json.dumps(good | json.loads(text))
    note.write_text(changed, encoding="utf-8", errors="surrogateescape")
    assert get(store, files) == DATA
    assert files.ranges[-1] is None


def test_a_part_without_its_note_begins_anew(store: Store, files: FileServer) -> None:
    (store.root / "downloads" / f"{KEY.hex}.part").write_bytes(b"left by nobody")
    assert get(store, files) == DATA


def test_a_folder_that_is_none_is_one_store_error(store: Store, files: FileServer) -> None:
    (store.root / "downloads").rmdir()
    (store.root / "downloads").touch()
    with pytest.raises(StoreError, match=r"could not download a\.zip"):
        get(store, files)


PROGRAM = """
import sys
from pathlib import Path
from bertir.digest import Digest
from bertir.download import Source, download
from bertir.progress import SILENT
from bertir.store import Store
store, url, key = Store(Path(sys.argv[1])), sys.argv[2], Digest(sys.argv[3])
with store.lock("it"):
    found = download(store, Source(url=url, key=key, most=10**8, what="a.zip"), SILENT, Digest.of_file)
sys.exit(found != key)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_killed_again_and_again_the_download_goes_on_each_time(
    store: Store, files: FileServer, number: signal.Signals
) -> None:
    files.pace = 0.02
    command = [sys.executable, "-c", PROGRAM, str(store.root), f"{files.url}/a.zip", KEY.hex]
    path = store.root / "downloads" / f"{KEY.hex}.part"
    sizes = [0]
    for goal in (600_000, 1_200_000, 1_800_000):
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
            while not path.exists() or path.stat().st_size < goal:
                assert process.poll() is None
                time.sleep(0.005)
            os.kill(process.pid, number)
        assert process.returncode != 0
        sizes.append(path.stat().st_size)
    files.pace = 0
    assert subprocess.run(command, check=False).returncode == 0
    assert sizes == sorted(sizes)
    assert files.ranges == [None, *(f"bytes={size}-" for size in sizes[1:])]
    assert kept(store) == {}


def test_a_disk_that_is_full_is_said_and_the_part_kept(store: Store, files: FileServer) -> None:
    import resource

    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:  # no file may grow beyond this: a write fails in the middle, as on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limit[1]))
        with pytest.raises(StoreError, match=r"could not download a\.zip"):
            get(store, files)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, before)
    assert kept(store)[".part"] == 1_000_000
    assert get(store, files) == DATA
    assert files.ranges == [None, "bytes=1000000-"]


def test_rate_and_time_left_are_told_and_count_from_where_it_went_on(
    store: Store, files: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bertir import progress

    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    stream = io.StringIO()
    files.faults = [Fault(after=1_000_000)]
    download.download(store, source(files), Progress(stream=stream), Digest.of_file)
    told = stream.getvalue()
    assert "asking again in 0 s" in told
    assert "a.zip: going on at 1.0 MB" in told
    assert " of 3.0 MB, " in told
    assert " MB/s, 0 s left" in told

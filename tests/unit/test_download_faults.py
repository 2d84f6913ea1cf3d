"""What each fault of a server comes to: the table of docs/reliability.md, one test a row."""

from __future__ import annotations

import email.utils
import hashlib
import io
import os
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from file_server import Fault, FileServer, serve_files
from git_server import make_certificate

from bertir.digest import Digest
from bertir.download import Source, download
from bertir.errors import BertirError, DigestMismatchError, FetchError
from bertir.progress import SILENT, Progress
from bertir.store import StoreError
from bertir.web import Patience

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bertir.store import Store

DATA = hashlib.shake_128(b"a file").digest(300_000)
KEY = Digest.of_bytes(DATA)
HASTY = Patience(
    attempts=3, connect=5, silence=0.5, window=0.6, slowest=1000, first_pause=0.01, longest_pause=3
)
HEAD = b"HTTP/1.1 200 OK\r\nConnection: close\r\n"
YEAR = 365 * 86400
WHOLE = 0


@pytest.fixture
def files() -> Iterator[FileServer]:
    with serve_files() as server:
        server.files["/a.zip"] = DATA
        yield server


def source(files: FileServer, patience: Patience = HASTY) -> Source:
    return Source(
        url=f"{files.url}/a.zip", key=KEY, most=len(DATA), what="a.zip", advice="Ask them.", patience=patience
    )


def get(
    store: Store, files: FileServer, *, patience: Patience = HASTY, stream: io.StringIO | None = None
) -> None:
    """Download it into the store, as a fetcher does."""
    progress = Progress(stream=stream) if stream else SILENT
    download(
        store,
        source(files, patience),
        progress,
        lambda path: store.add_file(path, expected=KEY, what="a.zip"),
    )


def kept(store: Store) -> dict[str, int]:
    return {path.suffix: path.stat().st_size for path in (store.root / "downloads").iterdir()}


@dataclass(frozen=True, kw_only=True)
class Row:
    """A fault, and what it comes to.

    Args:
        faults: of the answers in turn; after the last the server is well again.
        status: that the command would end with; 0: the file is there, whole.
        asked: how many requests it took.
        says: stands in the message, or for a file that came in what was said on the way.
    """

    name: str
    faults: tuple[Fault, ...]
    status: int
    asked: int
    says: str = ""


def dated(seconds: float) -> str:
    return email.utils.formatdate(time.time() + seconds, usegmt=True)


def chunked(*chunks: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    body = b"".join(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n" for chunk in chunks)
    return HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + body + end


def endless(name: str, raw: bytes, again: bytes, says: str, *, every: float = 0) -> Row:
    """A server that begins so and goes on without an end, each time that it is asked."""
    faults = (Fault(raw=raw, again=again, every=every),) * 9
    return Row(name=name, faults=faults, status=4, asked=3, says=says)


TROUBLE = (Fault(status=503),) * 3
ROWS = [
    Row(name="no fault", faults=(), status=WHOLE, asked=1),
    # connections
    Row(name="dropped", faults=(Fault(after=100_000),), status=WHOLE, asked=2, says="going on at 0.1 MB"),
    Row(name="dropped before a byte", faults=(Fault(raw=b""),), status=WHOLE, asked=2),
    Row(
        name="always dropped", faults=(Fault(after=10),) * 9, status=4, asked=3, says="are kept; the next run"
    ),
    Row(name="stalled", faults=(Fault(after=100_000, stall=2),), status=WHOLE, asked=2, says="timed out"),
    endless(
        "one byte now and then",
        HEAD + b'ETag: "1"\r\n\r\n',
        b"x",
        "bytes in 0.6 s, less than 1000 a second",
        every=0.2,
    ),
    endless("a header now and then", b"HTTP/1.1 200 OK\r\n", b"X: y\r\n", "0 bytes in 0.6 s", every=0.1),
    endless("headers without an end", b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 50, "more than 100 headers"),
    endless("a header without an end", b"HTTP/1.1 200 OK\r\nX: ", b"x" * 10_000, "more than 65536 bytes"),
    endless(
        "100 Continue without an end",
        b"HTTP/1.1 ",
        b"100 Continue\r\n\r\nHTTP/1.1 ",
        "0 bytes in 0.6 s",
        every=0.001,
    ),
    # answers
    Row(
        name="100 Continue, then the file",
        faults=(
            Fault(
                raw=b"HTTP/1.1 100 Continue\r\n\r\n"
                + HEAD
                + f"Content-Length: {len(DATA)}\r\n\r\n".encode()
                + DATA
            ),
        ),
        status=WHOLE,
        asked=1,
    ),
    Row(name="103", faults=(Fault(raw=b"HTTP/1.1 103 Early Hints\r\n\r\n"),), status=4, asked=1, says="103"),
    Row(name="204", faults=(Fault(status=204),), status=4, asked=1, says="the server answered 204"),
    Row(name="304", faults=(Fault(status=304),), status=4, asked=1, says="the server answered 304"),
    Row(name="404", faults=(Fault(status=404),), status=4, asked=1, says="the server answered 404"),
    Row(
        name="416 of the whole file",
        faults=(Fault(status=416),),
        status=4,
        asked=1,
        says="the server answered 416",
    ),
    Row(
        name="416 of the rest",
        faults=(Fault(after=100_000), Fault(status=416)),
        status=WHOLE,
        asked=3,
        says="the file has changed at the server",
    ),
    Row(name="503", faults=(Fault(status=503),), status=WHOLE, asked=2),
    Row(name="always 503", faults=TROUBLE, status=4, asked=3, says="503 Service Unavailable (asked 3 times)"),
    Row(
        name="503, Retry-After in the past",
        faults=(Fault(status=503, headers={"Retry-After": dated(-YEAR)}),),
        status=WHOLE,
        asked=2,
    ),
    Row(
        name="503, Retry-After of a year",
        faults=(Fault(status=503, headers={"Retry-After": dated(YEAR)}),),
        status=4,
        asked=1,
        says="asks to come back in 315",
    ),
    Row(
        name="HTTP/0.9",
        faults=(Fault(raw=b"<html>\x1b[2Jgarbage</html>\n"),) * 9,
        status=4,
        asked=3,
        says=r"its answer is no HTTP: <html>\x1b[2Jgarbage",
    ),
    # lengths
    Row(
        name="a length that is negative",
        faults=(Fault(headers={"Content-Length": "-1"}),),
        status=WHOLE,
        asked=1,
    ),
    Row(
        name="a length that is too long",
        faults=(Fault(headers={"Content-Length": str(10**17)}),),
        status=102,
        asked=1,
        says="more than the 300000 bytes",
    ),
    Row(
        name="a length that is too short",
        faults=(Fault(headers={"Content-Length": "1000"}),),
        status=102,
        asked=1,
        says="(1000 bytes)",
    ),
    Row(
        name="two lengths",
        faults=(Fault(raw=HEAD + b"Content-Length: 300000\r\nContent-Length: 5\r\n\r\n" + DATA),),
        status=4,
        asked=1,
        says="Content-Length",
    ),
    Row(
        name="no length, and dropped",
        faults=(Fault(headers={"Content-Length": None}, after=1000),),
        status=102,
        asked=1,
        says="(1000 bytes)",
    ),
    # ranges
    Row(
        name="200 to a Range",
        faults=(Fault(after=100_000), Fault(ignore_range=True)),
        status=WHOLE,
        asked=2,
    ),
    Row(
        name="206 unasked",
        faults=(
            Fault(
                raw=b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-9/300000\r\nConnection: close\r\n\r\n"
            ),
        ),
        status=WHOLE,
        asked=2,
        says="a piece of the file, and was asked for all of it",
    ),
    Row(
        name="always 206 unasked",
        faults=(Fault(raw=b"HTTP/1.1 206 Partial Content\r\nConnection: close\r\n\r\n"),) * 9,
        status=4,
        asked=3,
        says="a piece of the file",
    ),
    Row(
        name="206 of another place",
        faults=(Fault(after=100_000), Fault(shift=7)),
        status=WHOLE,
        asked=3,
        says="continues another file",
    ),
    # other bytes, under the same validators
    Row(name="other bytes", faults=(Fault(flip=5),), status=102, asked=1, says=f"expected {KEY}"),
    Row(
        name="other bytes halfway",
        faults=(Fault(after=100_000), Fault(flip=200_000)),
        status=WHOLE,
        asked=3,
        says="what came in pieces is not the pinned file; downloading it anew from its start",
    ),
    Row(
        name="other bytes halfway, and again",
        faults=(Fault(after=100_000), Fault(flip=200_000), Fault(after=100_000), Fault(flip=200_000)),
        status=102,
        asked=4,
        says=f"expected {KEY}",
    ),
    # encodings
    Row(
        name="gzip, though asked not to",
        faults=(Fault(headers={"Content-Encoding": "gzip"}, flip=5),),
        status=102,
        asked=1,
        says=f"expected {KEY}",
    ),
    Row(
        name="said to be gzip, and isn't",
        faults=(Fault(headers={"Content-Encoding": "gzip"}),),
        status=WHOLE,
        asked=1,
        says="encodes it by gzip, and was asked not to",
    ),
    Row(name="chunks", faults=(Fault(raw=chunked(DATA[:9], DATA[9:])),), status=WHOLE, asked=1),
    Row(
        name="chunks, cut off within one",
        faults=(Fault(raw=HEAD + b"Transfer-Encoding: chunked\r\n\r\n493e0\r\n" + DATA[:1000]),),
        status=WHOLE,
        asked=2,
    ),
    Row(
        name="chunks, cut off between two", faults=(Fault(raw=chunked(DATA, end=b"")),), status=WHOLE, asked=2
    ),
    Row(
        name="chunks of an odd size",
        faults=(Fault(raw=chunked(DATA[:9], end=b"many\r\n")),),
        status=WHOLE,
        asked=2,
    ),
    endless(
        "trailers without an end", chunked(DATA, end=b"0\r\n"), b"X: y\r\n", "bytes in 0.6 s", every=0.01
    ),
    # redirects
    Row(name="redirect without a place", faults=(Fault(status=302),), status=4, asked=1, says="answered 302"),
    Row(
        name="redirect to a file",
        faults=(Fault(status=302, headers={"Location": "file:///etc/passwd"}),),
        status=4,
        asked=1,
        says="redirects from http to file:///etc/passwd; it was not followed",
    ),
    Row(
        name="redirects without an end",
        faults=(Fault(status=307, headers={"Location": "/a.zip"}),) * 99,
        status=4,
        asked=21,
        says="more than 20 redirects",
    ),
    Row(
        name="redirect whose own body has no end",
        faults=(
            Fault(
                raw=b"HTTP/1.1 302 Found\r\nLocation: /a.zip\r\nConnection: close\r\n\r\n",
                again=b"x" * 100_000,
            ),
        ),
        status=WHOLE,
        asked=2,
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_each_fault_comes_to_what_the_table_says(store: Store, files: FileServer, row: Row) -> None:
    files.faults = list(row.faults)
    told = io.StringIO()
    status, message = WHOLE, ""
    begun = time.monotonic()
    try:
        get(store, files, stream=told)
    except BertirError as error:
        status, message = error.exit_status, f"{error}\n{error.advice}"
    assert time.monotonic() - begun < 6
    assert (status, len(files.asked)) == (row.status, row.asked), message + told.getvalue()
    assert row.says in (message or told.getvalue())
    if status == WHOLE:
        assert store.path(KEY).read_bytes() == DATA
    else:
        assert not message.endswith("\n")  # there is advice
        assert f"{files.url.rpartition(':')[0]}" in message or status == 102
        assert store.find(KEY) is None
    if status in (WHOLE, 102):  # right, and used; or wrong, and not to be gone on with
        assert kept(store) == {}
    assert list((store.root / "tmp").iterdir()) == []


# what lies on the disk


def left_by_the_last_process(store: Store, files: FileServer) -> Path:
    """Leave a part of 200,000 bytes."""
    files.faults = [Fault(after=200_000), *TROUBLE]
    with pytest.raises(FetchError):
        get(store, files)
    files.asked.clear()
    files.faults.clear()
    path = store.root / "downloads" / f"{KEY.hex}.part"
    assert path.stat().st_size == 200_000
    return path


@pytest.mark.parametrize("at", [0, 100_000, 199_999])
def test_a_byte_of_a_part_that_went_wrong_on_the_disk_is_noticed_said_and_healed(
    store: Store, files: FileServer, at: int
) -> None:
    path = left_by_the_last_process(store, files)
    with path.open("r+b") as part:
        part.seek(at)
        part.write(bytes([DATA[at] ^ 1]))
    told = io.StringIO()
    get(store, files, stream=told)
    assert store.path(KEY).read_bytes() == DATA
    assert files.ranges == ["bytes=200000-", None]
    assert "is not the pinned file; downloading it anew" in told.getvalue()
    assert kept(store) == {}


def test_a_byte_of_a_whole_part_that_went_wrong_on_the_disk_is_healed_as_well(
    store: Store, files: FileServer
) -> None:
    def full(_: Path) -> None:
        raise StoreError("no room to unpack it")

    with pytest.raises(StoreError):
        download(store, source(files), SILENT, full)
    path = store.root / "downloads" / f"{KEY.hex}.part"
    path.write_bytes(DATA[:-1] + bytes([DATA[-1] ^ 1]))
    get(store, files)
    assert store.path(KEY).read_bytes() == DATA
    assert files.ranges == [None, None]


def test_a_mirror_that_has_other_bytes_is_given_up_after_one_download_from_the_start(
    store: Store, files: FileServer
) -> None:
    left_by_the_last_process(store, files)
    files.files["/a.zip"] = DATA[::-1]
    with pytest.raises(DigestMismatchError):
        get(store, files)
    assert files.ranges == ["bytes=200000-", None]
    assert kept(store) == {}


@pytest.mark.parametrize("suffix", [".part", ".json"])
@pytest.mark.parametrize("kind", ["symlink", "dangling", "hard link", "fifo"])
def test_a_part_or_a_note_that_is_no_file_of_its_own_is_removed_and_nothing_is_written_through_it(
    store: Store, files: FileServer, tmp_path: Path, suffix: str, kind: str
) -> None:
    path = left_by_the_last_process(store, files).with_suffix(suffix)
    victim = tmp_path / "victim"
    victim.write_bytes(path.read_bytes())
    before = victim.read_bytes()
    path.unlink()
    if kind == "symlink":
        path.symlink_to(victim)
    elif kind == "dangling":
        path.symlink_to(tmp_path / "nothing")
    elif kind == "hard link":
        os.link(victim, path)
    else:
        os.mkfifo(path)
    get(store, files)
    assert files.ranges == [None]
    assert victim.read_bytes() == before
    assert not (tmp_path / "nothing").exists()
    assert store.path(KEY).read_bytes() == DATA


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_part_of_another_user_is_not_gone_on_with(store: Store, files: FileServer) -> None:
    path = left_by_the_last_process(store, files)
    os.chown(path, 12345, 12345)
    get(store, files)
    assert files.ranges == [None]


@pytest.mark.parametrize("suffix", [".part", ".json"])
def test_a_folder_in_a_parts_place_is_left_alone_and_named(
    store: Store, files: FileServer, suffix: str
) -> None:
    path = left_by_the_last_process(store, files).with_suffix(suffix)
    path.unlink()
    path.mkdir()
    (path / "somebody's").touch()
    with pytest.raises(StoreError, match=rf"{KEY.hex}{suffix} is a folder"):
        get(store, files)
    assert (path / "somebody's").exists()


# many at once


def test_many_that_were_turned_away_at_once_do_not_come_back_at_once(store: Store, files: FileServer) -> None:
    patience = Patience(attempts=3, silence=5, first_pause=0.5)
    names = [f"/{number}" for number in range(10)]
    files.files |= dict.fromkeys(names, DATA)
    files.faults = [Fault(status=503)] * 10

    def one(name: str) -> None:
        key = Digest.of_bytes(name.encode())
        wanted = Source(url=files.url + name, key=key, most=len(DATA), what=name, patience=patience)
        download(store, wanted, SILENT, Digest.of_file)

    threads = [threading.Thread(target=one, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(files.asked) == 20
    turned_away = max(asked.moment for asked in files.asked[:10])
    back = sorted(asked.moment for asked in files.asked[10:])
    assert back[0] - files.asked[0].moment >= 0.25  # half of the pause is sure
    assert back[-1] - back[0] > 0.05  # and half is chance; ten within a fifth of it come once in 10^5 times
    assert back[-1] - turned_away < 2


# TLS


def test_a_certificate_for_another_name_is_refused_at_once(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = make_certificate(tmp_path)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate[0]))
    with serve_files(certificate) as secure:
        secure.files["/a.zip"] = DATA
        get(store, secure)
        secure.asked.clear()
        elsewhere = FileServer(url=secure.url.replace("localhost", "127.0.0.1"))
        with pytest.raises(FetchError, match=r"(?i)mismatch|doesn't match|not valid for") as caught:
            get(store, elsewhere, patience=Patience(attempts=50, first_pause=60))
        assert "authority" not in caught.value.advice  # it is known, and more of them would not help
        assert secure.asked == []


def test_a_server_that_speaks_no_tls_is_asked_again_and_then_named(store: Store, files: FileServer) -> None:
    plain = FileServer(url=files.url.replace("http://", "https://"))
    with pytest.raises(FetchError, match=r"(?s)asked 3 times.*https://127"):
        get(store, plain)


def test_a_tls_connection_that_trickles_is_given_up(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = make_certificate(tmp_path)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate[0]))
    with serve_files(certificate) as secure:
        secure.files["/a.zip"] = DATA
        secure.faults = [Fault(raw=HEAD + b"\r\n", again=b"x", every=0.1)]
        told = io.StringIO()
        get(store, secure, stream=told)
    assert "less than 1000 a second" in told.getvalue()

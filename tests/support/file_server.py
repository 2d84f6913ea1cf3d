"""A loopback HTTP server of files with everything that can go wrong between a server and a download."""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING

from loopback import serving

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

CHUNK = 1 << 16
LAST_MODIFIED = "Thu, 18 Oct 2018 00:00:00 GMT"


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What goes wrong with one answer.

    Args:
        status: answer this, with nothing in it.
        headers: more headers, or others; None leaves one out.
        after: send so many bytes of the body, and then…
        stall: …nothing for so many seconds; otherwise the connection ends.
        ignore_range: answer 200 and the whole file, whatever was asked.
        ignore_if_range: answer 206 of the file as it is now, whatever it was before.
        shift: begin so many bytes later than was asked.
        flip: of the file, the byte that is another one.
        raw: sent as it is in place of an answer…
        again: …and this after it, until the client has gone…
        every: …with so many seconds before each.
    """

    status: int = 0
    headers: Mapping[str, str | None] = field(default_factory=dict)
    after: int | None = None
    stall: float = 0.0
    ignore_range: bool = False
    ignore_if_range: bool = False
    shift: int = 0
    flip: int | None = None
    raw: bytes | None = None
    again: bytes = b""
    every: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A request as it came."""

    path: str
    range: str | None
    if_range: str | None
    moment: float = field(default_factory=time.monotonic)


@dataclass
class FileServer:
    """Files by path; the faults befall the next answers in turn. `pace` is seconds before each 64 KiB."""

    url: str = ""
    files: dict[str, bytes | Path] = field(default_factory=dict)
    etag: str | None = '"1"'
    last_modified: str | None = LAST_MODIFIED
    faults: list[Fault] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    pace: float = 0.0
    lenient: bool = False  # to clients of other programs
    ending: threading.Event = field(default_factory=threading.Event)

    @property
    def ranges(self) -> list[str | None]:
        return [asked.range for asked in self.asked]


class _Handler(BaseHTTPRequestHandler):
    known: FileServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        range_, if_range = self.headers.get("Range"), self.headers.get("If-Range")
        self.known.asked.append(Asked(path=self.path, range=range_, if_range=if_range))
        assert self.known.lenient or self.headers.get("Accept-Encoding") == "identity"
        fault = self.known.faults.pop(0) if self.known.faults else Fault()
        if fault.raw is not None:
            self._raw(fault)
            return
        content = self.known.files.get(self.path)
        if fault.flip is not None:
            assert isinstance(content, bytes)
            at = fault.flip
            content = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
        if fault.status or content is None:
            self._head(fault.status or 404, {"Content-Length": "0"}, fault)
            return
        size = len(content) if isinstance(content, bytes) else content.stat().st_size
        start = 0
        if range_ is not None and not fault.ignore_range:
            fresh = if_range in (self.known.etag, self.known.last_modified) or fault.ignore_if_range
            start = int(range_.removeprefix("bytes=").removesuffix("-")) if fresh else 0
        if start and start >= size:
            self._head(416, {"Content-Range": f"bytes */{size}", "Content-Length": "0"}, fault)
            return
        begun = start + fault.shift if start else 0
        headers: dict[str, str | None] = {
            "Content-Type": "text/html" if self.path.endswith("/") else "application/octet-stream",
            "Content-Length": str(size - begun),
            "ETag": self.known.etag,
            "Last-Modified": self.known.last_modified,
        }
        if start:
            headers["Content-Range"] = f"bytes {begun}-{size - 1}/{size}"
        self._head(206 if start else 200, headers, fault)
        self._body(content, begun, size, fault)

    def _raw(self, fault: Fault) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.wfile.write(fault.raw or b"")
            while fault.again and not self.known.ending.wait(fault.every):
                self.wfile.write(fault.again)

    def _head(self, status: int, headers: Mapping[str, str | None], fault: Fault) -> None:
        self.send_response(status)
        for name, value in (dict(headers) | dict(fault.headers)).items():
            if value is not None:
                self.send_header(name, value)
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True

    def _body(self, content: bytes | Path, start: int, size: int, fault: Fault) -> None:
        end = size if fault.after is None else min(size, start + fault.after)
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            file = None if isinstance(content, bytes) else stack.enter_context(content.open("rb"))
            while start < end:
                count = min(CHUNK, end - start)
                if file is None:
                    assert isinstance(content, bytes)
                    self.wfile.write(content[start : start + count])
                else:
                    file.seek(start)
                    self.wfile.write(file.read(count))
                start += count
                if self.known.pace:
                    time.sleep(self.known.pace)
            self.wfile.flush()
            time.sleep(fault.stall)

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def serve_files(certificate: tuple[Path, Path] | None = None) -> Iterator[FileServer]:
    """Serve until the `with` block ends; by https, if a certificate and its key are given."""
    known = FileServer()
    with serving(type("Handler", (_Handler,), {"known": known}), certificate) as known.url:
        try:
            yield known
        finally:
            known.ending.set()

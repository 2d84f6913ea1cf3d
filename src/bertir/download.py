"""Downloads that go on where they stopped, in this process or the next: all use of requests in a build is here.

Nothing here is trusted: whoever asked compares the bytes with what is pinned before using them.
"""

from __future__ import annotations

import contextlib
import email.utils
import re
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

import requests
from urllib3.exceptions import HTTPError

from bertir import __version__
from bertir.digest import CHUNK_BYTES
from bertir.errors import DigestMismatchError, FetchError
from bertir.part import BrokenOffError, Part, State
from bertir.redact import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from bertir.digest import Digest
    from bertir.progress import Progress
    from bertir.store import Store

_PARTIAL, _REQUEST_TIMEOUT, _UNSATISFIABLE, _TOO_MANY = 206, 408, 416, 429
_TROUBLE = frozenset({_REQUEST_TIMEOUT, _TOO_MANY, 500, 502, 503, 504})  # the server's, and it may pass


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long to wait for a server, and how often to ask it again.

    Args:
        attempts: that may fail one after the other; an attempt that brought the file on starts the count anew.
        connect: seconds.
        silence: seconds without a byte after which a connection is given up.
        first_pause: seconds; each pause is twice the one before, up to `longest_pause`.
        longest_pause: seconds; a server that asks for more (Retry-After) is not waited for.
    """

    attempts: int = 5
    connect: float = 20
    silence: float = 60
    first_pause: float = 0.5
    longest_pause: float = 120


@dataclass(frozen=True, kw_only=True)
class Source:
    """What to download.

    Args:
        url: http or https.
        key: names the part; that of the pinned content, so that another mirror's answer replaces it.
        most: bytes; an answer without an end would fill the disk before its digest is known to be wrong.
        what: for messages.
        advice: for the message that the server hasn't got it.
    """

    url: str
    key: Digest
    most: int
    what: str
    advice: str = ""
    patience: Patience = field(default_factory=Patience)


@contextlib.contextmanager
def downloaded(store: Store, source: Source, progress: Progress) -> Iterator[Path]:
    """Give the downloaded file, as long as the `with` block lasts. The caller holds a lock on `source.key`.

    What has come stays for the next time when a connection breaks for good, the process is interrupted or killed,
    or the disk is full. It is removed when the block ends well, or finds that the bytes are wrong (FetchError).

    Raises:
        FetchError: it can't be had. DigestMismatchError: it is longer than it may be.
        StoreError: the disk is full.
    """
    part = Part(store, source.key, source.url, what=source.what)
    try:
        _complete(part, source, progress)
    except DigestMismatchError:
        part.remove()
        raise
    try:
        yield part.path
    except FetchError:
        part.remove()
        raise
    part.remove()


def _complete(part: Part, source: Source, progress: Progress) -> None:
    """Attempt until the part is whole, or patience is at its end."""
    patience = source.patience
    furthest, failures = part.size, 0
    if part.is_whole:  # the process of before ended between the last byte and its use
        return None
    with _session() as session:
        while True:
            try:
                return _attempt(session, part, source, progress)
            except BrokenOffError as error:
                # Only new ground counts: a server that can't resume would otherwise be asked for ever.
                failures = 1 if part.size >= furthest + CHUNK_BYTES else failures + 1
                furthest = max(furthest, part.size)
                pause = _pause(error, failures, patience)
                if failures >= patience.attempts or pause > patience.longest_pause:
                    raise _gave_up(error, failures, part, source) from error
                progress.say("fetch", f"{source.what}: {error}; asking again in {pause:.0f} s")
                time.sleep(pause)


def _attempt(session: requests.Session, part: Part, source: Source, progress: Progress) -> None:
    """Ask for what is missing, or for all of it, and append what comes."""
    offset = part.size if part.state.validator else 0
    # Content as it is stored: what a proxy compressed on the way could not be resumed.
    headers = {"Accept-Encoding": "identity"}
    if offset:
        headers |= {"Range": f"bytes={offset}-", "If-Range": part.state.validator}
    with _asked(session, source, headers) as response:
        if offset and response.status_code == _UNSATISFIABLE:
            return _end_or_begin(response, part, offset)
        _require_success(response, source)
        offset = _go_on_or_begin(response, part, offset)
        total = part.state.length
        if total is not None and total > source.most:
            raise _too_long(source)
        if offset:
            progress.say("fetch", f"{source.what}: going on at {offset / 1e6:.1f} MB")
        chunks = _at_most(_body(response), source, offset)
        part.append(progress.counted("fetch", source.what, chunks, total, already=offset))
    return part.end()


def _end_or_begin(response: requests.Response, part: Part, offset: int) -> None:
    """Take a 416: there is nothing after the part, because it is whole or because the file is another one now."""
    if _content_range(response) != (None, offset):
        part.begin(State(url=part.state.url))
        raise BrokenOffError("the file has changed at the server", pause=0)
    part.end(offset)  # the length that was announced is what was wrong


def _go_on_or_begin(response: requests.Response, part: Part, offset: int) -> int:
    """Take a 206 or a 200, and give the place in the file at which its body begins."""
    if response.status_code != _PARTIAL:
        part.begin(_state(response, part.state.url))
        return 0
    if offset and _continues(response, part, offset):
        return offset
    part.begin(State(url=part.state.url))
    raise BrokenOffError("the server continues another file than it began", pause=0)


def _continues(response: requests.Response, part: Part, offset: int) -> bool:
    """Whether a 206 is the rest of the file that the part is of, whatever became of the If-Range on the way."""
    start, length = _content_range(response)
    if start != offset or (part.state.length is not None and length not in (None, part.state.length)):
        return False
    etag = response.headers.get("ETag", "")
    return not etag or not part.state.etag or etag == part.state.etag


def _state(response: requests.Response, url: str) -> State:
    return State(
        url=url,
        length=_number(response.headers.get("Content-Length", "")),
        etag=response.headers.get("ETag", ""),
        last_modified=response.headers.get("Last-Modified", ""),
    )


def _content_range(response: requests.Response) -> tuple[int | None, int | None]:
    """Give first byte and whole length of `bytes 5-9/10`, `bytes 5-9/*` or `bytes */10`."""
    unit, _, text = response.headers.get("Content-Range", "").partition(" ")
    span, _, length = text.partition("/")
    return (_number(span.partition("-")[0]), _number(length)) if unit == "bytes" else (None, None)


def _number(text: str) -> int | None:
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None


def _body(response: requests.Response) -> Iterator[bytes]:
    """Give the bytes as they come: of a broken connection, all that came."""
    try:
        while chunk := response.raw.read1(CHUNK_BYTES, decode_content=False):
            yield chunk
    except HTTPError as error:
        raise BrokenOffError(_reason(error)) from error


def _at_most(chunks: Iterator[bytes], source: Source, size: int) -> Iterator[bytes]:
    for chunk in chunks:
        size += len(chunk)
        if size > source.most:
            raise _too_long(source)
        yield chunk


# HTTP


class _Session(requests.Session):
    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """Give where a redirect leads, as requests does; but never from https to where anyone may listen."""
        target = super().get_redirect_target(resp)
        if target is not None and urlsplit(resp.url).scheme == "https":
            to = urljoin(resp.url, target)
            if urlsplit(to).scheme != "https":
                raise FetchError(
                    f"{shown(resp.url)}: the server redirects from https to {shown(to)}; it was not followed",
                    advice="Name a mirror that serves the file by https: --mirror URL",
                )
        return target


def _session() -> requests.Session:
    session = _Session()
    session.headers["User-Agent"] = f"bertir/{__version__}"
    return session


@contextlib.contextmanager
def _asked(
    session: requests.Session, source: Source, headers: Mapping[str, str]
) -> Iterator[requests.Response]:
    patience = source.patience
    timeout = (patience.connect, patience.silence)
    try:
        response = session.get(source.url, headers=dict(headers), stream=True, timeout=timeout)
    except (requests.exceptions.SSLError, requests.exceptions.ProxyError) as error:
        raise _unreachable(source, error) from error
    except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
        raise BrokenOffError(_reason(error)) from error
    except (requests.RequestException, ValueError) as error:  # ValueError: a redirect to an odd URL
        raise _unreachable(source, error) from error
    with response:
        yield response


def _require_success(response: requests.Response, source: Source) -> None:
    status = response.status_code
    said = f"the server answered {status} {printable(response.reason or '')}".rstrip()
    if status in _TROUBLE:
        raise BrokenOffError(said, pause=_retry_after(response.headers.get("Retry-After", "")))
    if status not in (200, _PARTIAL):
        raise FetchError(
            f"{source.what}: {said}\n  {shown(source.url)}",
            advice=source.advice or "See whether this machine reaches that server, then run it again.",
        )


def _retry_after(text: str) -> float | None:
    """Give the seconds of a Retry-After header, which is a number or a date."""
    if (seconds := _number(text)) is not None:
        return float(seconds)
    with contextlib.suppress(ValueError, TypeError):
        moment = email.utils.parsedate_to_datetime(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return max(0.0, (moment - datetime.now(UTC)).total_seconds())
    return None


def _pause(error: BrokenOffError, failures: int, patience: Patience) -> float:
    if error.pause is not None:
        return error.pause
    return float(min(patience.longest_pause, patience.first_pause * 2 ** (failures - 1)))


def _reason(error: Exception) -> str:
    """Give the innermost reason: requests and urllib3 wrap it three times, each time with its repr."""
    inner: Any = error
    for _ in range(8):
        nested = getattr(inner, "reason", None) or next(
            (item for item in getattr(inner, "args", ()) if isinstance(item, Exception)), None
        )
        if not isinstance(nested, Exception):
            break
        inner = nested
    text = str(inner)
    return (
        printable(text.partition(": ")[2] if text.startswith(("<", "HTTP")) else text) or type(inner).__name__
    )


def shown(url: str) -> str:
    """A URL for messages: without the user and password that it may hold."""
    parts = urlsplit(url)
    return printable(parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl())


def _gave_up(error: BrokenOffError, failures: int, part: Part, source: Source) -> FetchError:
    times = f" (asked {failures} times)" if failures > 1 else ""
    waits = f", and asks to come back in {error.pause:.0f} s" if error.pause else ""
    kept = ""
    if part.size and part.state.validator:
        kept = f"{part.size / 1e6:.1f} MB are kept; the next run goes on from there. "
    return FetchError(
        f"{source.what}: {error}{waits}{times}\n  {shown(source.url)}",
        advice=f"{kept}See whether this machine reaches that server, then run it again.",
    )


def _unreachable(source: Source, error: Exception) -> FetchError:
    return FetchError(
        f"{source.what}: {_reason(error)}\n  {shown(source.url)}",
        advice="See whether this machine reaches that server, then run it again.",
    )


def _too_long(source: Source) -> DigestMismatchError:
    return DigestMismatchError(
        f"{source.what}: the server sends more than the {source.most} bytes that it may have\n  {shown(source.url)}"
    )

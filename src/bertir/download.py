"""Downloads that go on where they stopped, in this process or the next.

Nothing here is trusted: whoever asked compares the bytes with what is pinned before using them.
"""

from __future__ import annotations

import contextlib
import email.utils
import random
import re
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

from bertir.digest import CHUNK_BYTES
from bertir.errors import DigestMismatchError, FetchError
from bertir.part import Part, State
from bertir.redact import printable
from bertir.web import BrokenOffError, Patience, asked, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from bertir.digest import Digest
    from bertir.progress import Progress
    from bertir.store import Store
    from bertir.web import Response

_Used = TypeVar("_Used")
_PARTIAL, _REQUEST_TIMEOUT, _UNSATISFIABLE, _TOO_MANY = 206, 408, 416, 429
TROUBLE = frozenset({_REQUEST_TIMEOUT, _TOO_MANY, 500, 502, 503, 504})  # the server's, and it may pass


@dataclass(frozen=True, kw_only=True)
class Source:
    """What to download.

    Args:
        url: http or https.
        key: names the part; that of the pinned content, so that another mirror's answer replaces it.
        most: bytes; an answer without an end would fill the disk before its digest is known to be wrong.
        login: gives what to send as `Authorization` to the server of `url`, anew for each attempt: a token may be over.
        what: for messages.
        advice: for the message that the server hasn't got it.
    """

    url: str
    key: Digest
    most: int
    what: str
    advice: str = ""
    login: Callable[[], str] | None = None
    patience: Patience = field(default_factory=Patience)


def download(store: Store, source: Source, progress: Progress, use: Callable[[Path], _Used]) -> _Used:
    """Download a file, and give what `use` makes of it. The caller holds a lock on `source.key`.

    What has come stays for the next time when a connection breaks for good, the process is interrupted or killed,
    or the disk is full. It is removed when `use` ends well, or finds that the bytes are wrong (FetchError). Wrong
    bytes that came in several pieces, or lay on the disk, may be the fault of any piece: then the file is downloaded
    anew from its start, once.

    Raises:
        FetchError: it can't be had. DigestMismatchError: it is longer than it may be, or isn't what `use` takes.
        StoreError: the disk is full.
    """
    part = Part(store, source.key, source.url, what=source.what)
    again = False
    while True:
        try:
            _complete(part, source, progress)
        except DigestMismatchError:
            part.remove()
            raise
        try:
            used = use(part.path)
        except FetchError:
            part.remove()
            if again or part.in_one_piece:
                raise
        else:
            part.remove()
            return used
        again = True
        said = "what came in pieces is not the pinned file; downloading it anew from its start"
        progress.say("fetch", f"{source.what}: {said}")


def _complete(part: Part, source: Source, progress: Progress) -> None:
    """Attempt until the part is whole, or patience is at its end."""
    patience = source.patience
    furthest, failures = part.size, 0
    if part.is_whole:  # the process of before ended between the last byte and its use
        return None
    while True:
        try:
            return _attempt(part, source, progress)
        except BrokenOffError as error:
            # Only new ground counts: a server that can't resume would otherwise be asked for ever.
            failures = 1 if part.size >= furthest + CHUNK_BYTES else failures + 1
            furthest = max(furthest, part.size)
            if failures >= patience.attempts or (error.pause or 0) > patience.longest_pause:
                raise _gave_up(error, failures, part, source) from error
            pause = pause_before(error, failures, patience)
            progress.say("fetch", f"{source.what}: {error}; asking again in {pause:.0f} s")
            time.sleep(pause)


def _attempt(part: Part, source: Source, progress: Progress) -> None:
    """Ask for what is missing, or for all of it, and append what comes."""
    offset = part.size if part.state.validator else 0
    # Content as it is stored: what a proxy compressed on the way could not be resumed.
    headers = {"Accept-Encoding": "identity"}
    if offset:
        headers |= {"Range": f"bytes={offset}-", "If-Range": part.state.validator}
    login = source.login() if source.login else None
    with asked(source.url, headers, source.patience, what=source.what, login=login) as (response, body):
        if offset and response.status_code == _UNSATISFIABLE:
            return _end_or_begin(response, part, offset)
        _require_success(response, source)
        offset = _go_on_or_begin(response, part, offset)
        total = part.state.length
        if total is not None and total > source.most:
            raise _too_long(source)
        if offset:
            progress.say("fetch", f"{source.what}: going on at {offset / 1e6:.1f} MB")
        if coding := response.headers.get("Content-Encoding", ""):
            # Some servers say so of what is stored in that form, and then the bytes are right: the digest decides.
            said = f"the server says that it encodes it by {printable(coding)}, and was asked not to"
            progress.say("fetch", f"{source.what}: {said}")
        chunks = _at_most(body, source, offset)
        part.append(progress.counted("fetch", source.what, chunks, total, already=offset))
    return part.end()


def _end_or_begin(response: Response, part: Part, offset: int) -> None:
    """Take a 416: there is nothing after the part, because it is whole or because the file is another one now."""
    if _content_range(response) != (None, offset):
        part.begin(State(url=part.state.url))
        raise BrokenOffError("the file has changed at the server", pause=0)
    part.end(offset)  # the length that was announced is what was wrong


def _go_on_or_begin(response: Response, part: Part, offset: int) -> int:
    """Take a 206 or a 200, and give the place in the file at which its body begins."""
    if response.status_code != _PARTIAL:
        part.begin(_state(response, part.state.url))
        return 0
    if offset and _continues(response, part, offset):
        part.go_on()
        return offset
    part.begin(State(url=part.state.url))
    if offset:
        raise BrokenOffError("the server continues another file than it began", pause=0)
    raise BrokenOffError("the server sent a piece of the file, and was asked for all of it")


def _continues(response: Response, part: Part, offset: int) -> bool:
    """Whether a 206 is the rest of the file that the part is of, whatever became of the If-Range on the way."""
    start, length = _content_range(response)
    if start != offset or (part.state.length is not None and length not in (None, part.state.length)):
        return False
    etag = response.headers.get("ETag", "")
    return not etag or not part.state.etag or etag == part.state.etag


def _state(response: Response, url: str) -> State:
    return State(
        url=url,
        length=_number(response.headers.get("Content-Length", "")),
        etag=response.headers.get("ETag", ""),
        last_modified=response.headers.get("Last-Modified", ""),
    )


def _content_range(response: Response) -> tuple[int | None, int | None]:
    """Give first byte and whole length of `bytes 5-9/10`, `bytes 5-9/*` or `bytes */10`."""
    unit, _, text = response.headers.get("Content-Range", "").partition(" ")
    span, _, length = text.partition("/")
    return (_number(span.partition("-")[0]), _number(length)) if unit == "bytes" else (None, None)


def _number(text: str) -> int | None:
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None


def _at_most(chunks: Iterator[bytes], source: Source, size: int) -> Iterator[bytes]:
    for chunk in chunks:
        size += len(chunk)
        if size > source.most:
            raise _too_long(source)
        yield chunk


def _require_success(response: Response, source: Source) -> None:
    status = response.status_code
    said = f"the server answered {status} {printable(response.reason or '')}".rstrip()
    if status in TROUBLE:
        raise BrokenOffError(said, pause=retry_after(response.headers.get("Retry-After", "")))
    if status not in (200, _PARTIAL):
        raise FetchError(
            f"{source.what}: {said}\n  {shown(source.url)}",
            advice=source.advice or "See whether this machine reaches that server, then run it again.",
        )


def retry_after(text: str) -> float | None:
    """Give the seconds of a Retry-After header, which is a number or a date; None if they are over."""
    if (seconds := _number(text)) is not None:
        return float(seconds) or None
    with contextlib.suppress(ValueError, TypeError):
        moment = email.utils.parsedate_to_datetime(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return max(0.0, (moment - datetime.now(UTC)).total_seconds()) or None
    return None


def pause_before(error: BrokenOffError, failures: int, patience: Patience) -> float:
    """Give the seconds to wait: what the server asks for, and then some time of our own.

    Half of that is left to chance: many that were turned away at once should not come back at once.
    """
    if error.pause == 0:
        return 0
    own = min(patience.longest_pause, patience.first_pause * 2.0 ** (failures - 1))
    return (error.pause or 0) + own * random.SystemRandom().uniform(0.5, 1)


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


def _too_long(source: Source) -> DigestMismatchError:
    return DigestMismatchError(
        f"{source.what}: the server sends more than the {source.most} bytes that it may have\n  {shown(source.url)}",
        advice=source.advice or "It serves something else under that name: ask whoever runs it.",
    )

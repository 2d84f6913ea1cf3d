"""HTTP as bertir speaks it: one request, with what holds against servers that end nothing. All use of requests is here.

requests has a limit for silence and none for a server that says a little now and then: one byte of a file, one more
header, one more `100 Continue`, a trailer. `Watch` ends such a connection, wherever it is stuck.
"""

from __future__ import annotations

import contextlib
import http.client
import re
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError

from bertir import __version__
from bertir.authority import FOR_DOWNLOADS
from bertir.digest import CHUNK_BYTES
from bertir.errors import FetchError
from bertir.redact import printable
from bertir.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from urllib3.poolmanager import PoolManager

Response = requests.Response
MOST_REDIRECTS = 20
_ASKING = frozenset({"GET", "HEAD"})
_SHOWN = 80
_WHERE = re.compile(r"\A(<urllib3\S+ object at \S+>|\w+\(host=[^)]*\)): ")
_ADVICE = "See whether this machine reaches that server, then run it again."
# OpenSSL's numbers for a certificate whose authority isn't known here: self-signed, or issued by one that isn't in the list.
_UNKNOWN_AUTHORITY = (18, 19, 20, 21)


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long to wait for a server, and how often to ask it again.

    Args:
        attempts: that may fail one after the other; an attempt that brought the file on starts the count anew.
        connect: seconds.
        silence: seconds without a byte after which a connection is given up.
        window: seconds in each of which `slowest` bytes a second must come, headers aside.
        slowest: bytes a second; a modem of 1990 brings more.
        first_pause: seconds; each pause is twice the one before, up to `longest_pause`.
        longest_pause: seconds; a server that asks for more (Retry-After) is not waited for.
    """

    attempts: int = 5
    connect: float = 20
    silence: float = 60
    window: float = 120
    slowest: float = 200
    first_pause: float = 0.5
    longest_pause: float = 120


class BrokenOffError(Exception):
    """An attempt that failed in a way that may pass.

    Args:
        pause: seconds that the server asks to be left alone; 0 is to ask again at once, None to choose.
    """

    def __init__(self, reason: str, *, pause: float | None = None) -> None:
        super().__init__(reason)
        self.pause = pause


class Sent:
    """What to send: pieces as they come, and how many bytes they are; requests then says that number."""

    def __init__(self, chunks: Iterator[bytes], size: int) -> None:
        self._chunks = chunks
        self._size = size
        self.went: Callable[[int], None] = lambda _count: None  # told of each piece that went

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._chunks:
            yield chunk
            self.went(len(chunk))


@contextlib.contextmanager
def asked(
    url: str,
    headers: Mapping[str, str],
    patience: Patience,
    *,
    what: str,
    method: str = "GET",
    body: bytes | Sent | None = None,
    login: str | None = None,
) -> Iterator[tuple[requests.Response, Iterator[bytes]]]:
    """Ask for `url`, and give the answer that redirects lead to, whatever its status is, with its body as it comes.

    Args:
        url: http or https.
        headers: to send.
        patience: with the server.
        what: for messages.
        method: redirects are followed if it asks for something, and not if it sends.
        body: what to send. While it goes, it counts as what comes does.
        login: what to send as `Authorization`, to the host of `url` alone; empty for nothing; None for what ~/.netrc has.

    Raises:
        BrokenOffError: something that may pass; within the block too.
        FetchError: something that won't: an unknown certificate, a redirect that isn't followed.
    """
    with Watch(patience) as watch, _session(watch) as session:
        if isinstance(body, Sent):
            body.went = watch.came
        for _ in range(MOST_REDIRECTS + 1):
            call = requests.Request(method, url, headers=dict(headers), data=body, auth=_as_said(login))
            with _answer(session, call, patience, watch=watch, what=what) as response:
                target = _redirect(session, response) if method in _ASKING else None
                if target is None:
                    yield response, _body(response, watch)
                    return
                if login and origin(target) != origin(url):
                    login = ""
                url = target  # its body isn't read: it may have no end
    raise FetchError(f"{what}: more than {MOST_REDIRECTS} redirects\n  {shown(url)}", advice=_ADVICE)


def origin(url: str) -> tuple[str, str]:
    """Give what a login is for: scheme, host and port."""
    parts = urlsplit(url)
    return parts.scheme, parts.netloc.rpartition("@")[2].lower()


def _as_said(login: str | None) -> Callable[[Any], Any] | None:
    """Give what sets `Authorization` and keeps requests from looking for one in ~/.netrc, which it would take instead."""
    if login is None:
        return None

    def sign(request: Any) -> Any:  # noqa: ANN401 - as requests has it
        if login:
            request.headers["Authorization"] = login
        return request

    return sign


def _answer(
    session: requests.Session,
    call: requests.Request,
    patience: Patience,
    *,
    watch: Watch,
    what: str,
) -> requests.Response:
    url = str(call.url)
    try:
        return session.request(
            str(call.method),
            url,
            headers=call.headers,
            data=call.data,
            auth=call.auth,
            stream=True,
            timeout=(patience.connect, patience.silence),
            allow_redirects=False,
        )
    except requests.exceptions.ProxyError as error:
        raise _unreachable(what, url, error) from error
    except requests.exceptions.SSLError as error:
        if refused := [item for item in _chain(error) if isinstance(item, ssl.SSLCertVerificationError)]:
            known = all(item.verify_code not in _UNKNOWN_AUTHORITY for item in refused)
            raise _unreachable(what, url, error, advice=_ADVICE if known else FOR_DOWNLOADS) from error
        raise BrokenOffError(watch.tripped or _reason(error)) from error
    except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
        raise BrokenOffError(watch.tripped or _reason(error)) from error
    except (requests.RequestException, ValueError) as error:  # ValueError: an odd URL
        raise _unreachable(what, url, error) from error


def _body(response: requests.Response, watch: Watch) -> Iterator[bytes]:
    """Give the bytes as they come: of a broken connection, all that came."""
    try:
        while chunk := response.raw.read1(CHUNK_BYTES, decode_content=False):
            watch.came(len(chunk))
            yield chunk
    except HTTPError as error:
        raise BrokenOffError(watch.tripped or _reason(error)) from error
    if watch.tripped:  # of an answer without a length, any end looks like the right one
        raise BrokenOffError(watch.tripped)


def _redirect(session: requests.Session, response: requests.Response) -> str | None:
    """Give where a redirect leads: by http or https alone, and never from https to where anyone may listen."""
    try:
        target = session.get_redirect_target(response)
        if target is None:
            return None
        to = urljoin(response.url, target)
        scheme = urlsplit(to).scheme
    except ValueError as error:
        raise FetchError(f"{shown(response.url)}: the server redirects to an odd URL: {error}") from error
    came_from = urlsplit(response.url).scheme
    if scheme == "https" or scheme == came_from == "http":
        return to
    raise FetchError(
        f"{shown(response.url)}: the server redirects from {came_from} to {shown(to)}; it was not followed",
        advice="Name a mirror that serves the file by https: --mirror URL" if scheme == "http" else _ADVICE,
    )


class _Session(requests.Session):
    def resolve_redirects(self, *_: Any, **__: Any) -> Iterator[Any]:  # noqa: ANN401 - as it has them
        """Do nothing: requests would read a redirect's own body to its end, into memory, even if it isn't to follow it."""
        return iter(())


def _session(watch: Watch) -> requests.Session:
    session = _Session()
    session.headers["User-Agent"] = f"bertir/{__version__}"
    adapter = _watched(watch)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    return session


def _watched(watch: Watch) -> HTTPAdapter:
    """Give an adapter whose connections are seen by `watch` from their beginning: requests has no hook for that."""

    class Plain(HTTPConnection):
        def connect(self) -> None:
            super().connect()
            watch.hold(self.sock)

    class Secure(HTTPSConnection):
        def connect(self) -> None:
            super().connect()
            watch.hold(self.sock)

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls = Secure

    def seen(manager: PoolManager) -> PoolManager:
        manager.pool_classes_by_scheme = {"http": PlainPool, "https": SecurePool}
        return manager

    class Adapter(HTTPAdapter):
        def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - as it has them
            super().init_poolmanager(*args, **kwargs)
            seen(self.poolmanager)

        def proxy_manager_for(self, *args: Any, **kwargs: Any) -> PoolManager:  # noqa: ANN401 - as it has them
            return seen(super().proxy_manager_for(*args, **kwargs))

    return Adapter()


# what is said


def shown(url: str) -> str:
    """A URL for messages: without the user and password that it may hold, and without its query."""
    parts = urlsplit(url)
    query = "…" if parts.query else ""  # signatures are in there, of who may fetch it
    return printable(parts._replace(netloc=parts.netloc.rpartition("@")[2], query=query).geturl())


def _unreachable(what: str, url: str, error: Exception, *, advice: str = _ADVICE) -> FetchError:
    return FetchError(f"{what}: {_reason(error)}\n  {shown(url)}", advice=advice)


def _chain(error: Exception) -> list[Any]:
    """Give an error and those inside it: requests and urllib3 wrap it three times, each time with its repr."""
    found: list[Any] = [error]
    for _ in range(8):
        inner = getattr(found[-1], "reason", None)
        if not isinstance(inner, Exception):
            inner = next(
                (item for item in getattr(found[-1], "args", ()) if isinstance(item, Exception)), None
            )
        if inner is None:
            break
        found.append(inner)
    return found


def _reason(error: Exception) -> str:
    """Give the innermost reason."""
    inner = _chain(error)[-1]
    text = _WHERE.sub("", str(inner))
    if type(inner) is http.client.BadStatusLine:
        text = f"its answer is no HTTP: {text[:_SHOWN]}"
    return printable(text) or type(inner).__name__

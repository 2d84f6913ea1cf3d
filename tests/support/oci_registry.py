"""A registry on loopback, in memory: the API of the OCI distribution 1.1, with what may go wrong in an answer.

It is strict with its clients: what it is sent must have the digest that it is said to have.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import threading
import uuid
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from loopback import serving

from bertir.progress import SILENT
from bertir.reference import Reference
from bertir.registry import Registry
from bertir.web import Patience

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

HASTY = Patience(attempts=3, connect=5, silence=2, first_pause=0.01, longest_pause=1)
INDEX = "application/vnd.oci.image.index.v1+json"
_ROUTE = re.compile(r"/v2/(?P<name>.+?)/(?P<kind>blobs/uploads|blobs|manifests|referrers)/(?P<what>.*)")
_CHUNK = 1 << 16
_ENDLESS = 64 << 20  # for a client that reads all: enough to be seen, and not to take the machine's memory


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What goes wrong with the next request that fits.

    Args:
        method: of the request.
        path: a part of its path.
        status: answer this, with…
        headers: …these and…
        body: …this.
        change: what becomes of the right body.
        after: send so many bytes of the body, and end the connection.
        endless: go on with zeros until the client has gone, or read 64 MiB of them.
        reached: set when the request is here; the answer waits for `until` then.
        stays: it befalls each such request, and not just the next one.
    """

    method: str
    path: str
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    change: Callable[[bytes], bytes] | None = None
    after: int | None = None
    endless: bool = False
    reached: threading.Event | None = None
    until: threading.Event = field(default_factory=threading.Event)
    stays: bool = False


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A request as it came."""

    method: str
    path: str
    query: str
    authorization: str
    range: str
    size: int


@dataclass
class MemoryRegistry:
    """What it holds and was asked. `login` is what it wants as `user:password`, by Basic or, with `tokens`, for a token."""

    host: str = ""
    referrers_api: bool = False
    login: str = ""
    tokens: bool = False
    identity: str = ""  # a token that tokens are given for
    realm: str = ""  # another place for tokens than its own
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict)  # by "name:tag" and "name@digest"
    uploads: dict[str, str] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    given: set[str] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)
    ending: threading.Event = field(default_factory=threading.Event)
    before_put: Callable[[str], None] = lambda _what: None

    def sent(self, method: str, part: str = "") -> list[Asked]:
        return [asked for asked in self.asked if asked.method == method and part in asked.path]

    def manifest(self, name: str, what: str) -> Any:
        return json.loads(self.manifests[self.place(name, what)][1])

    def place(self, name: str, what: str) -> str:
        return f"{name}{'@' if what.startswith('sha256:') else ':'}{what}"

    def hold(self, name: str, what: str, media_type: str, data: bytes) -> str:
        """Put a manifest there without a client."""
        digest = digest_of(data)
        self.manifests[self.place(name, what)] = self.manifests[self.place(name, digest)] = (media_type, data)
        return digest


class _Handler(BaseHTTPRequestHandler):
    known: MemoryRegistry
    protocol_version = "HTTP/1.1"

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.known.asked.append(
            Asked(
                method=self.command,
                path=parts.path,
                query=parts.query,
                authorization=self.headers.get("Authorization", ""),
                range=self.headers.get("Range", ""),
                size=len(body),
            )
        )
        for fault in self.known.faults:
            if fault.method == self.command and fault.path in parts.path:
                if not fault.stays:
                    self.known.faults.remove(fault)
                break
        else:
            fault = None
        if fault is not None and fault.reached is not None:
            fault.reached.set()
            fault.until.wait(60)
        if fault is not None and fault.status:
            self._give(fault.status, fault.body, fault.headers, fault)
            return
        if parts.path == "/token":
            self._token(parse_qs(body.decode()))
        elif self._is_allowed():
            status, headers, content = self._answer(parts.path, parse_qs(parts.query), body)
            self._give(status, content, headers, fault)

    do_GET = do_HEAD = do_POST = do_PUT = _serve  # noqa: N815 - http.server's names

    # who is allowed

    def _is_allowed(self) -> bool:
        known, said = self.known, self.headers.get("Authorization", "")
        if not known.login:
            return True
        if known.tokens:
            if said.removeprefix("Bearer ") in known.given:
                return True
            realm = known.realm or f"http://{known.host}/token"
            challenge = f'Bearer realm="{realm}",service="memory",scope="repository:x:pull"'
        else:
            if said == f"Basic {base64.b64encode(known.login.encode()).decode()}":
                return True
            challenge = 'Basic realm="a registry"'
        self._give(401, b"", {"WWW-Authenticate": challenge})
        return False

    def _token(self, form: Mapping[str, list[str]]) -> None:
        asked = (form.get("grant_type"), form.get("refresh_token"))
        by_identity = bool(self.known.identity) and asked == (["refresh_token"], [self.known.identity])
        expected = f"Basic {base64.b64encode(self.known.login.encode()).decode()}"
        if self.headers.get("Authorization") != expected and not by_identity:
            self._give(401, b"", {})
            return
        token = f"token-{uuid.uuid4().hex}"
        self.known.given.add(token)
        self._give(200, json.dumps({"token": token}).encode(), {})

    # what there is

    def _answer(  # noqa: PLR0911 - one for each kind
        self, path: str, query: Mapping[str, list[str]], body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        route = _ROUTE.fullmatch(path)
        if route is None:
            return 404, {}, b""
        name, kind, what = route["name"], route["kind"], route["what"]
        with self.known.lock:
            if kind == "blobs/uploads":
                return self._upload(name, what, query, body)
            if kind == "blobs":
                return self._blob(what)
            if kind == "referrers":
                return self._referrers(name, what, query)
        if self.command == "PUT":
            self.known.before_put(what)
            return self._put_manifest(name, what, body)
        found = self.known.manifests.get(self.known.place(name, what))
        if found is None:
            return 404, {}, b'{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}'
        return 200, {"Content-Type": found[0], "Docker-Content-Digest": digest_of(found[1])}, found[1]

    def _upload(
        self, name: str, what: str, query: Mapping[str, list[str]], body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        if self.command == "POST":
            identity = uuid.uuid4().hex
            self.known.uploads[identity] = name
            return 202, {"Location": f"/v2/{name}/blobs/uploads/{identity}?_state=x"}, b""
        [digest] = query["digest"]
        if self.known.uploads.pop(what, "") != name or query["_state"] != ["x"]:
            return 404, {}, b""
        if digest_of(body) != digest:
            return 400, {}, b'{"errors": [{"message": "provided digest did not match"}]}'
        self.known.blobs[digest] = body
        return 201, {"Location": f"/v2/{name}/blobs/{digest}"}, b""

    def _blob(self, digest: str) -> tuple[int, dict[str, str], bytes]:
        content = self.known.blobs.get(digest)
        if content is None:
            return 404, {}, b""
        headers = {"ETag": f'"{digest}"'}
        if range_ := self.headers.get("Range"):
            start = int(range_.removeprefix("bytes=").removesuffix("-"))
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            return 206, headers, content[start:]
        return 200, headers, content

    def _put_manifest(self, name: str, what: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        value, digest = json.loads(body), digest_of(body)
        if what.startswith("sha256:") and what != digest:
            return 400, {}, b""
        wanted = [value["config"], *value["layers"]] if "layers" in value else []
        if any(item["digest"] not in self.known.blobs for item in wanted):
            return 400, {}, b'{"errors": [{"message": "blob unknown to registry"}]}'
        self.known.hold(name, what, self.headers["Content-Type"], body)
        headers = {"Docker-Content-Digest": digest}
        if self.known.referrers_api and "subject" in value:
            headers["OCI-Subject"] = value["subject"]["digest"]
        return 201, headers, b""

    def _referrers(
        self, name: str, subject: str, query: Mapping[str, list[str]]
    ) -> tuple[int, dict[str, str], bytes]:
        if not self.known.referrers_api:
            return 404, {}, b""
        found = []
        for place, (media_type, data) in self.known.manifests.items():
            value = json.loads(data)
            if place.startswith(f"{name}@") and value.get("subject", {}).get("digest") == subject:
                found.append(
                    {
                        "mediaType": media_type,
                        "digest": digest_of(data),
                        "size": len(data),
                        "artifactType": value["artifactType"],
                    }
                )
        # One a page, as a registry may.
        at = int(query.get("n", ["0"])[0])
        link = (
            {"Link": f"</v2/{name}/referrers/{subject}?n={at + 1}>; rel=next"} if at + 1 < len(found) else {}
        )
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": found[at : at + 1]}
        return 200, {"Content-Type": INDEX, **link}, json.dumps(index).encode()

    def _give(self, status: int, body: bytes, headers: Mapping[str, str], fault: Fault | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.close_connection = True
        self.send_header("Connection", "close")
        if fault is not None and fault.change is not None:
            body = fault.change(body)
        if fault is None or not fault.endless:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        end = len(body) if fault is None or fault.after is None else fault.after
        with contextlib.suppress(OSError):
            for start in range(0, end, _CHUNK):
                self.wfile.write(body[start : min(end, start + _CHUNK)])
            went = 0
            while fault is not None and fault.endless and went < _ENDLESS and not self.known.ending.is_set():
                went += self.wfile.write(bytes(_CHUNK))

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def memory_registry() -> Iterator[MemoryRegistry]:
    """Serve until the `with` block ends."""
    known = MemoryRegistry()
    with serving(type("Handler", (_Handler,), {"known": known})) as url:
        known.host = urlsplit(url).netloc
        try:
            yield known
        finally:
            known.ending.set()


def client_of(
    memory: MemoryRegistry, name: str, environment: Mapping[str, str] | None = None, *, push: bool = True
) -> Registry:
    """Give bertir's client of it, with no login unless the environment has one, and with little patience."""
    return Registry(
        Reference(host=memory.host, repository=name),
        environment or {"HOME": "/nonexistent"},
        SILENT,
        push=push,
        patience=HASTY,
        sending=HASTY,
    )

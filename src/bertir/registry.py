"""One repository of a registry, by the OCI distribution's API: blobs and manifests.

A registry is believed in nothing: what it gives is compared with a digest by who asked, and no answer is read without a
limit. What a server may do to a connection is `web.py`'s affair.
"""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit

from bertir import oci
from bertir.digest import Digest
from bertir.download import TROUBLE, Source, pause_before, retry_after
from bertir.errors import DigestMismatchError
from bertir.login import Logins, RegistryError, login_advice, read_at_most
from bertir.redact import line, without_logins
from bertir.web import BrokenOffError, Patience, Sent, asked, origin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from bertir.oci import Descriptor
    from bertir.progress import Progress
    from bertir.reference import Reference
    from bertir.web import Response

_Given = TypeVar("_Given")
_OK, _CREATED, _ACCEPTED, _UNAUTHORISED, _FORBIDDEN, _NOT_FOUND = 200, 201, 202, 401, 403, 404
_MANIFESTS = f"{oci.MANIFEST}, {oci.DOCKER_MANIFEST}, {oci.INDEX}, {oci.DOCKER_LIST}"
_MOST_ERROR_BYTES = 1 << 16
_ADVICE = "See whether this machine reaches that registry, then run it again. What was sent or stored isn't sent again."
# A registry hashes, and may copy, what it was sent before it answers; nothing comes meanwhile.
SENDING = Patience(silence=600, window=900)


@dataclass(frozen=True, kw_only=True)
class Outgoing:
    """A blob to send.

    Args:
        chunks: gives its bytes from the beginning; called again if a connection breaks.
        what: for messages.
    """

    digest: Digest
    size: int
    chunks: Callable[[], Iterator[bytes]]
    what: str


@dataclass(frozen=True, kw_only=True)
class Document:
    """A small answer, and where the rest of it is, if there is more."""

    data: bytes
    following: str = ""


class Registry:
    """What is asked of one repository, and sent to it.

    Args:
        reference: which; its tag and digest are not looked at.
        push: whether something is to be sent: a token is for what it was asked for.
        plain_http: http will do, wherever the registry is.
    """

    def __init__(
        self,
        reference: Reference,
        environment: Mapping[str, str],
        progress: Progress,
        *,
        push: bool,
        plain_http: bool = False,
        patience: Patience | None = None,
        sending: Patience = SENDING,
    ) -> None:
        self.reference = reference
        self.progress = progress
        self.patience = patience or Patience()
        self._sending = sending
        plain = plain_http or reference.is_loopback
        self._base = f"{'http' if plain else 'https'}://{reference.host}/v2/{reference.repository}"
        self._scope = f"repository:{reference.repository}:{'pull,push' if push else 'pull'}"
        self._logins = Logins(reference, environment, plain_http=plain_http, patience=self.patience)
        self._login = ""

    # blobs

    def has_blob(self, digest: Digest, what: str) -> bool:
        def look() -> bool:
            with self._answer("HEAD", self._blob(digest), what) as (response, _):
                if response.status_code == _NOT_FOUND:
                    return False
                self._require(response, [], what, _OK)
                return True

        return self._patiently(look, what)

    def send_blob(self, blob: Outgoing) -> bool:
        """Send a blob, unless it is there. Give whether it was sent.

        Raises:
            RegistryError: it was refused, or can't be sent.
        """
        if self.has_blob(blob.digest, blob.what):
            self.progress.say("push", f"{blob.what}: the registry has it")
            return False
        self._patiently(lambda: self._send(blob), blob.what)
        self.progress.say("push", f"{blob.what}: sent, {blob.size / 1e6:.1f} MB")
        return True

    def _send(self, blob: Outgoing) -> None:
        """Send it in one piece: what is begun and not ended is thrown away by the registry."""
        with self._answer("POST", f"{self._base}/blobs/uploads/", blob.what) as (response, chunks):
            self._require(response, chunks, blob.what, _ACCEPTED)
            place = self._place(response, blob)
        counted = self.progress.counted("push", blob.what, blob.chunks(), blob.size)
        headers = {"Content-Type": "application/octet-stream"}
        with self._answer(
            "PUT", place, blob.what, headers=headers, body=Sent(counted, blob.size), patience=self._sending
        ) as (response, chunks):
            self._require(response, chunks, blob.what, _CREATED)

    def _place(self, response: Response, blob: Outgoing) -> str:
        """Give where a blob is to be sent: by https, unless the registry itself is spoken to by http."""
        place = urljoin(str(response.url), response.headers.get("Location", ""))
        parts = urlsplit(place)
        if parts.scheme not in ("https", urlsplit(self._base).scheme) or not parts.netloc:
            raise RegistryError(
                f"{blob.what}: {self.reference.host} wants it at an odd place; it was not sent there",
                advice="Ask who runs the registry.",
            )
        query = urlencode([*parse_qsl(parts.query, keep_blank_values=True), ("digest", str(blob.digest))])
        return parts._replace(query=query).geturl()

    def source(self, blob: Descriptor, what: str) -> Source:
        """Give where to download a blob from, with the login that this takes; its digest is the caller's to compare."""

        def login() -> str:
            self.has_blob(blob.digest, what)  # which asks for one; what isn't there is told by the download
            return self._login

        return Source(
            url=self._blob(blob.digest),
            key=blob.digest,
            most=blob.size,
            what=what,
            login=login,
            patience=self.patience,
            advice="The registry lists it and doesn't give it: ask who runs it.",
        )

    def _blob(self, digest: Digest) -> str:
        return f"{self._base}/blobs/{digest}"

    # manifests

    def manifest(self, wanted: str, digest: Digest | None = None, *, most: int = oci.MOST_BYTES) -> bytes:
        """Give the bytes of a manifest or an index, by its tag or digest; compared with the digest, if one is given.

        Raises:
            RegistryError: there is none, or it can't be had. DigestMismatchError: it is another one.
        """
        data = self.find_manifest(wanted, most=most)
        what = self.named(wanted)
        if data is None:
            raise RegistryError(
                f"{what}: the registry has no such thing",
                advice=f"See whether it is written right, and was pushed; or that you may see it: docker login {self.reference.host}",
            )
        _require_digest(data, digest, what)
        return data

    def find_manifest(self, wanted: str, *, most: int = oci.MOST_BYTES) -> bytes | None:
        """Give the same; None if there is none."""
        found = self.document(f"manifests/{wanted}", _MANIFESTS, self.named(wanted), most=most)
        return found.data if found is not None else None

    def document(self, place: str, accept: str, what: str, *, most: int = oci.MOST_BYTES) -> Document | None:
        """Give what the repository has at a place; None if it has nothing there."""
        url = urljoin(f"{self._base}/", place)

        def get() -> Document | None:
            with self._answer("GET", url, what, headers={"Accept": accept}) as (response, chunks):
                if response.status_code == _NOT_FOUND:
                    return None
                self._require(response, chunks, what, _OK)
                link = response.links.get("next", {}).get("url", "")
                following = urljoin(url, link) if link else ""
                if origin(following) != origin(self._base):
                    following = ""
                return Document(data=read_at_most(chunks, most, what), following=following)

        return self._patiently(get, what)

    def put_manifest(self, data: bytes, media_type: str, wanted: str) -> bool:
        """Store a manifest. Give whether the registry keeps account of its subject by itself (`OCI-Subject`)."""
        what = self.named(wanted)

        def put() -> bool:
            url, headers = f"{self._base}/manifests/{wanted}", {"Content-Type": media_type}
            with self._answer("PUT", url, what, headers=headers, body=data) as (response, chunks):
                self._require(response, chunks, what, _CREATED)
                return "OCI-Subject" in response.headers

        return self._patiently(put, what)

    # requests

    @contextlib.contextmanager
    def _answer(
        self,
        method: str,
        url: str,
        what: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | Sent | None = None,
        patience: Patience | None = None,
    ) -> Iterator[tuple[Response, Iterator[bytes]]]:
        """Ask, with the login that the registry wants; it is for the registry's own host, and no other's."""
        ours = origin(url) == origin(self._base)
        for again in (False, True):
            with asked(
                url,
                {"Accept-Encoding": "identity"} | dict(headers or {}),
                patience or self.patience,
                what=what,
                method=method,
                body=body,
                login=self._login if ours else "",
            ) as (response, chunks):
                challenge = response.headers.get("WWW-Authenticate", "")
                # Not of a host that a redirect led to: nobody logs in there.
                theirs = not ours or origin(str(response.url)) != origin(self._base)
                if response.status_code == _UNAUTHORISED and challenge and not theirs:
                    login = self._logins.answer(challenge, self._scope)
                    if login and login != self._login:
                        self._login = login
                        if isinstance(body, Sent):  # some of it went
                            raise BrokenOffError("the registry wants a new login", pause=0)
                        if not again:
                            continue
                yield response, chunks
                return

    def _patiently(self, work: Callable[[], _Given], what: str) -> _Given:
        """Do it again where it failed in a way that may pass."""
        failures = 0
        while True:
            try:
                return work()
            except BrokenOffError as error:
                failures += 1
                patience = self.patience
                if failures >= patience.attempts or (error.pause or 0) > patience.longest_pause:
                    raise RegistryError(
                        f"{what}: {error} (asked {failures} times)\n  {self.reference.name}", advice=_ADVICE
                    ) from error
                pause = pause_before(error, failures, patience)
                self.progress.say("registry", f"{what}: {error}; asking again in {pause:.0f} s")
                time.sleep(pause)

    def _require(self, response: Response, chunks: Iterable[bytes], what: str, *expected: int) -> None:
        status = response.status_code
        if status in expected:
            return
        if status in TROUBLE:
            raise BrokenOffError(
                f"the registry answered {status}", pause=retry_after(response.headers.get("Retry-After", ""))
            )
        host = self.reference.host
        if status in (_UNAUTHORISED, _FORBIDDEN):
            raise RegistryError(
                f"{what}: {host} doesn't allow it (status {status})", advice=login_advice(host)
            )
        said = self._logins.without_secrets(_said(chunks))
        raise RegistryError(
            f"{what}: {host} answered {status}{f': {said}' if said else ''}",
            advice="See whether it is written right, and whether that registry takes such things.",
        )

    def named(self, wanted: str) -> str:
        """Give what a tag or a digest here is called in a message."""
        return f"{self.reference.name}{'@' if wanted.startswith('sha256:') else ':'}{wanted}"


def _require_digest(data: bytes, digest: Digest | None, what: str) -> None:
    found = Digest.of_bytes(data)
    if digest is not None and found != digest:
        raise DigestMismatchError(
            f"{what}: the registry gave another one\n  expected {digest}\n  found    {found}",
            advice="Nothing of it was taken: ask who runs the registry.",
        )


def _said(chunks: Iterable[bytes]) -> str:
    """Give what a registry says went wrong, as far as it can be told on a line."""
    data = bytearray()
    with contextlib.suppress(BrokenOffError):
        for chunk in chunks:
            data += chunk
            if len(data) > _MOST_ERROR_BYTES:
                return ""
    try:
        message = json.loads(data)["errors"][0]["message"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return ""
    return line(without_logins(str(message)))[:300]

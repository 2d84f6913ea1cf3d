"""What is asked of a registry and sent to it: a real one on loopback, in memory, and hostile ones."""

from __future__ import annotations

import base64
import json
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from oci_registry import HASTY, Fault, MemoryRegistry, client_of, digest_of, memory_registry

from bertir import oci
from bertir.digest import Digest
from bertir.download import download
from bertir.errors import BertirError, ConfigurationError, DigestMismatchError, FetchError
from bertir.login import Logins, RegistryError
from bertir.oci import Descriptor
from bertir.progress import SILENT
from bertir.redact import PASSPHRASE
from bertir.reference import Reference
from bertir.referrers import attach, attached, fallback_tag
from bertir.registry import Outgoing, Registry
from bertir.web import Patience

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from bertir.oci import Manifest
    from bertir.store import Store

DATA = b"some bytes " * 20_000
KIND = "application/vnd.example+json"
LOGIN = "user:pass-word"


@pytest.fixture
def memory() -> Iterator[MemoryRegistry]:
    with memory_registry() as known:
        yield known


@pytest.fixture
def elsewhere() -> Iterator[MemoryRegistry]:
    with memory_registry() as known:
        yield known


@pytest.fixture
def logged_in(tmp_path: Path) -> Callable[..., dict[str, str]]:
    """Give the environment of somebody who logged in at a host."""

    def write(host: str, login: str = LOGIN) -> dict[str, str]:
        auth = {"auth": base64.b64encode(login.encode()).decode()}
        (tmp_path / "config.json").write_text(json.dumps({"auths": {host: auth}}), encoding="utf-8")
        return {"DOCKER_CONFIG": str(tmp_path)}

    return write


def registry(
    memory: MemoryRegistry, environment: Mapping[str, str] | None = None, *, push: bool = True
) -> Registry:
    return client_of(memory, "some/name", environment, push=push)


def blob(data: bytes = DATA) -> Outgoing:
    return Outgoing(digest=Digest.of_bytes(data), size=len(data), chunks=lambda: iter([data]), what="a blob")


def push_artifact(to: Registry, subject: Descriptor | None = None, data: bytes = DATA) -> Manifest:
    """Push a manifest of one file."""
    layer = Descriptor(media_type="text/plain", digest=Digest.of_bytes(data), size=len(data), title="x")
    for outgoing in (blob(data), blob(oci.EMPTY)):
        to.send_blob(outgoing)
    manifest = oci.artifact(KIND, [layer], subject=subject)
    if subject is None:
        to.put_manifest(manifest.data, oci.MANIFEST, "tag")
    else:
        attach(to, manifest, subject)
    return manifest


def taken(store: Store, of: Registry, digest: Digest, size: int) -> bytes:
    layer = Descriptor(media_type="text/plain", digest=digest, size=size)

    def use(path: Path) -> bytes:
        store.add_file(path, expected=digest)
        return path.read_bytes()

    return download(store, of.source(layer, "a blob"), SILENT, use)


# what is sent


def test_a_blob_is_sent_once_and_comes_back(memory: MemoryRegistry, store: Store) -> None:
    to = registry(memory)
    assert to.send_blob(blob()) is True
    assert to.send_blob(blob()) is False
    [put] = memory.sent("PUT")
    assert put.size == len(DATA)
    assert memory.blobs == {digest_of(DATA): DATA}
    assert taken(store, to, Digest.of_bytes(DATA), len(DATA)) == DATA


def test_a_manifest_is_stored_as_it_is_and_comes_back(memory: MemoryRegistry) -> None:
    manifest = push_artifact(registry(memory))
    assert memory.manifests["some/name:tag"] == (oci.MANIFEST, manifest.data)
    of = registry(memory, push=False)
    assert of.manifest("tag") == of.manifest(str(manifest.digest), manifest.digest) == manifest.data
    assert oci.read_manifest(manifest.data, "it") == manifest


@pytest.mark.parametrize("fault", [{"status": 503}, {"status": 429, "headers": {"Retry-After": "0"}}])
def test_a_blob_is_sent_again_from_its_beginning_when_it_was_broken_off(
    memory: MemoryRegistry, fault: dict[str, object]
) -> None:
    memory.faults.append(Fault(method="PUT", path="uploads", **fault))  # type: ignore[arg-type]
    assert registry(memory).send_blob(blob())
    assert memory.blobs[digest_of(DATA)] == DATA
    assert len(memory.sent("POST")) == 2


def test_a_registry_that_goes_on_failing_is_one_error(memory: MemoryRegistry) -> None:
    memory.faults.append(Fault(method="PUT", path="uploads", status=500, stays=True))
    with pytest.raises(RegistryError, match=r"a blob: the registry answered 500 \(asked 3 times\)"):
        registry(memory).send_blob(blob())


def test_what_a_registry_says_against_it_is_told_on_one_line(memory: MemoryRegistry) -> None:
    body = json.dumps({"errors": [{"message": "too\n\x1b[2Jlarge"}]}).encode()
    memory.faults.append(Fault(method="PUT", path="uploads", status=413, body=body))
    with pytest.raises(RegistryError) as told:
        registry(memory).send_blob(blob())
    assert str(told.value) == rf"a blob: {memory.host} answered 413: too\n\x1b[2Jlarge"


def test_a_place_for_a_blob_that_is_not_http_is_not_gone_to(memory: MemoryRegistry) -> None:
    memory.faults.append(
        Fault(method="POST", path="uploads", status=202, headers={"Location": "ftp://example.org/x"})
    )
    with pytest.raises(RegistryError, match="odd place"):
        registry(memory).send_blob(blob())


# what comes


def test_nothing_there_says_so(memory: MemoryRegistry) -> None:
    with pytest.raises(RegistryError, match="some/name:none: the registry has no such thing") as told:
        registry(memory).manifest("none")
    assert f"docker login {memory.host}" in told.value.advice
    assert told.value.exit_status == 4


def test_another_manifest_than_the_digest_says_is_refused(memory: MemoryRegistry) -> None:
    manifest = push_artifact(registry(memory))
    memory.faults.append(Fault(method="GET", path="manifests", change=lambda body: body + b" "))
    with pytest.raises(DigestMismatchError, match=f"expected {manifest.digest}"):
        registry(memory).manifest(str(manifest.digest), manifest.digest)


@pytest.mark.parametrize("endless", [True, False])
def test_a_manifest_that_is_too_long_is_not_read_to_its_end(memory: MemoryRegistry, endless: bool) -> None:
    push_artifact(registry(memory))
    memory.faults.append(
        Fault(method="GET", path="manifests", endless=endless, change=lambda _: bytes(oci.MOST_BYTES + 1))
    )
    with pytest.raises(RegistryError, match="no such answer is that long"):
        registry(memory).manifest("tag")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"[" * 100_000,
        b'{"layers": []}',
        b'{"layers": {}, "config": {}}',
        b'{"config": {"mediaType": "x", "digest": "sha512:aa", "size": 1}, "layers": []}',
        b'{"config": {"mediaType": "x", "digest": "sha256:%b", "size": -1}, "layers": []}' % (b"a" * 64),
        b'{"config": {"mediaType": "x", "digest": "sha256:%b", "size": 1e3}, "layers": []}' % (b"a" * 64),
        b'{"config": {"mediaType": "x", "digest": "sha256:%b", "size": true}, "layers": []}' % (b"a" * 64),
        b'{"mediaType": ["x"], "layers": []}',
        b'{"mediaType": "text/html", "layers": []}',
    ],
)
def test_what_is_no_manifest_is_one_error(data: bytes) -> None:
    with pytest.raises(FetchError, match=r"^it"):
        oci.read_manifest(data, "it")


def test_a_list_of_images_asks_for_one_of_them() -> None:
    with pytest.raises(FetchError, match="it is a list of images"):
        oci.read_manifest(oci.index_of([]), "it")


def test_wrong_bytes_are_not_kept(memory: MemoryRegistry, store: Store) -> None:
    memory.blobs[digest_of(DATA)] = DATA[:-1] + b"X"
    with pytest.raises(DigestMismatchError):
        taken(store, registry(memory), Digest.of_bytes(DATA), len(DATA))
    assert store.find(Digest.of_bytes(DATA)) is None
    assert list((store.root / "downloads").iterdir()) == []


def test_a_blob_without_an_end_is_given_up_when_it_is_longer_than_it_may_be(
    memory: MemoryRegistry, store: Store
) -> None:
    memory.blobs[digest_of(DATA)] = DATA
    memory.faults.append(Fault(method="GET", path="blobs", endless=True))
    with pytest.raises(DigestMismatchError, match=f"more than the {len(DATA)} bytes"):
        taken(store, registry(memory), Digest.of_bytes(DATA), len(DATA))
    assert list((store.root / "downloads").iterdir()) == []


def test_a_blob_that_breaks_off_is_gone_on_with(memory: MemoryRegistry, store: Store) -> None:
    memory.blobs[digest_of(DATA)] = DATA
    memory.faults.append(Fault(method="GET", path="blobs", after=70_000))
    assert taken(store, registry(memory), Digest.of_bytes(DATA), len(DATA)) == DATA
    assert [asked.range for asked in memory.sent("GET", "blobs")] == ["", "bytes=70000-"]


# logins


@pytest.mark.parametrize("tokens", [False, True])
def test_a_login_of_docker_is_used(
    memory: MemoryRegistry, store: Store, logged_in: Callable[..., dict[str, str]], tokens: bool
) -> None:
    memory.login, memory.tokens = LOGIN, tokens
    to = registry(memory, logged_in(memory.host))
    manifest = push_artifact(to)
    assert to.manifest("tag") == manifest.data
    assert taken(store, to, Digest.of_bytes(DATA), len(DATA)) == DATA
    given = "Bearer " if tokens else "Basic "
    assert {asked.authorization[:6] for asked in memory.sent("PUT")} == {given[:6]}


def test_a_token_that_is_no_longer_taken_is_replaced_and_the_blob_sent_again(
    memory: MemoryRegistry, logged_in: Callable[..., dict[str, str]]
) -> None:
    memory.login, memory.tokens = LOGIN, True
    to = registry(memory, logged_in(memory.host))
    challenge = {"WWW-Authenticate": f'Bearer realm="http://{memory.host}/token",error="invalid_token"'}
    memory.faults.append(Fault(method="PUT", path="uploads", status=401, headers=challenge))
    assert to.send_blob(blob())
    assert memory.blobs[digest_of(DATA)] == DATA
    first, second = memory.sent("PUT")
    assert first.authorization != second.authorization
    assert first.size == second.size == len(DATA)


def test_a_download_that_breaks_off_after_its_token_was_over_goes_on_with_another(
    memory: MemoryRegistry, store: Store, logged_in: Callable[..., dict[str, str]]
) -> None:
    memory.login, memory.tokens = LOGIN, True
    memory.blobs[digest_of(DATA)] = DATA

    def over(body: bytes) -> bytes:
        memory.given.clear()
        return body

    memory.faults.append(Fault(method="GET", path="blobs/", after=70_000, change=over))
    of = registry(memory, logged_in(memory.host), push=False)
    assert taken(store, of, Digest.of_bytes(DATA), len(DATA)) == DATA
    assert [asked.range for asked in memory.sent("GET", "blobs")] == ["", "bytes=70000-"]


@pytest.mark.parametrize("tokens", [False, True])
@pytest.mark.parametrize("login", ["", "user:wrong"])
def test_without_the_right_login_it_says_how_to_log_in_and_no_password(
    memory: MemoryRegistry, logged_in: Callable[..., dict[str, str]], tokens: bool, login: str
) -> None:
    memory.login, memory.tokens = LOGIN, tokens
    environment = logged_in(memory.host, login) if login else None
    with pytest.raises(RegistryError) as told:
        registry(memory, environment).manifest("tag")
    assert told.value.exit_status == 4
    assert told.value.advice.startswith(f"Run: docker login {memory.host}")
    assert "wrong" not in str(told.value)
    assert len(memory.asked) <= 3  # and doesn't ask on and on


def test_a_helper_of_docker_is_asked_and_sees_no_passphrase_of_a_key(
    memory: MemoryRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory.login = LOGIN
    helper = tmp_path / "docker-credential-mine"
    said = json.dumps({"Username": "user", "Secret": "pass-word"})
    helper.write_text(f"#!/bin/sh\ncat >/dev/null\nenv >{tmp_path}/seen\necho '{said}'\n")
    helper.chmod(0o755)
    (tmp_path / "config.json").write_text(json.dumps({"credHelpers": {memory.host: "mine"}}))
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    environment = {"DOCKER_CONFIG": str(tmp_path), "OURS": "1", PASSPHRASE: "of a key"}
    assert registry(memory, environment).send_blob(blob())
    seen = (tmp_path / "seen").read_text()
    assert "OURS=1" in seen
    assert "of a key" not in seen


def test_a_token_is_given_for_an_identity_token(memory: MemoryRegistry, tmp_path: Path) -> None:
    memory.login, memory.tokens, memory.identity = LOGIN, True, "identity-token"
    auths = {memory.host: {"identitytoken": "identity-token"}}
    (tmp_path / "config.json").write_text(json.dumps({"auths": auths}))
    assert registry(memory, {"DOCKER_CONFIG": str(tmp_path)}).send_blob(blob())
    [asked] = memory.sent("POST", "/token")
    assert (asked.authorization, asked.query) == ("", "")


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '{"auths": {"HOST": {"auth": "***"}}}',
        '{"auths": {"HOST": {"auth": "c2VjcmV0"}}}',
        '{"auths": {"HOST": "secret"}}',
        '{"credHelpers": {"HOST": "that-is-not-there"}}',
        '{"credsStore": "that-is-not-there"}',
    ],
)
def test_a_login_that_can_not_be_read_is_one_error_without_it(
    memory: MemoryRegistry, tmp_path: Path, content: str
) -> None:
    memory.login = LOGIN
    (tmp_path / "config.json").write_text(content.replace("HOST", memory.host))
    with pytest.raises(BertirError) as told:
        registry(memory, {"DOCKER_CONFIG": str(tmp_path)}).manifest("tag")
    assert isinstance(told.value, ConfigurationError)
    assert "secret" not in str(told.value)
    assert told.value.advice == f"Run: docker login {memory.host}"


def test_a_login_is_not_sent_to_where_a_redirect_leads(
    memory: MemoryRegistry,
    elsewhere: MemoryRegistry,
    store: Store,
    logged_in: Callable[..., dict[str, str]],
) -> None:
    memory.login = LOGIN
    to = registry(memory, logged_in(memory.host))
    to.send_blob(blob())
    elsewhere.blobs[digest_of(DATA)] = DATA
    there = {"Location": f"http://{elsewhere.host}/v2/x/blobs/{digest_of(DATA)}?signature=s3cr3t"}
    for method in ("HEAD", "GET"):
        memory.faults.append(Fault(method=method, path="blobs/sha256", status=307, headers=there))
    assert taken(store, to, Digest.of_bytes(DATA), len(DATA)) == DATA
    assert {asked.authorization for asked in elsewhere.asked} == {""}
    assert {asked.method for asked in elsewhere.asked} == {"HEAD", "GET"}


def test_a_host_that_a_redirect_leads_to_gets_no_login_by_asking_for_one(
    memory: MemoryRegistry, elsewhere: MemoryRegistry, logged_in: Callable[..., dict[str, str]]
) -> None:
    elsewhere.login, elsewhere.tokens = LOGIN, True
    there = {"Location": f"http://{elsewhere.host}/v2/x/manifests/tag"}
    memory.faults.append(Fault(method="GET", path="manifests", status=307, headers=there, stays=True))
    with pytest.raises(RegistryError, match="status 401"):
        registry(memory, logged_in(memory.host)).manifest("tag")
    assert {asked.authorization for asked in elsewhere.asked} == {""}
    assert elsewhere.sent("GET", "/token") == []


def test_a_blob_that_is_wanted_elsewhere_goes_there_without_the_login(
    memory: MemoryRegistry, elsewhere: MemoryRegistry, logged_in: Callable[..., dict[str, str]]
) -> None:
    memory.login = LOGIN
    elsewhere.uploads["abc"] = "some/name"
    place = f"http://{elsewhere.host}/v2/some/name/blobs/uploads/abc?_state=x"
    to = registry(memory, logged_in(memory.host))
    to.has_blob(Digest.of_bytes(DATA), "it")  # which learns that a login is wanted
    memory.faults.append(Fault(method="POST", path="uploads", status=202, headers={"Location": place}))
    to.send_blob(blob())
    assert elsewhere.blobs == {digest_of(DATA): DATA}
    assert [asked.authorization for asked in elsewhere.asked] == [""]


def test_a_login_is_sent_to_no_place_for_tokens_by_http_but_on_this_machine(
    memory: MemoryRegistry, logged_in: Callable[..., dict[str, str]]
) -> None:
    far = Reference(host="registry.example.org", repository="x")
    logins = Logins(far, logged_in(far.host), plain_http=False, patience=HASTY)
    with pytest.raises(RegistryError, match="isn't reached by https; nothing was sent there"):
        logins.answer(f'Bearer realm="http://{memory.host}/token"', "repository:x:pull")
    assert memory.asked == []


def test_what_a_registry_says_is_told_without_the_login_that_it_repeats(
    memory: MemoryRegistry, logged_in: Callable[..., dict[str, str]]
) -> None:
    memory.login = LOGIN
    to = registry(memory, logged_in(memory.host))
    to.send_blob(blob(oci.EMPTY))
    basic = base64.b64encode(LOGIN.encode()).decode()
    body = json.dumps({"errors": [{"message": f"no {basic} or pass-word"}]}).encode()
    memory.faults.append(Fault(method="GET", path="manifests", status=400, body=body))
    with pytest.raises(RegistryError, match="answered 400: no … or …"):
        to.manifest("tag")


def test_a_login_of_netrc_does_not_take_the_place_of_the_right_one(
    memory: MemoryRegistry,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    logged_in: Callable[..., dict[str, str]],
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login other password other\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    memory.login = LOGIN
    registry(memory, logged_in(memory.host)).send_blob(blob())
    assert memory.asked[0].authorization == ""
    assert memory.blobs


@pytest.mark.parametrize("plain_http", [False, True])
def test_http_is_spoken_with_another_host_only_if_it_was_asked_for(
    memory: MemoryRegistry, monkeypatch: pytest.MonkeyPatch, plain_http: bool
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.1")
    # This machine, written in a way that isn't taken for it.
    host = memory.host.replace("127.0.0.1", "127.1")
    other = Registry(
        Reference(host=host, repository="some/name"),
        {"HOME": "/nonexistent"},
        SILENT,
        push=False,
        plain_http=plain_http,
        patience=HASTY,
    )
    with pytest.raises(RegistryError, match="no such thing" if plain_http else "asked 3 times"):
        other.manifest("tag")
    assert bool(memory.asked) is plain_http


# what is attached


@pytest.mark.parametrize("api", [True, False])
def test_what_two_attach_is_found_both(memory: MemoryRegistry, api: bool) -> None:
    memory.referrers_api = api
    to = registry(memory)
    subject = push_artifact(to).descriptor
    pushed = {push_artifact(to, subject, data).digest for data in (b"one", b"two", b"one")}
    assert len(pushed) == 2
    assert {item.digest for item in attached(to, subject.digest, KIND)} == pushed
    assert attached(to, subject.digest, "another/kind") == ()
    assert attached(to, Digest.of_bytes(b"nothing"), KIND) == ()
    tag = f"some/name:{fallback_tag(subject.digest)}"
    assert (tag in memory.manifests) is not api


def test_the_list_of_a_registry_without_the_api_is_as_the_specification_has_it(
    memory: MemoryRegistry,
) -> None:
    to = registry(memory)
    subject = push_artifact(to).descriptor
    about = push_artifact(to, subject, b"about")
    assert memory.manifest("some/name", f"sha256-{subject.digest.hex}") == {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [
            {
                "mediaType": oci.MANIFEST,
                "digest": str(about.digest),
                "size": len(about.data),
                "artifactType": KIND,
            }
        ],
    }
    expected = {"mediaType": oci.MANIFEST, "digest": str(subject.digest), "size": subject.size}
    assert json.loads(about.data)["subject"] == expected


def test_what_somebody_else_attaches_at_the_same_time_is_kept(memory: MemoryRegistry) -> None:
    to = registry(memory)
    subject = push_artifact(to).descriptor
    tag = fallback_tag(subject.digest)
    theirs = {
        "mediaType": oci.MANIFEST,
        "digest": f"sha256:{'e' * 64}",
        "size": 5,
        "x": [1],
        "artifactType": KIND,
    }
    times: list[str] = []

    def before(what: str) -> None:
        if (
            what == tag and not times
        ):  # between our look and our writing, they wrote; and then once more over ours
            times.append(what)
            memory.faults.append(Fault(method="GET", path=tag, change=lambda _: oci.index_of([theirs])))

    memory.before_put = before
    about = push_artifact(to, subject, b"about")
    entries = memory.manifest("some/name", tag)["manifests"]
    assert theirs in entries
    assert str(about.digest) in {entry["digest"] for entry in entries}


def test_a_list_that_never_keeps_what_is_written_is_one_error(memory: MemoryRegistry) -> None:
    to = registry(memory)
    subject = push_artifact(to).descriptor
    tag = fallback_tag(subject.digest)
    memory.hold("some/name", tag, oci.INDEX, oci.index_of([]))
    memory.faults.append(Fault(method="GET", path=tag, change=lambda _: oci.index_of([]), stays=True))
    with pytest.raises(RegistryError, match="others write this list"):
        push_artifact(to, subject, b"about")


def test_where_a_redirect_leads_is_told_without_its_signature(memory: MemoryRegistry) -> None:
    there = {"Location": "http://127.0.0.1:9/x?signature=s3cr3t"}
    memory.faults.append(Fault(method="GET", path="manifests", status=307, headers=there, stays=True))
    there_by_ftp = {"Location": "ftp://127.0.0.1:9/x?signature=s3cr3t"}
    memory.faults.append(Fault(method="HEAD", path="blobs", status=307, headers=there_by_ftp, stays=True))
    for ask in (lambda: registry(memory).manifest("tag"), lambda: registry(memory).send_blob(blob())):
        with pytest.raises(FetchError) as told:
            ask()
        assert "s3cr3t" not in f"{told.value} {told.value.advice}"
        assert told.value.exit_status == 4


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_what_is_sent_follows_no_redirect(
    memory: MemoryRegistry, elsewhere: MemoryRegistry, method: str
) -> None:
    there = {"Location": f"http://{elsewhere.host}/v2/some/name/blobs/uploads/x"}
    memory.faults.append(Fault(method=method, path="uploads", status=307, headers=there))
    with pytest.raises(RegistryError, match="answered 307"):
        registry(memory).send_blob(blob())
    assert elsewhere.asked == []


def test_a_blob_that_goes_slowly_is_not_taken_for_a_server_that_says_nothing(memory: MemoryRegistry) -> None:
    slowly = Patience(attempts=1, silence=5, window=0.4, slowest=1000)

    def chunks() -> Iterator[bytes]:
        for start in range(0, len(DATA), len(DATA) // 8):
            time.sleep(0.15)
            yield DATA[start : start + len(DATA) // 8]

    to = registry(memory)
    to._sending = slowly
    assert to.send_blob(replace(blob(), chunks=chunks))
    assert memory.blobs[digest_of(DATA)] == DATA


def test_a_list_that_goes_on_at_another_host_is_not_followed_there(
    memory: MemoryRegistry, elsewhere: MemoryRegistry
) -> None:
    memory.referrers_api = True
    to = registry(memory)
    subject = push_artifact(to).descriptor
    about = push_artifact(to, subject, b"about")
    place = f"/v2/some/name/referrers/{subject.digest}"
    headers = {"Link": f"<http://{elsewhere.host}{place}>; rel=next"}
    body = oci.index_of([about.descriptor.to_json()])
    memory.faults.append(Fault(method="GET", path="referrers", status=200, headers=headers, body=body))
    assert [item.digest for item in attached(to, subject.digest, KIND)] == [about.digest]
    assert elsewhere.asked == []


@pytest.mark.parametrize("again", [True, False])
def test_a_list_that_has_no_end_is_not_read_to_it(memory: MemoryRegistry, again: bool) -> None:
    subject = Digest.of_bytes(b"subject")
    link = f"</v2/some/name/referrers/{subject}?n=1>; rel=next" if again else ""
    memory.faults.append(
        Fault(
            method="GET",
            path="referrers",
            status=200,
            headers={"Link": link},
            body=oci.index_of([]),
            stays=True,
        )
    )
    assert attached(registry(memory), subject, KIND) == ()
    assert len(memory.asked) == (16 if again else 1)

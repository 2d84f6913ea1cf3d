"""Servers of a company, whose certificates only its own authority vouches for: what each program takes it from."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from file_server import FileServer, serve_files
from git_server import make_authority, serve_git

from bertir.authority import FOR_DOWNLOADS, FOR_GIT
from bertir.digest import Digest
from bertir.errors import BertirError, FetchError
from bertir.fetch import Fetcher
from bertir.intent import PythonIntent
from bertir.lock import WheelPin
from bertir.progress import SILENT
from bertir.source import UnreachableError, clone
from bertir.web import Patience, asked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from bertir.store import Store
    from bertir.web import Response
    from tests.unit.conftest import Repository

    MakeWheel = Callable[[Path, str, str, Mapping[str, bytes]], Path]
    MakeRepository = Callable[[Mapping[str, bytes]], Repository]

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl")

TRUST = (
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "PIP_CERT",
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
)
PYTHON = PythonIntent(version="3.11", glibc="2.36", machine="x86_64", requirements=())
DATA = b"a model"


def ask(server: FileServer) -> AbstractContextManager[tuple[Response, Iterator[bytes]]]:
    return asked(f"{server.url}/a.zip", {}, Patience(attempts=1), what="a.zip")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[Path, Path]]:
    return make_authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def company(
    authority: tuple[Path, tuple[Path, Path]], monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[str, FileServer]]:
    """The file of its authority, and a server of its own."""
    for name in TRUST:
        monkeypatch.delenv(name, raising=False)
    certificates, certificate = authority
    with serve_files(certificate) as server:
        server.lenient = True
        yield str(certificates), server


def test_downloads_go_by_requests_variable(
    company: tuple[str, FileServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    certificates, server = company
    server.files["/a.zip"] = DATA
    with pytest.raises(FetchError, match="certificate verify failed") as caught, ask(server):
        pass
    assert caught.value.advice == FOR_DOWNLOADS
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", certificates)
    with ask(server) as (_, body):
        assert b"".join(body) == DATA


def test_so_does_pip(
    company: tuple[str, FileServer],
    store: Store,
    tmp_path: Path,
    make_wheel: MakeWheel,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    certificates, server = company
    wheel = make_wheel(tmp_path / "wheels", "tiny", "1.0", {"tiny/x": DATA})
    server.files["/simple/tiny/"] = f'<a href="/{wheel.name}">{wheel.name}</a>'.encode()
    server.files[f"/{wheel.name}"] = wheel.read_bytes()
    for name, value in {
        "CONFIG_FILE": "/dev/null",
        "INDEX_URL": f"{server.url}/simple/",
        "NO_CACHE_DIR": "1",
        "RETRIES": "1",  # of what it doesn't try again it doesn't say why
    }.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    for name in ("CONSTRAINT", "EXTRA_INDEX_URL", "FIND_LINKS", "NO_INDEX", "TRUSTED_HOST"):
        monkeypatch.delenv(f"PIP_{name}", raising=False)
    pin = WheelPin(name="tiny", version="1.0", digest=Digest.of_file(wheel))
    fetcher = Fetcher(store=store, environment={}, progress=SILENT)
    with pytest.raises(FetchError, match="pip can't get the pinned wheels") as caught:
        fetcher.wheels((pin,), PYTHON)
    assert caught.value.advice == FOR_DOWNLOADS
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", certificates)
    [(_, got)] = fetcher.wheels((pin,), PYTHON)
    assert got.read_bytes() == wheel.read_bytes()


def test_git_goes_by_its_own(
    authority: tuple[Path, tuple[Path, Path]],
    make_repository: MakeRepository,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    certificates, certificate = authority
    for name in TRUST:
        monkeypatch.delenv(name, raising=False)
    repository = make_repository({"modeling.py": DATA})
    with serve_git(repository.path.parent, *certificate) as host:
        url = f"{host}/{repository.path.name}/.git"
        with pytest.raises(UnreachableError, match="certificate") as caught:
            clone(url, repository.commit, repository.blobs, tmp_path / "refused")
        assert caught.value.advice == FOR_GIT
        monkeypatch.setenv("GIT_SSL_CAINFO", str(certificates))
        found = clone(url, repository.commit, repository.blobs, tmp_path / "taken")
    assert found == {"modeling.py": DATA}


def test_a_host_that_is_not_there_is_not_taken_for_one_of_a_company(tmp_path: Path) -> None:
    with pytest.raises(BertirError) as caught:
        clone("https://127.0.0.1:9/bert", "1" * 40, {}, tmp_path / "clone")
    assert caught.value.advice == ""

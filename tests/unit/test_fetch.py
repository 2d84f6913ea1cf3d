from __future__ import annotations

import importlib.util
import io
from typing import TYPE_CHECKING

import pytest

from bertir.digest import Digest
from bertir.errors import DigestMismatchError, FetchError
from bertir.fetch import Fetcher
from bertir.intent import PythonIntent
from bertir.lock import DebianPackage, WheelPin
from bertir.progress import SILENT, Progress
from bertir.web import Patience

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from bertir.store import Store
    from tests.unit.conftest import Server

    MakeWheel = Callable[[Path, str, str, Mapping[str, bytes]], Path]

PYTHON = PythonIntent(version="3.11", glibc="2.36", machine="x86_64", requirements=())
DATA = b"a package\n" * 1000
HASTY = Patience(attempts=3, silence=5, first_pause=0.01)


def package(data: bytes = DATA, name: str = "hello", size: int | None = None) -> DebianPackage:
    return DebianPackage(
        name=name,
        version="1.0-1",
        architecture="amd64",
        pool_path=f"pool/main/h/{name}/{name}_1.0-1_amd64.deb",
        size=len(data) if size is None else size,
        digest=Digest.of_bytes(data),
    )


def fetcher(
    store: Store, server: Server | None = None, *, offline: bool = False, **environment: str
) -> Fetcher:
    if server is not None:
        environment["BERTIR_DEBIAN_MIRROR"] = server.url
    return Fetcher(store=store, environment=environment, progress=SILENT, offline=offline, patience=HASTY)


def assert_empty(store: Store) -> None:
    assert [path for path in (store.root / "objects").rglob("*") if path.is_file()] == []
    assert list((store.root / "tmp").iterdir()) == []


# by http


def test_a_package_is_fetched_once_from_the_mirror(store: Store, server: Server) -> None:
    wanted = package()
    server.answer(f"/{wanted.pool_path}", DATA)
    for _ in range(2):
        [(given, path)] = fetcher(store, server).debian_packages([wanted])
        assert given == wanted
        assert path.read_bytes() == DATA
    assert server.asked == [f"/{wanted.pool_path}"]


def test_only_what_is_missing_is_fetched(store: Store, server: Server) -> None:
    here, missing = package(b"here", "here"), package(b"missing", "missing")
    store.add_bytes(b"here")
    server.answer(f"/{missing.pool_path}", b"missing")
    got = fetcher(store, server).debian_packages([here, missing])
    assert [path.read_bytes() for _, path in got] == [b"here", b"missing"]
    assert server.asked == [f"/{missing.pool_path}"]


def test_wrong_bytes_are_refused_with_status_102_and_not_kept(store: Store, server: Server) -> None:
    wanted = package()
    server.answer(f"/{wanted.pool_path}", b"x" * len(DATA))
    with pytest.raises(DigestMismatchError, match=r"hello.*: the digest is wrong") as raised:
        fetcher(store, server).debian_packages([wanted])
    assert raised.value.exit_status == 102
    assert str(wanted.digest) in str(raised.value)
    assert_empty(store)


def test_an_absent_file_is_not_asked_for_again(store: Store, server: Server) -> None:
    wanted = package()
    with pytest.raises(FetchError, match="404") as raised:
        fetcher(store, server).debian_packages([wanted])
    assert type(raised.value) is FetchError
    assert f"{server.url}/{wanted.pool_path}" in str(raised.value)
    assert "BERTIR_DEBIAN_MIRROR" in raised.value.advice
    assert len(server.asked) == 1
    assert_empty(store)


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_server_in_trouble_is_asked_again(store: Store, server: Server, status: int) -> None:
    wanted = package()
    server.answer(f"/{wanted.pool_path}", b"an error page", status=status)
    server.answer(f"/{wanted.pool_path}", DATA)
    [(_, path)] = fetcher(store, server).debian_packages([wanted])
    assert path.read_bytes() == DATA
    assert len(server.asked) == 2


def test_a_server_that_stays_in_trouble_is_an_error_and_its_page_is_not_kept(
    store: Store, server: Server
) -> None:
    server.answer(f"/{package().pool_path}", b"an error page", status=503)
    with pytest.raises(FetchError) as raised:
        fetcher(store, server).debian_packages([package()])
    assert "503" in str(raised.value)
    assert_empty(store)


def test_a_connection_that_breaks_leaves_nothing(store: Store, server: Server) -> None:
    wanted = package()
    server.answer(f"/{wanted.pool_path}", DATA[:5000], length=len(DATA))
    with pytest.raises(FetchError) as raised:
        fetcher(store, server).debian_packages([wanted])
    assert type(raised.value) is FetchError  # a broken connection isn't a wrong file
    assert_empty(store)


def test_a_mirror_on_this_machine_needs_no_server(store: Store, tmp_path: Path) -> None:
    wanted = package()
    mirror = f"file://{tmp_path}/a%20mirror"
    with pytest.raises(FetchError, match=r"can't read .*a mirror/pool/main/h/hello") as raised:
        fetcher(store, BERTIR_DEBIAN_MIRROR=mirror).debian_packages([wanted])
    assert "BERTIR_DEBIAN_MIRROR" in raised.value.advice
    path = tmp_path / "a mirror" / wanted.pool_path
    path.parent.mkdir(parents=True)
    path.write_bytes(b"x" * len(DATA))
    with pytest.raises(DigestMismatchError):
        fetcher(store, BERTIR_DEBIAN_MIRROR=mirror).debian_packages([wanted])
    assert_empty(store)
    path.write_bytes(DATA)
    [(_, got)] = fetcher(store, BERTIR_DEBIAN_MIRROR=mirror).debian_packages([wanted])
    assert got.read_bytes() == DATA


def test_a_mirror_that_does_not_answer_is_an_error(store: Store) -> None:
    with pytest.raises(FetchError, match=r"127\.0\.0\.1:9/"):
        fetcher(store, BERTIR_DEBIAN_MIRROR="http://127.0.0.1:9").debian_packages([package()])
    assert_empty(store)


def test_a_redirect_is_followed_to_another_server_but_not_to_a_file(
    store: Store, server: Server, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_bytes(DATA)
    server.answer(f"/{package().pool_path}", status=302, headers={"Location": f"file://{tmp_path}/secret"})
    with pytest.raises(FetchError):
        fetcher(store, server).debian_packages([package()])
    server.answers.clear()
    server.answer(f"/{package().pool_path}", status=302, headers={"Location": "/elsewhere.deb"})
    server.answer("/elsewhere.deb", DATA)
    [(_, path)] = fetcher(store, server).debian_packages([package()])
    assert path.read_bytes() == DATA


def test_more_bytes_than_the_lock_says_are_not_read_to_their_end(store: Store, server: Server) -> None:
    # A mirror gone wrong could otherwise fill the disk before its digest is known to be wrong.
    # This answer breaks off after 8 MB: who reads on past the 10 kB of the lock sees a broken connection instead.
    server.answer(f"/{package().pool_path}", b"x" * 8_000_000, length=40_000_000)
    with pytest.raises(DigestMismatchError):
        fetcher(store, server).debian_packages([package()])
    assert_empty(store)


def test_a_damaged_object_is_not_handed_out(store: Store, server: Server) -> None:
    wanted = package()
    server.answer(f"/{wanted.pool_path}", DATA)
    [(_, path)] = fetcher(store, server).debian_packages([wanted])
    path.chmod(0o644)
    path.write_bytes(b"x" * len(DATA))
    with pytest.raises(Exception, match="held other bytes for hello"):
        fetcher(store, server).debian_packages([wanted])
    [(_, path)] = fetcher(store, server).debian_packages([wanted])  # and the next run fetches it anew
    assert path.read_bytes() == DATA


# offline


def test_offline_names_every_missing_package_and_asks_nobody(store: Store, server: Server) -> None:
    store.add_bytes(b"here")
    wanted = [package(b"here", "here"), package(b"1", "one"), package(b"2", "two")]
    with pytest.raises(FetchError) as raised:
        fetcher(store, server, offline=True).debian_packages(wanted)
    assert str(raised.value).splitlines() == [
        "offline, and not in the store:",
        "  Debian package one 1.0-1",
        "  Debian package two 1.0-1",
    ]
    assert "--bundle" in raised.value.advice
    assert server.asked == []


def test_offline_names_every_missing_wheel(store: Store) -> None:
    pins = [
        WheelPin(name=name, version="2.0", digest=Digest.of_bytes(name.encode())) for name in ("numpy", "mo")
    ]
    store.add_bytes(b"mo")
    with pytest.raises(FetchError, match=r"offline, and not in the store:\n  wheel numpy 2.0$"):
        fetcher(store, offline=True).wheels(pins, PYTHON)


def test_offline_gives_what_is_in_the_store(store: Store) -> None:
    store.add_bytes(DATA)
    pin = WheelPin(name="w", version="1", digest=Digest.of_bytes(DATA))
    [(_, path)] = fetcher(store, offline=True).debian_packages([package()])
    assert fetcher(store, offline=True).wheels([pin], PYTHON) == [(pin, path)]


# wheels, by the real pip from a folder

pip = pytest.mark.skipif(importlib.util.find_spec("pip") is None, reason="this virtualenv has no pip")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes wheels from, and from nowhere else."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return tmp_path / "index"


@pip
def test_a_wheel_comes_from_where_pip_is_told(store: Store, index: Path, make_wheel: MakeWheel) -> None:
    wheel = make_wheel(index, "tiny-model", "1.0", {"tiny_model/vocab.txt": b"[PAD]\n"})
    pin = WheelPin(name="tiny-model", version="1.0", digest=Digest.of_file(wheel))
    [(given, path)] = fetcher(store).wheels([pin], PYTHON)
    assert (given, path.read_bytes()) == (pin, wheel.read_bytes())
    wheel.unlink()
    assert fetcher(store).wheels([pin], PYTHON) == [(pin, path)]


@pip
def test_another_wheel_of_that_name_is_refused_with_status_102(
    store: Store, index: Path, make_wheel: MakeWheel
) -> None:
    make_wheel(index, "tiny-model", "1.0", {"tiny_model/vocab.txt": b"[EVIL]\n"})
    pin = WheelPin(name="tiny-model", version="1.0", digest=Digest.of_bytes(b"the real one"))
    with pytest.raises(DigestMismatchError, match="tiny-model") as raised:
        fetcher(store).wheels([pin], PYTHON)
    assert raised.value.exit_status == 102
    assert pin.digest.hex in str(raised.value)
    assert_empty(store)


@pip
def test_a_wheel_that_is_not_there_is_a_fetch_error(store: Store, index: Path, make_wheel: MakeWheel) -> None:
    make_wheel(index, "tiny-model", "2.0", {})
    pin = WheelPin(name="tiny-model", version="1.0", digest=Digest.of_bytes(b"x"))
    with pytest.raises(FetchError, match=r"tiny-model==1\.0") as raised:
        fetcher(store).wheels([pin], PYTHON)
    assert type(raised.value) is FetchError
    assert "pip config list" in raised.value.advice
    assert_empty(store)


def test_what_is_fetched_is_said_in_one_line(store: Store, server: Server) -> None:
    said = io.StringIO()
    server.answer(f"/{package().pool_path}", DATA)
    told = Fetcher(
        store=store, environment={"BERTIR_DEBIAN_MIRROR": server.url}, progress=Progress(stream=said)
    )
    told.debian_packages([package()])
    told.debian_packages([package()])
    assert said.getvalue().count("1 Debian packages") == 1

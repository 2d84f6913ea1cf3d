"""Wheels by the real pip, from a simple index on loopback that does what servers do wrong; and ten processes at once."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from file_server import Fault, FileServer, serve_files

from bertir.digest import Digest
from bertir.errors import BertirError, DigestMismatchError
from bertir.fetch import Fetcher
from bertir.intent import PythonIntent
from bertir.lock import DebianPackage, WheelPin
from bertir.progress import SILENT, Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from bertir.store import Store

    MakeWheel = Callable[[Path, str, str, Mapping[str, bytes]], Path]

PYTHON = PythonIntent(version="3.11", glibc="2.36", machine="x86_64", requirements=())
pytestmark = pytest.mark.skipif(importlib.util.find_spec("pip") is None, reason="this virtualenv has no pip")


@dataclass(frozen=True, kw_only=True)
class Index:
    """A package index of one wheel a project."""

    server: FileServer
    pins: tuple[WheelPin, ...]
    cache: Path

    @property
    def asked_for_wheels(self) -> list[str]:
        return [asked.path for asked in self.server.asked if asked.path.endswith(".whl")]


@pytest.fixture
def index(tmp_path: Path, make_wheel: MakeWheel, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    pins = []
    with serve_files() as server:
        server.lenient = True
        for number in range(3):
            name = f"tiny-{number}"
            content = hashlib.shake_128(bytes([number])).digest(200_000)
            wheel = make_wheel(tmp_path / "wheels", name, "1.0", {"tiny/x": content})
            data = wheel.read_bytes()
            link = f'<a href="/f/{wheel.name}#sha256={hashlib.sha256(data).hexdigest()}">{wheel.name}</a>'
            server.files[f"/simple/{name}/"] = f"<!DOCTYPE html><html><body>{link}</body></html>".encode()
            server.files[f"/f/{wheel.name}"] = data
            pins.append(WheelPin(name=name, version="1.0", digest=Digest.of_bytes(data)))
        for name, value in {
            "CONFIG_FILE": "/dev/null",
            "INDEX_URL": f"{server.url}/simple/",
            "TRUSTED_HOST": server.url.removeprefix(
                "http://"
            ),  # for this pip's cache is used over http as well
            "CACHE_DIR": str(tmp_path / "cache"),
            "TIMEOUT": "1",
            "RETRIES": "1",
        }.items():
            monkeypatch.setenv(f"PIP_{name}", value)
        for name in ("CERT", "CONSTRAINT", "EXTRA_INDEX_URL", "FIND_LINKS", "NO_INDEX"):
            monkeypatch.delenv(f"PIP_{name}", raising=False)
        yield Index(server=server, pins=tuple(pins), cache=tmp_path / "cache")


def get(store: Store, pins: tuple[WheelPin, ...], stream: io.StringIO | None = None) -> None:
    progress = Progress(stream=stream) if stream else SILENT
    got = Fetcher(store=store, environment={}, progress=progress).wheels(pins, PYTHON)
    assert [Digest.of_file(path) for _, path in got] == [pin.digest for pin in pins]


PAGE = Fault()


@pytest.mark.parametrize(
    ("faults", "status", "says"),
    [
        pytest.param((PAGE, Fault(after=1000)), 0, "", id="dropped"),
        pytest.param((PAGE, Fault(after=1000, stall=9)), 0, "", id="stalled"),
        pytest.param((PAGE, *(Fault(after=100),) * 99), 4, "not enough bytes", id="always dropped"),
        pytest.param((PAGE, Fault(status=404)), 4, "404", id="404"),
        pytest.param((PAGE, *(Fault(status=503),) * 99), 4, "too many 503", id="503"),
        pytest.param((Fault(status=503),) * 99, 4, "tiny-0==1.0", id="the index has 503"),
        pytest.param((Fault(raw=b"garbage\n"),) * 99, 4, "BadStatusLine", id="the index has garbage"),
        pytest.param((PAGE, Fault(flip=5000)), 0, "asking the index anew", id="other bytes once"),
        pytest.param(
            (PAGE, Fault(headers={"Content-Length": "1000"})),
            0,
            "asking the index anew",
            id="length too short",
        ),
        pytest.param(
            (PAGE, Fault(flip=5000), PAGE, Fault(flip=5000)), 102, "serves other bytes", id="other bytes"
        ),
        pytest.param(
            (PAGE, Fault(after=1000), Fault(flip=5000)), 0, "asking the index anew", id="other bytes halfway"
        ),
    ],
)
def test_each_fault_of_an_index_is_waited_out_or_one_message_without_a_traceback(
    store: Store, index: Index, faults: tuple[Fault, ...], status: int, says: str
) -> None:
    index.server.faults = list(faults)
    told, message, found = io.StringIO(), "", 0
    try:
        get(store, index.pins[:1], told)
    except BertirError as error:
        message, found = f"{error}\n{error.advice}", error.exit_status
    assert found == status, message
    assert says in (message or told.getvalue())
    assert "Traceback" not in message
    assert "site-packages" not in message
    assert list((store.root / "tmp").iterdir()) == []


def test_a_flipped_byte_in_pips_own_cache_is_healed_by_asking_the_index(
    store: Store, index: Index, tmp_path: Path
) -> None:
    from bertir.store import Store as Other

    index.server.faults = [PAGE, Fault(headers={"Cache-Control": "max-age=9999"})]
    get(store, index.pins[:1])
    get(Other(tmp_path / "second"), index.pins[:1])
    assert len(index.asked_for_wheels) == 1  # pip's cache was used
    bodies = [path for path in index.cache.rglob("*.body") if path.stat().st_size > 100_000]
    assert bodies
    for body in bodies:
        data = body.read_bytes()
        body.write_bytes(data[:-5] + bytes([data[-5] ^ 1]) + data[-4:])
    told = io.StringIO()
    get(Other(tmp_path / "third"), index.pins[:1], told)
    assert "without pip's cache" in told.getvalue()
    assert len(index.asked_for_wheels) == 2


def test_a_wheel_that_is_another_stays_refused_after_the_second_question(store: Store, index: Index) -> None:
    pin = WheelPin(name="tiny-0", version="1.0", digest=Digest.of_bytes(b"the real one"))
    with pytest.raises(DigestMismatchError) as raised:
        get(store, (pin,))
    assert pin.digest.hex in str(raised.value)
    assert len(index.asked_for_wheels) <= 2


PROGRAM = """
import json, sys
from pathlib import Path
from bertir.digest import Digest
from bertir.fetch import Fetcher
from bertir.intent import PythonIntent
from bertir.lock import DebianPackage, WheelPin
from bertir.progress import Progress
from bertir.store import Store
root, mirror, wheels, packages = sys.argv[1:]
fetcher = Fetcher(
    store=Store(Path(root)), environment={"BERTIR_DEBIAN_MIRROR": mirror}, progress=Progress(stream=sys.stderr)
)
pins = [WheelPin(name=name, version="1.0", digest=Digest(hex)) for name, hex in json.loads(wheels)]
debs = [
    DebianPackage(name=name, version="1", architecture="amd64", pool_path=name, size=size, digest=Digest(hex))
    for name, size, hex in json.loads(packages)
]
fetcher.wheels(pins, PythonIntent(version="3.11", glibc="2.36", machine="x86_64", requirements=()))
fetcher.debian_packages(debs)
"""


def test_ten_processes_at_once_ask_for_each_wheel_and_each_package_once(store: Store, index: Index) -> None:
    import json

    packages = [
        DebianPackage(
            name=f"package-{number}",
            version="1",
            architecture="amd64",
            pool_path=f"package-{number}",
            size=70_000,
            digest=Digest.of_bytes(bytes([number]) * 70_000),
        )
        for number in range(4)
    ]
    index.server.files |= {
        f"/{package.name}": bytes([number]) * 70_000 for number, package in enumerate(packages)
    }
    index.server.pace = 0.02
    listed = json.dumps([(package.name, package.size, package.digest.hex) for package in packages])

    def command(number: int) -> list[str]:
        # Not all want the same: some lack the first wheel alone, others all three.
        wanted = index.pins[: 1 + number % 3]
        wheels = json.dumps([(pin.name, pin.digest.hex) for pin in wanted])
        return [sys.executable, "-c", PROGRAM, str(store.root), index.server.url, wheels, listed]

    running = [subprocess.Popen(command(number), stderr=subprocess.PIPE, text=True) for number in range(10)]
    told = [process.communicate(timeout=100)[1] for process in running]
    assert [process.returncode for process in running] == [0] * 10, told
    asked = [asked.path for asked in index.server.asked if not asked.path.startswith("/simple/")]
    assert len(asked) == 3 + 4
    assert len(set(asked)) == 3 + 4

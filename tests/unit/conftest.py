"""What unit tests share: a store, a loopback HTTP server, small Git repositories and wheels. All of it is real."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import time
import zipfile
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from loopback import serving

from bertir.interruption import SIGNALS
from bertir.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

ROOT = Path(__file__).resolve().parents[2]
_OURS = ("BERTIR_", "DOCKER_", "GIT_")


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the developer's own, and no proxy between a test and its loopback server."""
    for name in os.environ:
        if name.startswith(_OURS):
            monkeypatch.delenv(name)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1,localhost")


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout that is tested."""
    return ROOT


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def signals() -> Iterator[None]:
    """Give this process the handlers back that it had."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


# HTTP


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes
    length: int
    headers: Mapping[str, str]
    delay: float = 0.0


@dataclass
class Server:
    """A loopback server that gives each path's answers in turn, and the last one from then on."""

    url: str
    answers: dict[str, list[Answer]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def answer(
        self,
        path: str,
        body: bytes = b"",
        *,
        status: int = 200,
        length: int | None = None,
        headers: Mapping[str, str] | None = None,
        delay: float = 0.0,
    ) -> None:
        """Add an answer; `length` other than the body's is what a connection that breaks looks like."""
        answer = Answer(status, body, len(body) if length is None else length, headers or {}, delay)
        self.answers.setdefault(path, []).append(answer)

    def next_answer(self, path: str) -> Answer:
        self.asked.append(path)
        waiting = self.answers.get(path)
        if not waiting:
            return Answer(404, b"", 0, {})
        return waiting.pop(0) if len(waiting) > 1 else waiting[0]


def _handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            self._read_body()
            answer = server.next_answer(self.path.partition("?")[0])
            time.sleep(answer.delay)
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(answer.length))
            self.send_header("Connection", "close")
            self.end_headers()
            with contextlib.suppress(ConnectionError):  # the client may have seen enough
                self.wfile.write(answer.body)
            self.close_connection = True

        def _read_body(self) -> None:
            if self.headers.get("Transfer-Encoding") == "chunked":
                while size := int(self.rfile.readline(), 16):
                    self.rfile.read(size + 2)
                self.rfile.readline()
            else:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))

        do_GET = do_POST = do_DELETE = do_HEAD = _serve  # noqa: N815 - http.server's names

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its signature
            pass

    return Handler


@pytest.fixture
def server() -> Iterator[Server]:
    known = Server("")
    with serving(_handler(known)) as known.url:
        yield known


# Git


@dataclass(frozen=True)
class Repository:
    """A small repository with one commit."""

    path: Path
    commit: str
    blobs: Mapping[str, str]

    def git(self, *arguments: str) -> str:
        return run_git(self.path, *arguments)


def run_git(folder: Path, *arguments: str) -> str:
    """Run git in a folder, alone: no configuration and no environment of the machine's."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        **{f"GIT_{role}_NAME": "tester" for role in ("AUTHOR", "COMMITTER")},
        **{f"GIT_{role}_EMAIL": "tester@localhost" for role in ("AUTHOR", "COMMITTER")},
        **{f"GIT_{role}_DATE": "1583939994 +0000" for role in ("AUTHOR", "COMMITTER")},
    }
    run = subprocess.run(
        ["git", *arguments], cwd=folder, env=environment, check=True, capture_output=True, text=True
    )
    return run.stdout.strip()


@pytest.fixture
def git_in() -> Callable[..., str]:
    return run_git


@pytest.fixture
def make_repository(tmp_path: Path) -> Callable[[Mapping[str, bytes | Path]], Repository]:
    """Make a repository of the given files; a `Path` as content is a symbolic link to it."""

    def make(files: Mapping[str, bytes | Path]) -> Repository:
        folder = tmp_path / f"repository-{len(list(tmp_path.glob('repository-*')))}"
        folder.mkdir()
        run_git(folder, "init", "--quiet", "--initial-branch=main", "--template=")
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, Path):
                path.symlink_to(content)
            else:
                path.write_bytes(content)
        run_git(folder, "add", "--all")
        run_git(folder, "commit", "--quiet", "--message=the pinned one")
        listed = (line.split(maxsplit=3) for line in run_git(folder, "ls-tree", "-r", "HEAD").splitlines())
        return Repository(
            folder, run_git(folder, "rev-parse", "HEAD"), {name: blob for _, _, blob, name in listed}
        )

    return make


# wheels


def write_wheel(folder: Path, name: str, version: str, files: Mapping[str, bytes]) -> Path:
    """Write a wheel that pip takes, with these files in it; the same files give the same bytes."""
    module = name.replace("-", "_")
    info = f"{module}-{version}.dist-info"
    everything = dict(files) | {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(
        f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip('=')},{len(data)}\n"
        for path, data in everything.items()
    )
    everything[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{module}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for entry, data in everything.items():
            archive.writestr(zipfile.ZipInfo(entry, (1980, 1, 1, 0, 0, 0)), data, zipfile.ZIP_DEFLATED)
    return path


@pytest.fixture
def make_wheel() -> Callable[[Path, str, str, Mapping[str, bytes]], Path]:
    return write_wheel


# the checkout


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the checkout's own files, to change."""
    copy = tmp_path / "checkout"
    copy.mkdir()
    for name in ("docker", "patches", "requirements", "src"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    for name in ("Makefile", "bootstrap.sh", "models.toml", "pyproject.toml", "task_data.toml", "tasks.py"):
        with contextlib.suppress(FileNotFoundError):
            shutil.copy2(ROOT / name, copy / name)
    return copy

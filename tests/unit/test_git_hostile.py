"""Git hosts, repositories, patches and surroundings that mean harm, each for real."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from git_server import make_certificate, serve_git

from bertir import source
from bertir.digest import Digest
from bertir.errors import PatchError, SourceError
from bertir.source import UnreachableError, clone, patched
from bertir.upstream import Patch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tests.unit.conftest import Repository

    MakeRepository = Callable[[Mapping[str, bytes | Path]], Repository]

CONTENTS = {"modeling.py": b"one\ntwo\nthree\n", "LICENSE": b"free\n"}


@pytest.fixture
def repository(make_repository: MakeRepository) -> Repository:
    return make_repository(dict(CONTENTS))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """A host that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(20)
        yield listening


def running(word: str) -> list[str]:
    """The programs that have a word in their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if word in command and path.parent.name != str(os.getpid()):
            found.append(command)
    return found


def gone(word: str, seconds: float = 5) -> bool:
    ends = time.monotonic() + seconds
    while running(word) and time.monotonic() < ends:
        time.sleep(0.05)
    return not running(word)


CLONE = """
import signal, sys
from pathlib import Path
from bertir.source import clone
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
clone(sys.argv[1], "1" * 40, {}, Path(sys.argv[2]))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL], ids=lambda n: n.name)
def test_git_does_not_outlive_bertir(tmp_path: Path, silent: socket.socket, number: signal.Signals) -> None:
    url = f"https://127.0.0.1:{silent.getsockname()[1]}/bert"
    process = subprocess.Popen(
        [sys.executable, "-c", CLONE, url, str(tmp_path / "clone")], stderr=subprocess.DEVNULL
    )
    connection, _ = silent.accept()  # git-remote-https is there, and waits
    assert [command for command in running(url) if command.startswith("git fetch")]
    process.send_signal(number)
    assert process.wait(timeout=20) != 0
    if number == signal.SIGKILL:
        assert gone(f"git fetch --quiet --depth=1 --no-tags --no-recurse-submodules -- {url}")
        connection.close()  # what git had started sees that it is alone, or hears no more
    assert gone(url), running(url)
    connection.close()


def test_a_host_that_says_nothing_is_given_up(
    tmp_path: Path, silent: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "CLONE_SECONDS", 1)
    url = f"https://127.0.0.1:{silent.getsockname()[1]}/bert"
    with pytest.raises(UnreachableError, match="didn't end within 1 s"):
        clone(url, "1" * 40, {}, tmp_path / "clone")
    assert gone(url, 2)


def test_a_host_that_sends_another_commit_is_refused(
    repository: Repository, tmp_path: Path, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    (repository.path / "modeling.py").write_bytes(b"evil\n")
    repository.git("commit", "--quiet", "--all", "--message=evil")
    evil = repository.git("rev-parse", "HEAD")
    monkeypatch.setenv("GIT_SSL_CAINFO", str(certificate[0]))

    def forged(body: bytes) -> bytes:
        return body.replace(repository.commit.encode(), evil.encode())

    with serve_git(repository.path.parent, *certificate) as honest:
        assert clone(
            f"{honest}/{repository.path.name}/.git", repository.commit, repository.blobs, tmp_path / "a"
        )
    with (
        serve_git(repository.path.parent, *certificate, asked=forged) as url,
        pytest.raises(SourceError, match=repository.commit),
    ):
        clone(f"{url}/{repository.path.name}/.git", repository.commit, repository.blobs, tmp_path / "b")


def test_a_host_that_wants_a_login_asks_nobody(
    tmp_path: Path, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = tmp_path / "ask"
    asked.write_text(f"#!/bin/sh\ntouch {tmp_path}/ASKED\necho secret\n")
    asked.chmod(0o755)
    monkeypatch.setenv("GIT_SSL_CAINFO", str(certificate[0]))
    for name in ("GIT_ASKPASS", "SSH_ASKPASS"):
        monkeypatch.setenv(name, str(asked))
    with (
        serve_git(tmp_path, *certificate, status=401) as url,
        pytest.raises(UnreachableError, match="could not clone"),
    ):
        clone(f"{url}/bert", "1" * 40, {}, tmp_path / "clone")
    assert not (tmp_path / "ASKED").exists()


def test_a_repository_of_any_size_does_not_fill_the_disk(
    make_repository: MakeRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = make_repository({"modeling.py": b"x\n", "noise": os.urandom(3 << 20)})
    monkeypatch.setattr(source, "MAX_PACK_BYTES", 1 << 20)
    with pytest.raises(SourceError, match="more than 1048576 bytes came"):
        clone(str(large.path), large.commit, {"modeling.py": large.blobs["modeling.py"]}, tmp_path / "clone")
    assert sum(path.stat().st_size for path in (tmp_path / "clone").rglob("*") if path.is_file()) < 2 << 20


def test_a_file_larger_than_any_source_is_not_read(make_repository: MakeRepository, tmp_path: Path) -> None:
    large = make_repository({"modeling.py": bytes(5 << 20)})
    with pytest.raises(SourceError, match="larger than any source file"):
        clone(str(large.path), large.commit, large.blobs, tmp_path / "clone")


def test_settings_hooks_filters_and_submodules_of_a_repository_run_nothing(
    make_repository: MakeRepository, tmp_path: Path
) -> None:
    run = f"touch {tmp_path}/RAN"
    evil = make_repository(
        {
            **CONTENTS,
            ".gitattributes": b"* filter=evil diff=evil merge=evil\n",
            ".gitmodules": f'[submodule "x"]\n path = x\n url = ext::{run}\n update = !{run}\n'.encode(),
        }
    )
    evil.git("update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},x")
    evil.git("commit", "--quiet", "--message=with a submodule")
    commit = evil.git("rev-parse", "HEAD")
    settings = {
        "core.fsmonitor": run,
        "core.sshCommand": run,
        "core.pager": run,
        "core.editor": run,
        "core.askPass": run,
        "credential.helper": f"!{run}",
        "uploadpack.packObjectsHook": run,
        "filter.evil.clean": run,
        "filter.evil.smudge": run,
        "filter.evil.process": run,
        "diff.evil.command": run,
        "diff.external": run,
        "gpg.program": run,
        "alias.fetch": f"!{run}",
        "alias.upload-pack": f"!{run}",
    }
    for name, value in settings.items():
        evil.git("config", name, value)
    hooks = evil.path / ".git" / "hooks"
    hooks.mkdir(exist_ok=True)
    for name in (
        "pre-receive",
        "post-checkout",
        "post-update",
        "reference-transaction",
        "fsmonitor-watchman",
    ):
        (hooks / name).write_text(f"#!/bin/sh\n{run}\n")
        (hooks / name).chmod(0o755)
    blobs = {name: evil.blobs[name] for name in CONTENTS}
    assert clone(str(evil.path), commit, blobs, tmp_path / "clone") == CONTENTS
    assert not (tmp_path / "RAN").exists()
    with pytest.raises(SourceError, match="isn't the pinned file"):
        clone(str(evil.path), commit, {"x": "1" * 40}, tmp_path / "again")


def test_protocols_that_the_caller_allows_are_not_allowed_here(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tmp_path / "gitconfig"
    settings.write_text(f'[url "ext::touch {tmp_path}/RAN %S "]\n  insteadOf = {repository.path}\n')
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(settings))
    monkeypatch.setenv("GIT_ALLOW_PROTOCOL", "ext:file:https:ssh")
    with pytest.raises(SourceError, match="ext"):
        clone(str(repository.path), repository.commit, repository.blobs, tmp_path / "clone")
    assert not (tmp_path / "RAN").exists()


@pytest.mark.parametrize("what", ["flipped", "cut", "emptied", "swapped"])
def test_a_repository_whose_objects_are_damaged_gives_no_file(
    repository: Repository, tmp_path: Path, what: str
) -> None:
    blob = repository.blobs["modeling.py"]
    path = repository.path / ".git" / "objects" / blob[:2] / blob[2:]
    other = repository.blobs["LICENSE"]
    data = path.read_bytes()
    damaged = {
        "flipped": data[:9] + bytes([data[9] ^ 4]) + data[10:],
        "cut": data[: len(data) // 2],
        "emptied": b"",
        "swapped": (repository.path / ".git" / "objects" / other[:2] / other[2:]).read_bytes(),
    }
    path.chmod(0o644)
    path.write_bytes(damaged[what])
    with pytest.raises(SourceError):
        clone(str(repository.path), repository.commit, repository.blobs, tmp_path / "clone")


def test_objects_that_a_repository_borrows_are_checked_too(repository: Repository, tmp_path: Path) -> None:
    borrower = tmp_path / "borrower"
    repository.git("clone", "--quiet", "--bare", "--shared", str(repository.path), str(borrower))
    assert clone(str(borrower), repository.commit, repository.blobs, tmp_path / "clone") == CONTENTS
    (borrower / "objects" / "info" / "alternates").write_text("/dev\n/proc/self/fd\n../../../../../etc\n")
    with pytest.raises(SourceError):
        clone(str(borrower), repository.commit, repository.blobs, tmp_path / "again")


def test_odd_addresses_that_git_takes_are_only_places(tmp_path: Path) -> None:
    for url in (
        "file:///--upload-pack=touch RAN",
        "/tmp/-u/x\ny",
        "https://127.0.0.1:9/--exec=x",
        "/nowhere?a=%00",
    ):
        with pytest.raises(SourceError, match="could not clone") as raised:
            clone(url, "1" * 40, {}, tmp_path / f"clone{len(list(tmp_path.iterdir()))}")
        assert "Traceback" not in str(raised.value)
    assert not (tmp_path / "RAN").exists()


HEAD = "diff --git a/{0} b/{0}\n--- a/{0}\n+++ b/{0}\n@@ -1,3 +1,3 @@\n one\n-two\n+2\n three\n"
PATCHES = {
    "out by its name": HEAD.format("../../modeling.py"),
    "out by the middle of its name": HEAD.format("x/../../modeling.py"),
    "absolute": HEAD.format("/etc/passwd"),
    "out by a quoted name": HEAD.replace("a/{0}", '"a/\\056\\056/x"').replace("b/{0}", '"b/\\056\\056/x"'),
    "a name like an option": HEAD.format("--exec=x"),
    "a name with a line's end": HEAD.replace("a/{0}", '"a/x\\ny"').replace("b/{0}", '"b/x\\ny"'),
    "git's own folder by another case": HEAD.format(".GIT/config"),
    "git's own folder as HFS+ writes it": HEAD.format(".g\u200cit/config"),
    "a new link": "diff --git a/l b/l\nnew file mode 120000\n--- /dev/null\n+++ b/l\n@@ -0,0 +1 @@\n+/etc\n",
    "a new link, and through it": (
        "diff --git a/l b/l\nnew file mode 120000\n--- /dev/null\n+++ b/l\n@@ -0,0 +1 @@\n+/tmp\n"
        + HEAD.format("l/modeling.py")
    ),
    "a file that becomes a link": "diff --git a/LICENSE b/LICENSE\nold mode 100644\nnew mode 120000\n"
    "--- a/LICENSE\n+++ b/LICENSE\n@@ -1 +1 @@\n-free\n+/etc/passwd\n",
    "a new submodule": "diff --git a/s b/s\nnew file mode 160000\n--- /dev/null\n+++ b/s\n@@ -0,0 +1 @@\n"
    f"+Subproject commit {'1' * 40}\n",
    "a file that becomes a submodule": "diff --git a/LICENSE b/LICENSE\nold mode 100644\nnew mode 160000\n",
    "a binary delta": "diff --git a/LICENSE b/LICENSE\nindex 1..2 100644\nGIT binary patch\ndelta 3\nKc$@)X\n\n",
    "a binary literal": "diff --git a/LICENSE b/LICENSE\nGIT binary patch\nliteral 4294967295\nLcmZ\n\n",
    "binary files that differ": "diff --git a/LICENSE b/LICENSE\nindex 1..2\nBinary files a/LICENSE and b/LICENSE differ\n",
    "more lines than there are": HEAD.replace("-1,3 +1,3", "-1,99999999 +1,99999999").format("modeling.py"),
    "numbers without end": HEAD.replace("+1,3", f"+{'9' * 5_000},3").format("modeling.py"),
    "a name without end": HEAD.format("x" * 100_000),
    "zeros": "\0" * 10_000,
    "one that is right, and one that isn't": HEAD.format("modeling.py") + HEAD.format("../x"),
}


@pytest.mark.parametrize("kind", PATCHES)
def test_a_patch_that_means_harm_is_one_patch_error(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "0001-it.patch"
    path.write_bytes(PATCHES[kind].encode())
    patch = Patch(name=path.name, path=path, digest=Digest.of_bytes(path.read_bytes()))
    before = {item for item in tmp_path.rglob("*") if "patched" not in item.parts}
    with pytest.raises(PatchError, match=r"0001-it\.patch"):
        patched(CONTENTS, [patch], tmp_path / "patched")
    after = {item for item in tmp_path.rglob("*") if not any("patched" in part for part in item.parts)}
    assert after == before
    assert not [item for item in (tmp_path / "patched").iterdir() if item.is_symlink()]

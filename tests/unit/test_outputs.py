"""What a step left: watched, taken if it is what was promised, emptied. No engine."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from bertir import emptying, outputs
from bertir.emptying import emptied
from bertir.errors import MissingOutputError, StepError
from bertir.outputs import MOST_DEPTH, taken, usage

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def take(volume: Path, *names: str, most: int = 1 << 30) -> dict[str, bytes]:
    with taken(volume, names, most, "convert") as files:
        return {name: file.read() for name, file in files.items()}


def test_only_what_was_promised_is_taken(volume: Path) -> None:
    for name in ("model.bin", "another", ".hidden"):
        (volume / name).write_bytes(b"weights")
    assert take(volume, "model.bin") == {"model.bin": b"weights"}


def test_a_missing_output_is_said_with_what_is_there(volume: Path) -> None:
    with pytest.raises(MissingOutputError, match=r"no model\.bin in its output volume \(found: nothing\)"):
        take(volume, "model.bin")
    (volume / "b").touch()
    (volume / "a\x1b[2J").touch()
    with pytest.raises(MissingOutputError, match=r"convert: .*found: a\\x1b\[2J, b\)"):
        take(volume, "model.bin")
    for number in range(100):
        (volume / f"c{number}").touch()
    with pytest.raises(MissingOutputError, match=r" and 92 more\)"):
        take(volume, "model.bin")


KINDS = ["link", "dangling link", "link inside", "folder", "fifo", "socket", "hard link", "device"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.timeout(20)  # a pipe that is opened waits for a writer
def test_what_is_no_file_of_its_own_is_not_taken(volume: Path, kind: str) -> None:
    path = volume / "model.bin"
    (volume / "real").write_bytes(b"weights")
    match kind:
        case "link":
            path.symlink_to("/etc/passwd")
        case "dangling link":
            path.symlink_to("/nonexistent")
        case "link inside":
            path.symlink_to("real")
        case "folder":
            path.mkdir()
        case "fifo":
            os.mkfifo(path)
        case "socket":
            with socket.socket(socket.AF_UNIX) as listening:
                listening.bind(f"/proc/self/fd/{os.open(volume, os.O_PATH)}/model.bin")
        case "hard link":
            path.hardlink_to(volume / "real")
        case "device":
            if os.geteuid() != 0:
                pytest.skip("needs root")
            os.mknod(path, 0o20666, os.makedev(1, 5))  # /dev/zero: it would never end
    with pytest.raises(
        StepError, match=r"model\.bin is (not a regular file|a hard link.*); it was not taken"
    ):
        take(volume, "model.bin")


def test_outputs_over_the_limit_together_are_not_taken_however_sparse(volume: Path) -> None:
    for name in ("a", "b"):
        with (volume / name).open("wb") as file:
            file.truncate(500)
    assert set(take(volume, "a", "b", most=1000)) == {"a", "b"}
    with (volume / "b").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(StepError, match=rf"b has {1 << 40} bytes, over the limit of 1000 for all of them"):
        take(volume, "a", "b", most=1000)


def test_a_volume_within_its_limits_has_no_fault(volume: Path) -> None:
    (volume / "model.bin").write_bytes(bytes(1 << 20))
    (volume / "again").hardlink_to(volume / "model.bin")
    (volume / "sub").mkdir()
    found = usage(volume, 2 << 20)
    assert (found.fault, found.files) == ("", 3)
    assert 1 << 20 <= found.taken < (1 << 20) + 65536


def test_too_much_too_many_and_too_deep_are_faults(volume: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (volume / "model.bin").write_bytes(bytes(1 << 20))
    assert "more than 0.5 MB" in usage(volume, 500_000).fault
    deep = volume.joinpath(*["d"] * (MOST_DEPTH + 1))
    deep.mkdir(parents=True)
    assert f"more than {MOST_DEPTH} folders deep" in usage(volume, 1 << 30).fault
    assert emptied(str(volume))
    monkeypatch.setattr(outputs, "MOST_FILES", 100)
    for number in range(101):
        (volume / str(number)).touch()
    assert "more than 100 files" in usage(volume, 1 << 30).fault


def test_a_link_out_of_the_volume_is_not_counted_through(volume: Path) -> None:
    (volume / "usr").symlink_to("/usr")
    assert usage(volume, 1 << 20).files == 1


def dig(folder: Path, depth: int) -> None:
    """Folders within each other, deeper than any path can name."""
    here = os.open(folder, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)


def test_a_volume_of_any_depth_is_emptied(volume: Path) -> None:
    dig(volume, 1500)  # shutil.rmtree ends at a thousand, by a RecursionError
    assert emptied(str(volume))
    assert not list(volume.iterdir())


def test_emptying_follows_no_link_and_changes_nothing_outside(volume: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(b"keep")
    (outside / "closed").mkdir(mode=0)
    inner = volume / "inner"
    inner.mkdir()
    for folder in (volume, inner):
        (folder / "link").symlink_to(outside)
        (folder / "closed").symlink_to(outside / "closed")
        (folder / "file").hardlink_to(outside / "file")
    assert emptied(str(volume))
    assert (outside / "file").read_bytes() == b"keep"
    assert (outside / "closed").stat().st_mode & 0o777 == 0


@root_only
def test_a_user_empties_what_is_theirs_however_closed_and_nothing_else(volume: Path, tmp_path: Path) -> None:
    """As another user, by the text that runs in the container: nobody's closed folders, then root's."""
    tmp_path.chmod(0o711)
    for parent in tmp_path.parents:
        if parent.stat().st_uid == 0 and parent != Path("/") and str(parent).startswith("/tmp/"):
            parent.chmod(0o711)
    volume.chmod(0o777)
    program = Path(emptying.__file__).read_text(encoding="utf-8")
    (volume / "a/b").mkdir(parents=True)
    (volume / "a/b/file").touch()
    for path in (volume / "a/b/file", volume / "a/b", volume / "a"):
        os.chown(path, 65532, 65532)
        path.chmod(0)
    command = [
        "setpriv",
        "--reuid=65532",
        "--regid=65532",
        "--clear-groups",
        "/usr/bin/python3",
        "-c",
        program,
    ]
    subprocess.run([*command, str(volume)], check=True)
    assert not list(volume.iterdir())
    (volume / "roots/full").mkdir(parents=True)
    subprocess.run([*command, str(volume)], check=True)  # it ends, and leaves what it may not remove
    assert list(volume.iterdir()) == [volume / "roots"]


def test_what_runs_in_the_container_needs_nothing_of_bertir() -> None:
    program = Path(emptying.__file__).read_text(encoding="utf-8")
    run = subprocess.run(
        [sys.executable, "-S", "-I", "-c", program, "/nonexistent"], check=False, capture_output=True
    )
    assert b"FileNotFoundError" in run.stderr

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from bertir.errors import ConfigurationError
from bertir.whole_file import whole_file


def write(path: Path) -> None:
    with whole_file(path, ConfigurationError) as file:
        file.write(b"new")


def put(kind: str, path: Path) -> None:
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(path))
    elif kind == "device":
        if os.geteuid() != 0:
            pytest.skip("only root makes devices")
        os.mknod(path, 0o600 | 0o020000, os.makedev(1, 3))
    else:
        path.symlink_to("/dev/null")


@pytest.mark.parametrize("kind", ["fifo", "socket", "device", "link to a device"])
def test_what_is_no_regular_file_is_refused_and_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's name has little room
    path = tmp_path / "it"
    put(kind, path.relative_to(tmp_path))
    before = path.lstat()
    with pytest.raises(ConfigurationError, match=r"can't write .*it: it is no regular file"):
        write(path)
    assert path.lstat() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("there", [True, False])
def test_a_link_is_replaced_and_what_it_leads_to_stays(tmp_path: Path, *, there: bool) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    if there:
        real.write_bytes(b"old")
    link.symlink_to(real)
    write(link)
    assert not link.is_symlink()
    assert link.read_bytes() == b"new"
    assert real.read_bytes() == b"old" if there else not real.exists()


def test_a_link_of_the_systems_own_is_refused_wherever_it_leads(tmp_path: Path) -> None:
    # /dev/stdout leads to a regular file, and is a link in /dev that root could replace.
    stdout = Path("/dev/stdout")
    saved = os.dup(1)
    try:
        with (tmp_path / "out").open("wb") as out:
            os.dup2(out.fileno(), 1)
            with (
                pytest.raises(ConfigurationError, match="no regular file"),
                whole_file(stdout, ConfigurationError),
            ):
                pytest.fail("it would be replaced")  # and isn't, as the block ends by an error
    finally:
        os.dup2(saved, 1)
        os.close(saved)
    assert stdout.is_symlink()


def test_a_link_that_leads_to_itself_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(ConfigurationError, match="can't write"):
        write(tmp_path / "loop")

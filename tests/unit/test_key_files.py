"""Where keys lie, whose they are, and who may read them."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from bertir.errors import ConfigurationError
from bertir.signature import generate_key, load_private_key, load_public_key

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECRET = "correct horse battery staple"  # noqa: S105 - of no key


@pytest.fixture
def key(tmp_path: Path) -> Path:
    generate_key(tmp_path / "k")
    return tmp_path / "k"


@pytest.fixture
def _no_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("_no_umask")
def test_a_key_is_closed_to_others_before_its_first_byte_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    plain = os.fdopen

    def looked_at(descriptor: int, *arguments: Any, **named: Any) -> Any:
        status = os.fstat(descriptor)
        seen.append((status.st_mode & 0o777, status.st_size))
        return plain(descriptor, *arguments, **named)

    monkeypatch.setattr(os, "fdopen", looked_at)
    generate_key(tmp_path / "k")
    assert seen == [(0o600, 0), (0o644, 0)]


def test_the_advice_is_a_command_that_mends_it(tmp_path: Path) -> None:
    path = tmp_path / "my key"
    generate_key(path)
    path.chmod(0o644)
    with pytest.raises(ConfigurationError) as raised:
        load_private_key(path)
    subprocess.run(raised.value.advice.partition(": ")[2], shell=True, check=True)  # noqa: S602 - what the user types
    load_private_key(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_key_of_another_user_is_refused(key: Path) -> None:
    os.chown(key, 4321, -1)
    with pytest.raises(ConfigurationError, match=r"belongs to another user \(number 4321, and this is 0\)"):
        load_private_key(key)


def test_a_link_to_a_key_is_read_and_what_it_leads_to_decides(key: Path) -> None:
    link = key.with_name("link")
    link.symlink_to(key)
    load_private_key(link)
    key.chmod(0o604)
    with pytest.raises(ConfigurationError, match="open to other users"):
        load_private_key(link)


def test_a_new_key_is_never_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "k").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigurationError, match="exists"):
        generate_key(tmp_path / "k")
    assert not (tmp_path / "elsewhere").exists()


def test_a_folder_where_others_may_replace_a_key_is_no_place_for_one(key: Path) -> None:
    key.parent.chmod(0o777)
    for use in (lambda: load_private_key(key), lambda: generate_key(key.with_name("l"))):
        with pytest.raises(ConfigurationError, match="a folder that every user may write to"):
            use()
    assert not key.with_name("l").exists()
    key.parent.chmod(0o1777)  # as /tmp: nobody may touch what is another's
    load_private_key(key)
    generate_key(key.with_name("l"))


@pytest.mark.parametrize("load", [load_private_key, load_public_key])
def test_a_pipe_is_no_key_and_not_waited_for(tmp_path: Path, load: Any) -> None:
    os.mkfifo(tmp_path / "k", 0o600)
    with pytest.raises(ConfigurationError, match="not a regular file"):
        load(tmp_path / "k")


def test_a_file_larger_than_any_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "k").write_bytes(b"x" * 70_000)
    (tmp_path / "k").chmod(0o600)
    with pytest.raises(ConfigurationError, match="more than 65536 bytes"):
        load_private_key(tmp_path / "k")


def test_no_program_that_bertir_runs_sees_the_passphrase(root: Path, tmp_path: Path) -> None:
    program = (
        "import os, subprocess, sys; from pathlib import Path\n"
        "from bertir.session import open_session; from bertir.redact import PASSPHRASE\n"
        "session = open_session(Path(sys.argv[1]), os.environ)\n"
        f"assert session.environment[PASSPHRASE] == {SECRET!r}\n"
        "print(subprocess.run(['env'], capture_output=True, text=True, check=True).stdout)\n"
        "print(sorted(os.environ))\n"
    )
    environment = {**os.environ, "BERTIR_KEY_PASSPHRASE": SECRET, "BERTIR_STORE": str(tmp_path / "store")}
    done = subprocess.run(
        [sys.executable, "-c", program, str(root)],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    assert "BERTIR_STORE" in done.stdout
    assert SECRET not in done.stdout + done.stderr
    assert "BERTIR_KEY_PASSPHRASE" not in done.stdout

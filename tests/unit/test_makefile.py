"""`make` and bootstrap.sh, without making a virtualenv."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")


def run(folder: Path, *command: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": path or os.environ["PATH"], "HOME": str(folder), "LC_ALL": "C"}
    return subprocess.run(
        command,
        cwd=folder,
        env=environment,
        check=False,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )


def program(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_help_lists_every_target_and_every_variable(checkout: Path) -> None:
    makefile = (checkout / "Makefile").read_text(encoding="utf-8")
    [phony] = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    variables = re.findall(r"^([A-Z_]+) \?=", makefile, re.MULTILINE)
    assert {"all", "test", "engine", "help"} <= set(phony.split())
    ended = run(checkout, "make", "help")
    assert (ended.returncode, ended.stderr) == (0, "")
    for target in set(phony.split()) - {"build", "dev"}:  # the virtualenv's two states: for the others only
        assert re.search(rf"^  make {target}\s+\S", ended.stdout, re.MULTILINE), target
    for variable in variables:
        assert re.search(rf"^ *(Of `make test`: )?{variable}=", ended.stdout, re.MULTILINE), variable


def test_make_alone_changes_nothing_and_helps(checkout: Path) -> None:
    before = sorted(checkout.rglob("*"))
    ended = run(checkout, "make")
    assert ended.returncode == 0
    assert ended.stdout == run(checkout, "make", "help").stdout
    assert sorted(checkout.rglob("*")) == before


def test_help_shows_the_defaults_that_the_tasks_have(checkout: Path) -> None:
    from bertir.report import DEFAULT_BATCH, DEFAULT_SEQ_LEN, Request

    said = run(checkout, "make", "help").stdout
    request = Request(model="")
    for variable, value in (
        ("RECIPE", request.recipe),
        ("PRECISION", request.precision),
        ("HEAD", request.head),
        ("BATCH", f" .*empty is {DEFAULT_BATCH}"),
        ("SEQ_LEN", f" .*empty is {DEFAULT_SEQ_LEN}"),
    ):
        assert re.search(rf"^  {variable}={value}\b", said, re.MULTILINE), variable


def test_what_is_chosen_reaches_the_task(checkout: Path) -> None:
    chosen = {
        "MODEL": "m",
        "RECIPE": "r",
        "HEAD": "h",
        "CHECKPOINT": "c c",
        "PRECISION": "p",
        "BATCH": "4",
        "SEQ_LEN": "64",
        "OUTPUT": "o o",
        "FORMAT": "f",
        "BUNDLE": "b",
        "MIRROR": "m m",
        "TASK_DATA": "t",
    }
    ended = run(checkout, "make", "--dry-run", "all", *(f"{name}={value}" for name, value in chosen.items()))
    assert ended.returncode == 0, ended.stderr
    [line] = [line for line in ended.stdout.replace("\\\n", " ").splitlines() if "invoke build-ir" in line]
    for name, value in chosen.items():
        assert f"--{name.lower().replace('_', '-')} '{value}'" in line, name


def test_the_virtualenv_is_installed_by_hash_and_from_wheels_alone(checkout: Path) -> None:
    script = (checkout / "bootstrap.sh").read_text(encoding="utf-8")
    installs = [
        line for line in script.splitlines() if line.strip().startswith("install ") and ".lock" in line
    ]
    assert len(installs) == 2
    assert all("--require-hashes" in line and "--only-binary :all:" in line for line in installs)


# bootstrap.sh

OLD_PYTHON = """
case "$*" in
  *version_info*) exit 1 ;;
  *python_version*) echo 3.9.2 ;;
  *ensurepip*) exit 0 ;;
  *) echo "this Python was used: $*" >&2; touch USED; exit 1 ;;
esac"""


def test_an_old_python_is_refused_with_its_version_and_what_to_do(checkout: Path, tmp_path: Path) -> None:
    old = program(tmp_path / "bin", "python3.9", OLD_PYTHON)
    ended = run(checkout, "sh", "bootstrap.sh", str(old), ".venv", "build")
    assert ended.returncode == 2
    assert f"error: bertir needs Python 3.11 or newer, and {old} is 3.9.2" in ended.stderr
    assert "make PYTHON=python3.12 all" in ended.stderr
    assert not (checkout / ".venv").exists()
    assert not (checkout / "USED").exists()


def test_an_old_python3_on_the_path_is_refused_too(checkout: Path, tmp_path: Path) -> None:
    program(tmp_path / "bin", "python3", OLD_PYTHON)
    ended = run(
        checkout,
        "sh",
        "bootstrap.sh",
        "python3",
        ".venv",
        "build",
        path=f"{tmp_path}/bin:{os.environ['PATH']}",
    )
    assert ended.returncode == 2
    assert "python3 is 3.9.2" in ended.stderr


def test_make_ends_when_the_python_is_too_old(checkout: Path, tmp_path: Path) -> None:
    old = program(tmp_path / "bin", "python3.9", OLD_PYTHON)
    ended = run(checkout, "make", "all", f"PYTHON={old}")
    assert ended.returncode == 2
    assert "bertir needs Python 3.11 or newer" in ended.stderr
    assert not (checkout / ".venv").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="the `id` below is what root needs to be someone else")
def test_who_is_not_root_is_told_what_is_missing(checkout: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bin"
    program(folder, "id", "echo 1000")
    program(folder, "apt-get", "touch RAN")
    program(folder, "python3.99", "case $* in *ensurepip*) exit 1 ;; esac")
    ended = run(
        checkout, "/bin/sh", "bootstrap.sh", str(folder / "python3.99"), ".venv", "build", path=str(folder)
    )
    assert ended.returncode == 2
    assert "these are missing: git python3-venv" in ended.stderr
    assert "apt-get install git python3-venv" in ended.stderr
    assert not (checkout / "RAN").exists()


def test_a_python_that_is_not_there_is_said_and_installs_nothing(checkout: Path, tmp_path: Path) -> None:
    program(tmp_path / "bin", "apt-get", "touch RAN")
    path = f"{tmp_path}/bin:{os.environ['PATH']}"
    ended = run(checkout, "sh", "bootstrap.sh", "python3.99", ".venv", "build", path=path)
    assert ended.returncode == 2
    assert "missing: " in ended.stderr
    assert not (checkout / "RAN").exists()


def test_root_installs_only_what_is_missing_and_says_so(checkout: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bin"
    program(folder, "id", "echo 0")
    program(folder, "apt-get", 'echo "apt-get $*" >> RAN')
    # ensurepip is missing until apt-get ran; then a virtualenv is made, whose Python writes down what it is told.
    program(
        folder,
        "python3",
        'case "$*" in\n'
        "  *ensurepip*) exit 1 ;;\n"
        "  *version_info*) exit 0 ;;\n"
        "  '- '*) echo fingerprint ;;\n"
        '  "-m venv .venv") mkdir -p .venv/bin; cp "$0" .venv/bin/python; echo "$*" >> RAN ;;\n'
        '  *) echo "$*" >> RAN ;;\n'
        "esac",
    )
    if not os.path.exists("/etc/debian_version"):  # noqa: PTH110 - as the script asks
        pytest.skip("this is no Debian")
    ended = run(
        checkout, "sh", "bootstrap.sh", "python3", ".venv", "build", path=f"{folder}:{os.environ['PATH']}"
    )
    assert ended.returncode == 0, ended.stderr
    assert "installing python3-venv with apt-get, as root" in ended.stderr
    ran = (checkout / "RAN").read_text().splitlines()
    assert ran[:3] == [
        "apt-get update -q",
        "apt-get install -y -q --no-install-recommends python3-venv",
        "-m venv .venv",
    ]
    assert [line.split()[-1] for line in ran[3:]] == ["requirements/build.lock", ".", "tasks.py"]
    (checkout / "RAN").unlink()
    again = run(
        checkout, "sh", "bootstrap.sh", "python3", ".venv", "dev", path=f"{folder}:{os.environ['PATH']}"
    )
    assert again.returncode == 0, again.stderr
    ran = [line for line in (checkout / "RAN").read_text().splitlines() if "apt-get" not in line]
    assert [line.split()[-1] for line in ran] == ["requirements/dev.lock"]  # on top: nothing has changed


@pytest.mark.parametrize("changed", ["pyproject.toml", "requirements/build.lock"])
def test_a_changed_lock_makes_the_virtualenv_anew_and_an_equal_one_does_not(
    checkout: Path, tmp_path: Path, changed: str
) -> None:
    folder = tmp_path / "bin"
    real = sys.executable
    program(
        folder,
        "python3",
        f'case "$*" in\n'
        '  "-m venv .venv") mkdir -p .venv/bin; cp "$0" .venv/bin/python; touch .venv/new ;;\n'
        "  *pip*) ;;\n"
        f"  *) exec '{real}' \"$@\" ;;\n"
        "esac",
    )
    command = ["sh", "bootstrap.sh", "python3", ".venv", "build"]
    path = f"{folder}:{os.environ['PATH']}"
    new = checkout / ".venv" / "new"
    assert run(checkout, *command, path=path).returncode == 0
    new.unlink()
    assert run(checkout, *command, path=path).returncode == 0
    assert not new.exists()
    with (checkout / changed).open("a", encoding="utf-8") as file:
        file.write("# changed\n")
    assert run(checkout, *command, path=path).returncode == 0
    assert new.exists()


# bertir's job image


def job_image(checkout: Path, folder: Path, digest: str = "") -> str:
    """Lay out what the job image has of a virtualenv, with a Python that does nothing; give the PATH of a job in it."""
    found = re.search(
        r"^# Digest of what follows: (.*)$", (checkout / "requirements/build.lock").read_text(), re.MULTILINE
    )
    assert found
    folder.mkdir()
    program(folder / "bin", "python3", "touch USED; exit 1")
    (folder / "build.lock.digest").write_text(f"{digest or found[1]}\n")
    return f"{folder}/bin:{os.environ['PATH']}"


def test_in_the_job_image_nothing_is_installed_and_no_index_is_asked(checkout: Path, tmp_path: Path) -> None:
    path = job_image(checkout, tmp_path / "opt")
    for said in (f"virtualenv: {tmp_path}/opt has what bertir needs; .venv leads there\n", ""):
        ended = run(checkout, "make", "build", path=path)
        assert (ended.returncode, ended.stderr) == (0, said)
        assert (checkout / ".venv").readlink() == tmp_path / "opt"
    assert not (checkout / "USED").exists()
    assert run(checkout, "make", "clean", path=path).returncode == 0
    assert not (checkout / ".venv").is_symlink()
    assert (tmp_path / "opt" / "bin" / "python3").exists(), (
        "the link was to be removed, and not what it leads to"
    )


def test_in_the_job_image_a_virtualenv_of_the_host_gives_way(checkout: Path, tmp_path: Path) -> None:
    (checkout / ".venv" / "bin").mkdir(parents=True)
    assert run(checkout, "make", "build", path=job_image(checkout, tmp_path / "opt")).returncode == 0
    assert (checkout / ".venv").readlink() == tmp_path / "opt"


def test_a_job_image_of_other_pins_is_refused_and_says_which_one_to_take(
    checkout: Path, tmp_path: Path
) -> None:
    path = job_image(checkout, tmp_path / "opt", digest="sha256:" + "a" * 64)
    ended = run(checkout, "sh", "bootstrap.sh", "python3", ".venv", "build", path=path)
    assert ended.returncode == 2
    assert "holds other packages than requirements/build.lock pins" in ended.stderr
    assert "invoke image --job" in ended.stderr
    assert not (checkout / ".venv").exists()


def test_where_there_is_no_apt_root_is_told_what_is_missing(checkout: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bin"
    program(folder, "id", "echo 0")
    program(folder, "python3", "case $* in *ensurepip*) exit 1 ;; esac")
    ended = run(checkout, "/bin/sh", "bootstrap.sh", "python3", ".venv", "dev", path=str(folder))
    assert ended.returncode == 2
    assert "these are missing: git python3-venv" in ended.stderr


def test_the_script_is_plain_sh(checkout: Path) -> None:
    shell = shutil.which("dash") or "sh"
    assert run(checkout, shell, "-n", "bootstrap.sh").returncode == 0
    assert (checkout / "bootstrap.sh").read_text().splitlines()[0] == "#!/bin/sh"

"""The sdist and the wheel: what is in them, that they are the same bytes wherever they are made, and the wheel as it runs."""

from __future__ import annotations

import email
import json
import os
import re
import shutil
import subprocess
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from built_package import Installed, Package, build_package, laid_out
from checkout import copy_checkout

from bertir import __version__
from bertir.builder import Layout
from bertir.errors import REINSTALL
from bertir.installed import CHECKOUT_TASKS, PACKAGE

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
# Of a checkout, what is about the checkout itself: its CI, and what Git is to overlook.
NOT_IN_SDIST = (".ci", ".github", ".gitignore", ".pre-commit-config.yaml")
IN_WHEEL = ("docker", "patches", "models.toml", "task_data.toml", "tasks.py")
INFO = f"bertir-{__version__}.dist-info"


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone: the files that Git tracks, and no other."""
    return copy_checkout(tmp_path_factory.mktemp("tracked") / "clone").root


@pytest.fixture(scope="module")
def package(tracked: Path, tmp_path_factory: pytest.TempPathFactory) -> Package:
    return build_package(tracked, tmp_path_factory.mktemp("package"))


@pytest.fixture(scope="module")
def installed(package: Package, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return laid_out(package.wheel, tmp_path_factory.mktemp("site"))


def files_of(root: Path) -> Iterator[str]:
    yield from (str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_the_same_files_give_the_same_bytes_whatever_is_around_them(
    tracked: Path, package: Package, tmp_path: Path
) -> None:
    other = tmp_path / "another place" / "ünder"
    shutil.copytree(tracked, other)
    for path in other.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
        os.utime(path, (1e9, 1e9))
    # What lies about in a checkout that is worked in.
    for junk in ("src/bertir/__pycache__", "docker/steps/__pycache__", ".venv", "dist", "package"):
        (other / junk).mkdir()
        (other / junk / "store.cpython-311.pyc").write_bytes(b"byte code")
    (other / "notes.txt").write_text("private", encoding="utf-8")
    around = {"TZ": "Pacific/Kiritimati", "PYTHONHASHSEED": "7", "LC_ALL": "C", "HOME": str(tmp_path)}
    built = build_package(other, tmp_path / "output", UMASK="077", **around)
    assert built.sdist.read_bytes() == package.sdist.read_bytes()
    assert built.wheel.read_bytes() == package.wheel.read_bytes()


def test_the_wheel_made_from_the_checkout_is_the_one_made_from_the_sdist(
    tracked: Path, package: Package, tmp_path: Path
) -> None:
    straight = build_package(tracked, tmp_path, "--wheel")
    assert straight.wheel.read_bytes() == package.wheel.read_bytes()


def test_the_wheel_holds_the_package_and_what_a_build_reads_and_nothing_else(
    tracked: Path, package: Package
) -> None:
    modules = {f"bertir/{path.name}" for path in (tracked / "src" / "bertir").iterdir() if path.is_file()}
    taken = {name for name in files_of(tracked) if name.split("/")[0] in IN_WHEEL}
    data = {f"bertir/project/{name}" for name in taken | {"requirements/build.lock"}}
    about = {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE", "licenses/NOTICE"}
    with zipfile.ZipFile(package.wheel) as wheel:
        names = wheel.namelist()
        assert sorted(names) == sorted(modules | data | {f"{INFO}/{name}" for name in about})
        assert "bertir/py.typed" in names
        for name in names:
            source = name.replace("bertir/project/", "") if name in data else f"src/{name}"
            if name in modules | data:
                assert wheel.read(name) == (tracked / source).read_bytes(), name


def test_all_that_a_layout_names_is_in_the_wheel(installed: Installed) -> None:
    layout = Layout(root=installed.project, models=installed.project / "models.toml")
    places = [name for name, value in vars(Layout).items() if isinstance(value, property)]
    assert len(places) >= 4
    for name in (*places, "models"):
        assert getattr(layout, name).exists(), name


def test_the_sdist_holds_what_git_tracks_and_nothing_else(tracked: Path, package: Package) -> None:
    with tarfile.open(package.sdist) as archive:
        members = archive.getmembers()
    assert {(member.uid, member.gid, member.uname) for member in members} == {(0, 0, "")}
    names = {member.name.partition("/")[2] for member in members if member.isfile()}
    expected = {name for name in files_of(tracked) if name.split("/")[0] not in NOT_IN_SDIST}
    assert names - {".gitignore"} == expected | {"PKG-INFO"}


def test_the_wheel_says_what_it_is_and_under_which_licence(package: Package) -> None:
    with zipfile.ZipFile(package.wheel) as wheel:
        metadata = email.message_from_bytes(wheel.read(f"{INFO}/METADATA"))
        scripts = wheel.read(f"{INFO}/entry_points.txt").decode()
        assert wheel.read(f"{INFO}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
    assert (metadata["Name"], metadata["Version"]) == ("bertir", __version__)
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata.get_all("License-File") == ["LICENSE", "NOTICE"]
    assert "Topic :: Software Development :: Build Tools" in metadata.get_all("Classifier", [])
    assert metadata.get_all("Project-URL") is None  # there is no address yet
    assert scripts == "[console_scripts]\nbertir = bertir.program:main\n"


def test_the_backend_is_the_locked_one_also_where_pip_fetches_it(root: Path) -> None:
    required = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["build-system"][
        "requires"
    ]
    for lock in ("build.lock", "dev.lock"):
        text = (root / "requirements" / lock).read_text(encoding="utf-8")
        assert re.findall(r"^(hatchling==\S+)", text, re.MULTILINE) == required, lock


# As it runs


def test_the_installed_command_lists_the_tasks_that_need_no_checkout(
    installed: Installed, tmp_path: Path
) -> None:
    listed = installed.run(tmp_path, "--list").stdout
    names = set(re.findall(r"^  ([a-z-]+) ", listed, re.MULTILINE))
    assert {"build-ir", "build-matrix", "image", "fetch", "models", "verify", "check", "doctor"} <= names
    assert names & set(CHECKOUT_TASKS) == set()
    assert "invoke" not in listed
    assert installed.run(tmp_path, "--version").stdout == f"bertir {__version__}\n"


def test_the_help_of_a_task_is_in_the_name_that_was_typed(installed: Installed, tmp_path: Path) -> None:
    told = installed.run(tmp_path, "--help", "build-ir").stdout
    assert told.startswith("Usage: bertir build-ir [--options]\n\n  Build and verify OpenVINO IR")
    assert "Example: `bertir build-ir --precision fp32`." in told
    assert "--precision=STRING" in told
    assert "invoke" not in told


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("--list-format yaml --list", "--list-format must be one of flat, nested, json, and is 'yaml'"),
        ("--list-depth x --list", "an option takes a whole number, and was given 'x'"),
        ("--pty models", "there is no option --pty"),
        ("--list build-i", "there is no task named 'build-i'\nDid you mean build-ir?"),
    ],
)
def test_an_option_before_the_task_is_refused_as_one_after_it(
    installed: Installed, tmp_path: Path, arguments: str, told: str
) -> None:
    ended = installed.run(tmp_path, *arguments.split())
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith(f"error: {told}")


@pytest.mark.parametrize("task", CHECKOUT_TASKS)
def test_a_task_that_needs_a_checkout_says_so(installed: Installed, tmp_path: Path, task: str) -> None:
    ended = installed.run(tmp_path, task)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == (
        f"error: {task} works on the files of a checkout of bertir, and this is an installed package, which has none\n"
        f"In a checkout: invoke {task}\n"
    )


def test_models_and_advice_come_from_the_wheel_and_in_its_name(installed: Installed, tmp_path: Path) -> None:
    ended = installed.run(tmp_path, "build-ir", "--model", "all-minilm-l6")
    assert ended.returncode == 2
    assert "Did you mean all-minilm-l6-v2? `bertir models` lists them." in ended.stderr
    offline = installed.run(tmp_path, "build-ir", "--offline")
    assert offline.returncode == 4
    assert "`bertir fetch" in offline.stderr
    assert "invoke" not in offline.stderr


def test_doctor_looks_at_the_locks_of_the_wheel_and_advises_in_its_name(
    installed: Installed, tmp_path: Path
) -> None:
    engine = {"DOCKER_HOST": "unix:///nonexistent/docker.sock"}
    offline = installed.run(tmp_path, "doctor", "--offline", "--format", "json", **engine)
    findings = {one["name"]: one for one in json.loads(offline.stdout)["findings"]}
    locks = [name for name in findings if name.endswith(" lock")]
    assert [(name, findings[name]["verdict"]) for name in locks] == [
        ("source lock", "good"),
        ("image lock", "good"),
        ("job lock", "good"),  # and no "host lock": that is of a checkout's virtualenv
    ]
    nobody = "http://127.0.0.1:9"
    around = {
        "BERTIR_MIRROR": nobody,
        "BERTIR_DEBIAN_MIRROR": nobody,
        "BERTIR_BERT_URL": f"file://{tmp_path}",
    }
    asked = installed.run(
        tmp_path,
        "doctor",
        "--format",
        "json",
        PIP_INDEX_URL=nobody,
        PIP_CONFIG_FILE=os.devnull,
        **around,
        **engine,
    )
    advice = [one["advice"] for one in json.loads(asked.stdout)["findings"]]
    assert any("`bertir models`" in one for one in advice)
    assert not any("invoke " in one for one in advice)


def test_the_job_image_is_made_of_what_the_wheel_takes_along(installed: Installed, tmp_path: Path) -> None:
    archive = f"--archive={tmp_path / 'job.tar'}"
    ended = installed.run(tmp_path, "image", "--job", "--offline", archive)
    assert ended.returncode == 4, "its locks are fresh, and what it is made of isn't there"
    assert "Debian package base-files" in ended.stderr
    listed = installed.run(tmp_path, "sbom", "--job")
    assert listed.returncode == 2
    assert "only a checkout's pyproject.toml has" in listed.stderr


def test_a_lock_of_the_wheel_that_was_changed_asks_for_another_installation(
    package: Package, tmp_path: Path
) -> None:
    broken = laid_out(package.wheel, tmp_path / "site")
    (broken.project / "docker" / "image.lock").write_text("{", encoding="utf-8")
    ended = broken.run(tmp_path, "image", "--offline")
    assert ended.returncode == 3
    assert ended.stderr.endswith(f"{REINSTALL}\n")


def test_provenance_of_an_installed_bertir_names_the_same_modules_and_no_commit(
    package: Package, tmp_path: Path
) -> None:
    # In a repository of its user's, as a virtualenv often is, whose commit isn't bertir's.
    for command in (
        ("init", "--quiet"),
        ("commit", "--quiet", "--allow-empty", "--message", "of the user's"),
    ):
        identity = ["-c", "user.name=user", "-c", "user.email=user@localhost"]
        subprocess.run(["git", "-C", str(tmp_path), *identity, *command], check=True)
    installed = laid_out(package.wheel, tmp_path / "site")
    facts = """
import json, sys
from bertir.session import open_session
from bertir.installed import project_root
session = open_session(project_root(), {"BERTIR_STORE": sys.argv[1]})
with session.builder() as builder:
    print(json.dumps(dict(builder.code)))
"""
    of_wheel = installed.python(tmp_path, facts, str(tmp_path / "store"))
    of_checkout = installed.python(tmp_path, facts, str(tmp_path / "store"), PYTHONPATH=str(PACKAGE.parent))
    wheel, checkout = (json.loads(ended.stdout) for ended in (of_wheel, of_checkout))
    assert wheel == {"version": __version__, "digest": checkout["digest"]}


def test_a_check_of_an_installed_bertir_rebuilds_with_a_copy_laid_out_as_a_checkout(
    installed: Installed, tmp_path: Path
) -> None:
    program = """
import sys
from pathlib import Path
from bertir.builder import Layout
from bertir.installed import project_root
from bertir.prepare import Supplies, prepared
from bertir.store import Store
from bertir.vary import Conditions
layout = Layout(root=project_root(), models=project_root() / "models.toml")
supplies = Supplies(layout=layout, store=Store(Path("store").absolute()), materials=[])
with prepared(supplies, Conditions(), Path("work").absolute()) as place:
    for path in sorted(place.checkout.rglob("*")):
        if path.is_file():
            print(path.relative_to(place.checkout))
"""
    copied = set(installed.python(tmp_path, program).stdout.splitlines())
    names = set(files_of(ROOT / "src")) | {
        f"{folder}/{name}" for folder in ("docker", "patches") for name in files_of(ROOT / folder)
    }
    assert copied == {
        *(
            name if name.startswith(("docker", "patches")) else f"src/{name}"
            for name in names
            if "__pycache__" not in name
        ),
        "models.toml",
        "task_data.toml",
    }

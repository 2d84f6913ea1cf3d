from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from packages import make_deb, make_wheel, small_intent

from bertir.apt import KEYRING, parse_uris, resolve_packages, transport_settings
from bertir.digest import Digest
from bertir.errors import FetchError, LockError
from bertir.job_intent import load_job_intent
from bertir.requirements import Requirement
from bertir.resolve import replace_all
from bertir.resolve_job import installed
from bertir.wheelhouse import (
    download_arguments,
    pip_download,
    resolve_host_requirements,
    resolve_image_requirements,
    resolve_installation,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MIRROR = "http://mirror.example/debian"
SHA256 = "a" * 64
ROOT = Path(__file__).parents[2]


def test_all_files_are_replaced(tmp_path: Path) -> None:
    old = tmp_path / "old.lock"
    old.write_text("old")
    replace_all({old: "new", tmp_path / "made" / "b.lock": "b"})
    assert (old.read_text(), (tmp_path / "made" / "b.lock").read_text()) == ("new", "b")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made", "old.lock"]


def test_when_one_file_cannot_be_replaced_all_stay_as_they_were(tmp_path: Path) -> None:
    old = tmp_path / "a.lock"
    old.write_text("old")
    new = tmp_path / "b.lock"
    blocked = tmp_path / "c.lock"
    (blocked / "in the way").mkdir(parents=True)
    with pytest.raises(LockError, match="can't write the locks; they are as they were"):
        replace_all({old: "new", new: "new", blocked: "new"})
    assert old.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.lock", "c.lock"]


def test_when_renaming_fails_half_way_the_old_files_are_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / "a.lock"
    old.write_text("old")
    rename = Path.replace

    def failing(self: Path, target: Path) -> Path:
        if target.name == "c.lock":
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", failing)
    with pytest.raises(LockError, match="No space left on device"):
        replace_all({old: "new", tmp_path / "b.lock": "new", tmp_path / "c.lock": "new"})
    assert old.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.lock"]


def test_what_apt_would_fetch_becomes_pins() -> None:
    listed = (
        "Reading package lists...\n"
        f"'{MIRROR}/pool/main/z/zlib/zlib1g_1.2.13.dfsg%2b1-1_amd64.deb' zlib1g_1%3a1.2.13.dfsg+1-1_amd64.deb 86684"
        f" SHA256:{SHA256}\n"
    )
    ((file, package),) = parse_uris(listed, MIRROR).items()
    assert file == "zlib1g_1%3a1.2.13.dfsg+1-1_amd64.deb"
    assert (package.name, package.version, package.architecture) == ("zlib1g", "1:1.2.13.dfsg+1-1", "amd64")
    assert package.pool_path == "pool/main/z/zlib/zlib1g_1.2.13.dfsg+1-1_amd64.deb"
    assert (package.size, package.digest.hex) == (86684, SHA256)


@pytest.mark.parametrize(
    "line",
    [
        f"'http://other.example/debian/pool/a_1_amd64.deb' a_1_amd64.deb 1 SHA256:{SHA256}",
        f"'{MIRROR}/pool/a_1_amd64.deb' a_1_amd64.deb 1 MD5Sum:{'a' * 32}",
        f"'{MIRROR}/pool/a_1_amd64.deb' a_1_amd64.deb 1",
    ],
)
def test_a_package_from_elsewhere_or_without_sha256_is_refused(line: str) -> None:
    with pytest.raises(LockError, match="can't be pinned"):
        parse_uris(line, MIRROR)


def test_no_package_at_all_is_refused() -> None:
    with pytest.raises(LockError, match="no package at all"):
        parse_uris("", MIRROR)


def test_of_apts_configuration_only_the_way_to_the_mirror_is_kept() -> None:
    dump = """\
APT::Install-Recommends "1";
Acquire::Check-Valid-Until "false";
Acquire::AllowInsecureRepositories "1";
APT::Update::Post-Invoke:: "rm -f /var/cache/apt/archives/*.deb";
Acquire::http "";
Acquire::http::Proxy "http://proxy.example:3128";
Acquire::Retries "3";
"""
    assert transport_settings(dump) == [
        'Acquire::http "";',
        'Acquire::http::Proxy "http://proxy.example:3128";',
        'Acquire::Retries "3";',
    ]


def test_a_machine_without_apt_is_told_where_to_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(LockError, match="locking needs apt") as caught:
        resolve_packages(small_intent().debian, MIRROR, tmp_path / "apt")
    assert "Debian or Ubuntu machine" in caught.value.advice


@pytest.mark.skipif(
    shutil.which("apt-get") is None or not KEYRING.is_file(), reason="needs apt and Debian's keys"
)
def test_an_unreachable_mirror_is_an_error_though_apt_calls_it_a_warning(tmp_path: Path) -> None:
    with pytest.raises(LockError, match=r"apt-get .* update .*failed with exit status 100") as caught:
        resolve_packages(small_intent().debian, "http://127.0.0.1:9/debian", tmp_path / "apt")
    assert "BERTIR_DEBIAN_MIRROR" in caught.value.advice


@pytest.mark.skipif(
    shutil.which("apt-get") is None or not KEYRING.is_file(), reason="needs apt and Debian's keys"
)
def test_apt_knows_of_what_is_there_already_and_of_nothing_of_the_machines(tmp_path: Path) -> None:
    there = installed([make_deb(tmp_path, [])], replace(load_job_intent(ROOT / "docker"), without=()))
    for number, (text, known) in enumerate((("", []), (there, ["small"]))):
        folder = tmp_path / f"apt-{number}"
        with pytest.raises(LockError):
            resolve_packages(small_intent().debian, "http://127.0.0.1:9/debian", folder, installed=text)
        run = subprocess.run(
            ["apt-cache", "pkgnames"],
            env={**os.environ, "APT_CONFIG": str(folder / "apt.conf")},
            check=True,
            capture_output=True,
            text=True,
        )
        assert run.stdout.split() == known


def test_pip_is_asked_for_every_platform_that_the_image_can_run(tmp_path: Path) -> None:
    arguments = download_arguments(small_intent().python, tmp_path / "r.txt", tmp_path)
    platforms = [item.removeprefix("--platform=") for item in arguments if item.startswith("--platform=")]
    assert platforms[0] == "manylinux_2_36_x86_64", "the newest first: pip prefers it"
    assert {"manylinux_2_17_x86_64", "manylinux2014_x86_64"} <= set(platforms)
    assert "manylinux_2_37_x86_64" not in platforms
    assert {"--require-hashes", "--no-deps", "--only-binary=:all:", "--python-version=3.11"} <= set(arguments)


def test_what_pip_says_about_a_failure_reaches_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    requirements = tmp_path / "r.txt"
    requirements.write_text(f"small==1.0 --hash=sha256:{SHA256}\n")
    with pytest.raises(FetchError, match="No matching distribution found for small==1"):
        pip_download(small_intent().python, requirements, tmp_path)


def test_what_pip_would_install_here_is_pinned_by_its_one_file(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make_wheel: Callable[[Path, str, str, Mapping[str, bytes]], Path],
) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    make_wheel(wheels, "Small_one", "1.0", {"small.py": b""})
    wheel = make_wheel(wheels, "Small_one", "1.0+cpu", {"small.py": b"cpu"})
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    found = resolve_installation(["small-one==1.0"], tmp_path)
    assert found == (Requirement(name="small-one", version="1.0+cpu", digests=(Digest.of_file(wheel),)),)
    with pytest.raises(LockError, match=r"pip can't resolve small-one==2(?s:.*)No matching distribution"):
        resolve_installation(["small-one==2"], tmp_path)


def test_what_is_to_be_left_out_counts_as_required_by_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    for name, needs in (("small", "Requires-Dist: hub\n"), ("hub", "Requires-Dist: large\n"), ("large", "")):
        _, made = make_wheel(tmp_path, {f"{name}.py": b""}, name=name, metadata=needs)
        made.rename(wheels / f"{name}-1.0-py3-none-any.whl")
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_FIND_LINKS", str(wheels))
    monkeypatch.setenv("UV_NO_CACHE", "1")
    found = resolve_host_requirements(["small"], tmp_path)
    assert [pin.name for pin in found] == ["hub", "large", "small"]
    assert resolve_host_requirements(["small"], tmp_path, without=["hub"]) == found[2:]


def test_what_uv_says_about_a_failure_reaches_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_NO_CACHE", "1")
    with pytest.raises(LockError, match="uv can't resolve small"):
        resolve_image_requirements(small_intent().python, tmp_path)

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from bertir import provision
from bertir.errors import EngineError
from bertir.progress import SILENT
from bertir.provision import provide_engine, why_not_here

if TYPE_CHECKING:
    from pathlib import Path

HOST_NAMESPACE = "pid:[4026531836]"
ALL_CAPABILITIES = "000001ffffffffff"
# What Docker gives a container by default: no CAP_SYS_ADMIN.
DOCKERS = "00000000a80425fb"
DEBIAN = 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nVERSION_ID="12"\nID=debian\n'


@pytest.fixture
def process(tmp_path: Path) -> Path:
    return fake_process(tmp_path / "self")


def fake_process(folder: Path, namespace: str = HOST_NAMESPACE, capabilities: str = ALL_CAPABILITIES) -> Path:
    """A folder like /proc/self."""
    (folder / "ns").mkdir(parents=True)
    (folder / "ns" / "pid").symlink_to(namespace)
    (folder / "status").write_text(f"Name:\tpython3\nCapPrm:\t{DOCKERS}\nCapEff:\t{capabilities}\n")
    return folder


def release(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "os-release"
    path.write_text(text, encoding="utf-8")
    return path


def test_root_on_debian_outside_a_container_may_install_one(tmp_path: Path, process: Path) -> None:
    assert why_not_here({}, user=0, os_release=release(tmp_path, DEBIAN), process=process) == ""


@pytest.mark.parametrize("name", ["DOCKER_HOST", "DOCKER_CONTEXT"])
def test_who_names_an_engine_gets_no_other(tmp_path: Path, process: Path, name: str) -> None:
    debian = release(tmp_path, DEBIAN)
    reason = why_not_here({name: "somewhere"}, user=0, os_release=debian, process=process)
    assert reason == f"{name}=somewhere names the one that you want"
    assert why_not_here({name: ""}, user=0, os_release=debian, process=process) == ""


def test_who_is_not_root_installs_nothing(tmp_path: Path, process: Path) -> None:
    assert (
        why_not_here({}, user=1000, os_release=release(tmp_path, DEBIAN), process=process)
        == "you are not root"
    )


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("ID=debian\n", True),
        ('ID="debian"\n', True),
        ("ID='debian'\n", True),
        ("ID=ubuntu\nID_LIKE=debian\n", True),
        ('ID=linuxmint\nID_LIKE="ubuntu debian"\n', True),
        ("ID=linuxmint\nID_LIKE='ubuntu debian'\n", True),
        ("ID=fedora\n", False),
        ('ID="rhel"\nID_LIKE="fedora"\nHOME_URL="https://debian.example/"\n', False),
        ("ID=notdebian\n", False),
        ("# ID=debian\nID=arch\n", False),
        ("", False),
        ("garbage without an equals sign\n\n", False),
    ],
)
def test_only_debian_and_its_kin_have_that_package(
    tmp_path: Path, process: Path, text: str, allowed: bool
) -> None:
    reason = why_not_here({}, user=0, os_release=release(tmp_path, text), process=process)
    assert reason == ("" if allowed else "this is neither Debian nor Ubuntu")


def test_a_system_that_does_not_say_what_it_is_is_no_debian(tmp_path: Path, process: Path) -> None:
    reason = why_not_here({}, user=0, os_release=tmp_path / "absent", process=process)
    assert reason == "this is neither Debian nor Ubuntu"


@pytest.mark.parametrize(
    ("namespace", "capabilities", "allowed"),
    [
        (HOST_NAMESPACE, ALL_CAPABILITIES, True),
        (HOST_NAMESPACE, "0000000000200000", True),
        (HOST_NAMESPACE, DOCKERS, False),
        ("pid:[4026532192]", ALL_CAPABILITIES, False),
        ("pid:[4026532192]", DOCKERS, False),
        (HOST_NAMESPACE, "0000000000000000", False),
    ],
    ids=["host", "host with the one", "host's pids", "privileged", "plain container", "no capabilities"],
)
def test_a_container_is_no_place_for_an_engine(
    tmp_path: Path, namespace: str, capabilities: str, allowed: bool
) -> None:
    process = fake_process(tmp_path / "process", namespace, capabilities)
    reason = why_not_here({}, user=0, os_release=release(tmp_path, DEBIAN), process=process)
    assert reason == ("" if allowed else "this is a container")


def test_a_machine_that_hides_what_it_is_counts_as_a_container(tmp_path: Path) -> None:
    reason = why_not_here({}, user=0, os_release=release(tmp_path, DEBIAN), process=tmp_path / "absent")
    assert reason == "this is a container"


def test_where_none_may_be_installed_the_error_says_both_reasons(tmp_path: Path) -> None:
    environment = {"DOCKER_HOST": "unix:///nonexistent.sock"}
    with pytest.raises(EngineError) as raised:
        provide_engine(environment, SILENT, tmp_path)
    assert "no container engine answers (asked: DOCKER_HOST=unix:///nonexistent.sock)" in str(raised.value)
    assert "not installing one: DOCKER_HOST=unix:///nonexistent.sock names the one that you want" in str(
        raised.value
    )
    assert raised.value.advice


def test_a_command_that_fails_is_quoted_by_its_last_lines() -> None:
    with pytest.raises(EngineError) as raised:
        provision._run(["sh", "-c", "seq 20; echo no room >&2; exit 3"], dict(os.environ))
    assert "failed with exit status 3\n  no room" in str(raised.value)
    with pytest.raises(EngineError) as raised:
        provision._run(["sh", "-c", "seq 20; exit 3"], dict(os.environ))
    assert str(raised.value).splitlines()[1:] == ["  16", "  17", "  18", "  19", "  20"]


def test_a_command_that_is_not_there_is_named() -> None:
    with pytest.raises(EngineError, match="there is no bertir-no-such-program on this machine"):
        provision._run(["bertir-no-such-program"], dict(os.environ))


def test_pid_files_of_dead_daemons_are_removed_and_those_of_living_ones_are_not(tmp_path: Path) -> None:
    run, processes = tmp_path / "run", tmp_path / "proc"
    (run / "docker" / "containerd").mkdir(parents=True)
    for pid, program in (("7", "dockerd"), ("8", "sshd")):
        (processes / pid).mkdir(parents=True)
        (processes / pid / "comm").write_text(f"{program}\n", encoding="utf-8")
    docker, containerd = run / "docker.pid", run / "docker" / "containerd" / "containerd.pid"
    docker.write_text("7", encoding="ascii")
    containerd.write_text("8", encoding="ascii")  # the number is another program's by now
    provision.forget_dead_daemons(run, processes)
    assert docker.exists()
    assert not containerd.exists()
    docker.write_text("9", encoding="ascii")  # nobody's
    provision.forget_dead_daemons(run, processes)
    assert not docker.exists()
    docker.write_text("not a number", encoding="ascii")
    provision.forget_dead_daemons(run, processes)
    assert docker.exists()

"""`invoke push` and `invoke pull` as they are typed: statuses, what is told, and what is left when they are killed."""

from __future__ import annotations

import contextlib
import json
import signal
import threading
from typing import TYPE_CHECKING

import pytest
from oci_registry import Fault, MemoryRegistry, digest_of, memory_registry
from some_build import publish_some

from bertir.store import Store
from tests.unit.test_tasks import Project

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAME = "models/bert"


@pytest.fixture
def memory() -> Iterator[MemoryRegistry]:
    with memory_registry() as known:
        yield known


@pytest.fixture
def project(checkout: Path, tmp_path: Path) -> Project:
    home = tmp_path / "home"
    home.mkdir()
    return Project(checkout, home)


@pytest.fixture
def published(project: Project, tmp_path: Path) -> Path:
    return publish_some(project.root / "models.toml", tmp_path / "dist", Store(tmp_path / "others"))


def test_the_last_line_of_a_push_is_what_is_pulled(
    project: Project, memory: MemoryRegistry, published: Path, tmp_path: Path
) -> None:
    pushed = project.invoke("push", f"{memory.host}/{NAME}:1", "--folder", str(published))
    assert pushed.status == 0
    reference = pushed.out.splitlines()[-1]
    assert reference == f"{memory.host}/{NAME}@{digest_of(memory.manifests[f'{NAME}:1'][1])}"
    there = tmp_path / "there"
    pulled = project.invoke("pull", reference, "--folder", str(there), "--format", "json")
    assert pulled.status == 0
    facts = json.loads(pulled.out)
    assert facts["reference"] == reference
    assert facts["signed_by"] is None
    assert project.invoke("verify", str(there)).status == 0


def test_push_in_json_tells_the_same(project: Project, memory: MemoryRegistry, published: Path) -> None:
    reference = f"{memory.host}/{NAME}"
    pushed = project.invoke("push", reference, "--folder", str(published), "--format", "json", "--quiet")
    facts = json.loads(pushed.out)
    assert facts["reference"].startswith(f"{reference}@sha256:")
    assert (facts["tag"], facts["blobs_sent"]) == (None, 9)
    assert pushed.err == ""


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("push library/bert:1", "library is no host"),
        ("push HOST/A", "is no reference"),
        (f"push HOST/a@sha256:{'a' * 64}", "names a digest"),
        ("push HOST/a --folder x --job", "--job and --gzip are of an image"),
        ("push HOST/a --folder not-there", "can't read the folder not-there"),
        ("pull HOST/a", "names no tag and no digest"),
        ("pull HOST/a:1 --key k.pub", "--folder says where"),
        ("pull HOST/a:1 --folder x --job", "--job is of an image"),
        ("pull HOST/a:1 --folder x --key not-there.pub", "not-there.pub"),
    ],
)
def test_what_can_not_be_is_status_2_before_a_registry_is_asked(
    project: Project, memory: MemoryRegistry, arguments: str, says: str
) -> None:
    ended = project.invoke(*arguments.replace("HOST", memory.host).split())
    assert ended.status == 2
    assert says in ended.err
    assert memory.asked == []


@pytest.mark.parametrize("task", ["pull", "push"])
def test_an_unauthorised_one_is_status_4_and_shows_no_login(
    project: Project, memory: MemoryRegistry, published: Path, task: str
) -> None:
    memory.login = "user:right"
    (project.home / ".docker").mkdir()
    config = {"auths": {memory.host: {"auth": "dXNlcjp3cm9uZw=="}}}  # user:wrong
    (project.home / ".docker" / "config.json").write_text(json.dumps(config))
    ended = project.invoke(task, f"{memory.host}/{NAME}:1", "--folder", str(published))
    assert ended.status == 4
    assert f"docker login {memory.host}" in ended.err
    assert "wrong" not in ended.err
    assert "dXNlcjp3cm9uZw" not in ended.err + ended.out
    assert any(asked.authorization for asked in memory.asked)


def test_what_is_not_there_is_status_4(project: Project, memory: MemoryRegistry, tmp_path: Path) -> None:
    ended = project.invoke("pull", f"{memory.host}/{NAME}:1", "--folder", str(tmp_path / "there"))
    assert ended.status == 4
    assert "has no such thing" in ended.err


def test_an_image_that_is_another_is_status_102(project: Project, memory: MemoryRegistry) -> None:
    config = {
        "mediaType": "application/vnd.oci.image.config.v1+json",
        "digest": f"sha256:{'a' * 64}",
        "size": 2,
    }
    data = json.dumps({"schemaVersion": 2, "config": config, "layers": []}).encode()
    memory.hold(NAME, "1", "application/vnd.oci.image.manifest.v1+json", data)
    ended = project.invoke("pull", f"{memory.host}/{NAME}:1", "--format", "json")
    assert ended.status == 102
    assert json.loads(ended.out)["error"]["kind"] == "DigestMismatchError"


@contextlib.contextmanager
def killed(
    project: Project, memory: MemoryRegistry, fault: Fault, number: int, *arguments: str
) -> Iterator[None]:
    """Start a task, kill it while the registry holds its answer back, and see that it ended by that."""
    assert fault.reached is not None
    memory.faults.append(fault)
    with project.started(*arguments) as process:
        assert fault.reached.wait(60)
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
        fault.until.set()
    assert "Traceback" not in errors
    assert process.returncode in (128 + number, -number)
    yield


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_pull_that_is_killed_leaves_nothing_half_made_and_is_gone_on_with(
    project: Project, memory: MemoryRegistry, published: Path, tmp_path: Path, number: int
) -> None:
    reference, there = f"{memory.host}/{NAME}:1", tmp_path / "there"
    assert project.invoke("push", reference, "--folder", str(published)).status == 0
    digest = digest_of((published / "report.json").read_bytes())
    fault = Fault(method="GET", path=digest, reached=threading.Event(), status=503)
    pull = ("pull", reference, "--folder", str(there))
    with killed(project, memory, fault, number, *pull):
        assert not there.exists()
    memory.asked.clear()
    assert project.invoke(*pull).status == 0
    assert len(memory.sent("GET", "blobs")) == 2  # report.json, which was held back, and report.html
    assert [path.name for path in tmp_path.iterdir() if "there" in path.name] == ["there"]
    assert list((project.home / "store" / "downloads").iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_push_that_is_killed_shows_nothing_and_is_gone_on_with(
    project: Project, memory: MemoryRegistry, published: Path, number: int
) -> None:
    digest = digest_of((published / "report.json").read_bytes())
    fault = Fault(method="HEAD", path=digest, reached=threading.Event(), status=503)
    push = ("push", f"{memory.host}/{NAME}:1", "--folder", str(published))
    with killed(project, memory, fault, number, *push):
        assert memory.manifests == {}
    memory.asked.clear()
    assert project.invoke(*push).status == 0
    assert len(memory.sent("PUT", "uploads")) == 3  # report.json, report.html, and the empty configuration

"""The weekly jobs in ci/, each script from its first line to its last, in a bare Debian, in a clone like a runner's."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

import docker
import pytest
from bare_debian import bare_debian
from checkout import copy_checkout
from docker.errors import ImageNotFound
from workflows import GITHUB, GITLAB, jobs_of, script_of

from bertir.builder import Layout
from bertir.freshness import LOCKS, lock_checks
from bertir.host_lock import HOST_LOCKS, SERVING_LOCK
from bertir.image import interpreter_image
from bertir.intent import load_intent
from bertir.job_lock import JOB_DEBIAN_LOCK, JOB_LOCK, JOB_REQUIREMENTS_LOCK
from bertir.lock import DEBIAN_LOCK, IMAGE_LOCK, REQUIREMENTS_LOCK, load_image_lock
from bertir.upstream import SOURCE_LOCK

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bare_debian import BareDebian
    from builds import TinyBuild
    from tiny_bert import TinyModel

    from bertir.builder import Builder

pytestmark = pytest.mark.engine

BRANCH = "bertir-lock"
WRITTEN = {
    f"patches/{SOURCE_LOCK}",
    *(f"requirements/{name}" for name in (*HOST_LOCKS, SERVING_LOCK)),
    *(f"docker/{name}" for name in (DEBIAN_LOCK, REQUIREMENTS_LOCK, IMAGE_LOCK)),
    *(f"docker/{name}" for name in (JOB_DEBIAN_LOCK, JOB_REQUIREMENTS_LOCK, JOB_LOCK)),
}
TOKEN, SERVER, PROJECT = "secret", "git.example", "group/bertir"


@dataclass(frozen=True, kw_only=True)
class Weekly:
    """Where the jobs run: a machine, a clone on it, and the repository that this was cloned from, with its branch `main`."""

    debian: BareDebian
    clone: Path
    repository: Path

    def run(self, job: str, **environment: str) -> str:
        """Run all of a job of GitLab's, and give what it printed; it must end well."""
        ended = self.debian.run(
            script_of(jobs_of(GITLAB / "bertir.yml")[job]),
            self.clone,
            CI="true",
            CI_PROJECT_DIR=str(self.clone),
            CI_PROJECT_PATH=PROJECT,
            CI_SERVER_HOST=SERVER,
            LOCK_TOKEN=TOKEN,
            GIT_CONFIG_COUNT="1",
            GIT_CONFIG_KEY_0=f"url.file://{self.repository}.insteadOf",
            GIT_CONFIG_VALUE_0=f"https://lock:{TOKEN}@{SERVER}/{PROJECT}.git",
            **environment,
        )
        assert ended.status == 0, ended.said
        return ended.said


@pytest.fixture(scope="module")
def weekly(engine_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Weekly]:
    """One machine for both jobs: what each installs first is the same, so the second finds it there."""
    assert engine_environment
    folder = tmp_path_factory.mktemp("weekly")
    repository, clone = folder / "bertir.git", folder / "clone"
    _commit(copy_checkout(folder / "first").root, repository)
    # Shallow, and on no branch.
    _git("clone", "--quiet", "--depth=20", f"file://{repository}", str(clone))
    _git("-C", str(clone), "checkout", "--quiet", "--detach")
    _git("-C", str(clone), "branch", "--quiet", "-D", "main")
    with bare_debian(tmp_path_factory.getbasetemp()) as debian:
        yield Weekly(debian=debian, clone=clone, repository=repository)
    shutil.rmtree(folder)  # gigabytes, which pytest would keep


def test_the_weekly_check_rebuilds_the_image_and_all_that_follows_in_a_fresh_clone(
    builder: Builder, tiny_build: TinyBuild, tiny_model: TinyModel, store_root: Path, weekly: Weekly
) -> None:
    assert tiny_build.source.artifact.files  # in the store, with all that it was made from
    builder.load_image()
    said = weekly.run("check", BERTIR_STORE=str(store_root), **tiny_model.environment)
    assert (weekly.clone / ".venv" / "bin" / "pytest").exists()
    # The image too, and whatever can be varied: each rebuild is the baseline again.
    [baseline] = re.findall(r"^\(baseline\) +(\S.*\S) +[\d.]+$", said, re.MULTILINE)
    assert {"image", "source", "import", "freeze", "convert"} <= set(baseline.split(", "))
    assert re.search(r"^rebuilt here +([1-9]\d*) of \1 equal$", said, re.MULTILINE)


def test_the_weekly_lock_pushes_locks_that_are_fresh_and_nothing_else_or_says_that_nothing_is_newer(
    builder: Builder, weekly: Weekly
) -> None:
    said = weekly.run("lock", BERTIR_STORE=str(weekly.clone / ".bertir-store"))
    assert f"locks of {', '.join(LOCKS)}: written" in said
    at = str(weekly.repository)
    if "There is nothing newer." in said:
        assert not _git("-C", at, "branch", "--list", BRANCH)
        assert not _git("-C", str(weekly.clone), "diff", "--name-only")
        return
    changed = _git("-C", at, "diff", "--name-only", "main", BRANCH).splitlines()
    assert changed
    assert set(changed) <= WRITTEN
    assert _git("-C", at, "rev-list", "--count", f"main..{BRANCH}") == "1"
    merged = weekly.clone.with_name("merged")
    _git("clone", "--quiet", "--branch", BRANCH, f"file://{at}", str(merged))
    checks = lock_checks(Layout(root=merged, models=merged / "models.toml"))
    for name in LOCKS:
        checks[name]()
    _forget_interpreter(merged / "docker", builder)


def test_what_the_weekly_jobs_of_the_two_services_do_is_the_same() -> None:
    at_github, at_gitlab = jobs_of(GITHUB / "weekly.yml"), jobs_of(GITLAB / "bertir.yml")
    installs = [at_gitlab[job]["script"][:2] for job in ("check", "lock")]
    assert installs[0] == installs[1]
    assert script_of(at_gitlab["check"]).endswith(script_of(at_github["check"]).strip())
    [locks] = [step["run"] for step in at_github["lock"]["steps"] if step.get("name") == "Lock"]
    assert locks.splitlines()[2:] == at_gitlab["lock"]["script"][2:4]


def _commit(checkout: Path, repository: Path) -> None:
    """Make a repository with this as the only commit of its `main`."""
    _git("init", "--quiet", "--initial-branch=main", str(checkout))
    _git("-C", str(checkout), "add", "--all")
    named = ("-c", "user.name=a", "-c", "user.email=a@localhost")
    _git("-C", str(checkout), *named, "commit", "--quiet", "--message=first")
    _git("clone", "--quiet", "--bare", str(checkout), str(repository))
    _git("-C", str(repository), "config", "receive.advertisePushOptions", "true")


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], check=True, capture_output=True, text=True).stdout.strip()


def _forget_interpreter(docker_folder: Path, builder: Builder) -> None:
    """Remove the image that the new locks were made with from the engine, unless it is ours."""
    intent = load_intent(docker_folder)
    made, ours = (
        interpreter_image(intent, next(layer for layer in lock.layers if layer.name == "debian"))
        for lock in (load_image_lock(docker_folder, intent), builder.lock)
    )
    if made.reference == ours.reference:
        return
    client = docker.from_env()
    with contextlib.closing(client), contextlib.suppress(ImageNotFound):
        client.images.remove(made.reference)

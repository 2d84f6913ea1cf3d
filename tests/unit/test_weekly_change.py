"""How the weekly jobs in ci/ open a change of the locks: their shell run as it is, with Git, and a remote on this disk."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from workflows import GITHUB, GITLAB, jobs_of

if TYPE_CHECKING:
    from pathlib import Path

BRANCH = "bertir-lock"
LOCK = "docker/image.lock"
# GitHub's own command isn't to be had here: this one notes what it is told, and knows as many open changes as were made.
GH = """#!/bin/sh
printf '%s\\n' "$1 $2" >> "$GH_TOLD"
case "$1 $2" in
  "pr list") grep -c '^pr create$' "$GH_TOLD" || true ;;
esac
"""


@dataclass(frozen=True, kw_only=True)
class Ground:
    """A checkout as the job has it, where it pushes to, and what GitHub's command was told."""

    checkout: Path
    remote: Path
    told: Path
    environment: dict[str, str]

    def git(self, *arguments: str, at: Path | None = None) -> str:
        return subprocess.run(
            ["git", "-C", str(at or self.checkout), *arguments],
            check=True,
            capture_output=True,
            text=True,
            env=self.environment,
        ).stdout.strip()

    def run(self, shell: list[str], script: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*shell, script],
            cwd=self.checkout,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def pushed(self) -> list[str]:
        """What the branch changes, if it is there."""
        if not self.git("branch", "--list", BRANCH, at=self.remote):
            return []
        return self.git("diff", "--name-only", "main", BRANCH, at=self.remote).splitlines()


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    """A checkout on `main`, whose remote is what GitLab's job names by https, too."""
    remote, checkout, programs = tmp_path / "group" / "bertir.git", tmp_path / "checkout", tmp_path / "bin"
    for folder in (remote.parent, checkout / "docker", programs):
        folder.mkdir(parents=True)
    (programs / "gh").write_text(GH, encoding="utf-8")
    (programs / "gh").chmod(0o755)
    config = tmp_path / "gitconfig"
    config.write_text(
        f'[url "{tmp_path}/"]\n\tinsteadOf = https://lock:secret@git.example/\n[init]\n\tdefaultBranch = main\n',
        encoding="utf-8",
    )
    ground = Ground(
        checkout=checkout,
        remote=remote,
        told=tmp_path / "told",
        environment={
            "PATH": f"{programs}:{os.environ['PATH']}",
            "GIT_CONFIG_GLOBAL": str(config),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GH_TOLD": str(tmp_path / "told"),
            "LOCK_TOKEN": "secret",
            "CI_SERVER_HOST": "git.example",
            "CI_PROJECT_PATH": "group/bertir",
        },
    )
    ground.git("init", "--quiet", "--bare", str(remote), at=tmp_path)
    ground.git("config", "receive.advertisePushOptions", "true", at=remote)
    ground.git("init", "--quiet")
    (checkout / LOCK).write_text(json.dumps({"week": 1}), encoding="utf-8")
    ground.git("add", "--all")
    ground.git("-c", "user.name=a", "-c", "user.email=a@localhost", "commit", "--quiet", "--message", "first")
    ground.git("remote", "add", "origin", str(remote))
    ground.git("push", "--quiet", "origin", "main")
    return ground


def opens_at_github() -> tuple[list[str], str]:
    [step] = [
        one for one in jobs_of(GITHUB / "weekly.yml")["lock"]["steps"] if one.get("name") == "Open the change"
    ]
    return ["bash", "-ec"], step["run"]


def opens_at_gitlab() -> tuple[list[str], str]:
    lines = jobs_of(GITLAB / "bertir.yml")["lock"]["script"]
    return ["bash", "-eo", "pipefail", "-c"], "\n".join(lines[lines.index(".venv/bin/invoke lock") + 1 :])


SERVICES = {"github": opens_at_github, "gitlab": opens_at_gitlab}


@pytest.mark.parametrize("service", SERVICES)
def test_nothing_is_opened_when_nothing_is_newer(ground: Ground, service: str) -> None:
    ended = ground.run(*SERVICES[service]())
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ground.pushed() == []
    assert not ground.told.exists()


@pytest.mark.parametrize("service", SERVICES)
def test_new_locks_are_pushed_as_one_change_on_a_branch_of_their_own(ground: Ground, service: str) -> None:
    for week in (2, 3):  # the week after, the first change isn't merged yet
        ground.git("checkout", "--quiet", "main")
        (ground.checkout / LOCK).write_text(json.dumps({"week": week}), encoding="utf-8")
        ended = ground.run(*SERVICES[service]())
        assert ended.returncode == 0, ended.stderr
        assert ground.pushed() == [LOCK]
        assert json.loads(ground.git("show", f"{BRANCH}:{LOCK}", at=ground.remote)) == {"week": week}
        assert ground.git("rev-list", "--count", f"main..{BRANCH}", at=ground.remote) == "1"
        assert ground.git("log", "-1", "--format=%an", BRANCH, at=ground.remote) == "bertir"


def test_at_github_a_change_is_opened_once(ground: Ground) -> None:
    for week in (2, 3):
        ground.git("checkout", "--quiet", "main")
        (ground.checkout / LOCK).write_text(json.dumps({"week": week}), encoding="utf-8")
        ground.run(*opens_at_github())
    assert ground.told.read_text(encoding="utf-8").splitlines() == [
        *("auth setup-git", "pr list", "pr create"),
        *("auth setup-git", "pr list"),
    ]


def test_at_gitlab_a_push_that_is_refused_fails_the_job(ground: Ground) -> None:
    (ground.checkout / LOCK).write_text("{}", encoding="utf-8")
    hook = ground.remote / "hooks" / "pre-receive"
    hook.write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
    hook.chmod(0o755)
    assert ground.run(*opens_at_gitlab()).returncode != 0
    assert ground.pushed() == []

"""Which commit bertir runs from, where that can be said."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from bertir.checkout import committed

if TYPE_CHECKING:
    from pathlib import Path


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(
        ["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "a folder"
    (folder / "src").mkdir(parents=True)
    git(folder, "init", "-q")
    (folder / "src" / "code.py").write_text("1\n")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "one")
    return folder


def test_a_checkout_as_committed_has_its_commits_full_id(repository: Path) -> None:
    commit = committed(repository)
    assert commit == git(repository, "rev-parse", "HEAD")
    assert commit
    assert len(commit) == 40


def test_files_that_git_does_not_track_change_nothing(repository: Path) -> None:
    (repository / "dist").mkdir()
    (repository / "dist" / "model.xml").write_text("x")
    assert committed(repository)


def test_a_checkout_with_changes_is_no_commit(repository: Path) -> None:
    (repository / "src" / "code.py").write_text("2\n")
    assert committed(repository) is None


def test_a_folder_inside_another_ones_repository_is_not_its_commit(repository: Path) -> None:
    assert committed(repository / "src") is None


def test_a_copy_without_a_repository_is_no_commit(tmp_path: Path) -> None:
    assert committed(tmp_path) is None


def test_without_git_there_is_no_commit_and_no_error(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    assert committed(repository) is None


def test_another_repository_named_by_the_environment_is_not_asked(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    assert committed(repository) == committed(repository.resolve())
    assert committed(repository)

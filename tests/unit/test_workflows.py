"""The workflows in ci/, by the schemas that GitHub's and GitLab's are published with, and by what is unsafe in one."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from checkout import ROOT
from workflows import GITHUB, GITLAB, invoked, scripts_of

FILES = sorted([*GITHUB.glob("*.yml"), *GITLAB.glob("*.yml")])
USES = re.compile(r"uses: (?P<action>[\w./-]+)@(?P<version>\S+)(?P<comment>.*)")


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, check=False, capture_output=True, text=True)


def validated(path: Path, name: str) -> subprocess.CompletedProcess[str]:
    options = (
        ["--builtin-schema", "vendor.gitlab-ci", "--data-transform", "gitlab-ci"]
        if name == GITLAB.name
        else ["--builtin-schema", "vendor.github-workflows"]
    )
    return run(sys.executable, "-m", "check_jsonschema", *options, str(path))


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_workflow_is_as_its_schema_wants_it(path: Path) -> None:
    checked = validated(path, path.parent.name)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize(
    ("name", "known", "unknown"),
    [("github", "runs-on:", "run-on:"), ("gitlab", "  script:", "  skript:")],
)
def test_the_schemas_refuse_a_misspelt_workflow(tmp_path: Path, name: str, known: str, unknown: str) -> None:
    text = (ROOT / "ci" / name / "bertir.yml").read_text(encoding="utf-8")
    assert known in text
    (tmp_path / "misspelt.yml").write_text(text.replace(known, unknown), encoding="utf-8")
    assert validated(tmp_path / "misspelt.yml", name).returncode != 0


def audited(folder: Path) -> subprocess.CompletedProcess[str]:
    return run(
        str(Path(sys.executable).parent / "zizmor"),
        "--offline",
        "--no-progress",
        "--persona=auditor",
        str(folder),
    )


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Where the workflows are copied to."""
    shutil.copytree(GITHUB, tmp_path / ".github" / "workflows")
    return tmp_path


def test_zizmor_finds_nothing_unsafe(repository: Path) -> None:
    found = audited(repository)
    assert found.returncode == 0, found.stdout
    assert "No findings" in found.stdout


def test_zizmor_would_find_a_token_that_is_kept_and_a_text_that_becomes_code(repository: Path) -> None:
    path = repository / ".github" / "workflows" / "bertir.yml"
    text = path.read_text(encoding="utf-8")
    text = text.replace("          persist-credentials: false\n", "          fetch-depth: 1\n")
    path.write_text(text.replace('MODEL="$MODEL"', "MODEL=${{ github.head_ref }}"), encoding="utf-8")
    found = audited(repository)
    assert found.returncode != 0
    assert "artipacked" in found.stdout
    assert "template-injection" in found.stdout


def test_each_action_is_pinned_by_its_commit_and_says_which_version_that_is() -> None:
    uses = [
        found for path in GITHUB.glob("*.yml") for found in USES.finditer(path.read_text(encoding="utf-8"))
    ]
    assert len(uses) >= 5
    for found in uses:
        assert re.fullmatch(r"[0-9a-f]{40}", found["version"]), found[0]
        assert re.fullmatch(r" # v\d+\.\d+\.\d+", found["comment"]), found[0]
    commits = {(found["action"], found["version"]) for found in uses}
    assert len(commits) == len({action for action, _ in commits})  # each in one version


def test_no_workflow_names_a_registry() -> None:
    for path in FILES:
        images = re.findall(r"^\s*image: *(\S.*?)(?: #.*)?$", path.read_text(encoding="utf-8"), re.MULTILINE)
        assert all(image.startswith(("$", "${{")) for image in images), path


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_what_a_job_says_to_a_shell_and_to_bertir_can_be_said(path: Path) -> None:
    scripts = scripts_of(path)
    assert scripts
    for name, script in scripts.items():
        parsed = subprocess.run(["sh", "-n"], input=script, capture_output=True, text=True, check=False)
        assert parsed.returncode == 0, (name, parsed.stderr)
        for task, *options in invoked(script):
            helped = run(sys.executable, "-m", "invoke", "--search-root", str(ROOT), "--help", task)
            assert helped.returncode == 0, (name, task)
            for option in options:
                assert re.search(rf"{option}\b", helped.stdout), (name, task, option)

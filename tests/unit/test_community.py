"""The files that hosts and tools read of a repository, by the schemas that they are published with."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys

import pytest
import yaml
from checkout import ROOT

from bertir import __version__

SCHEMAS = {
    "CITATION.cff": "vendor.citation-file-format",
    ".github/ISSUE_TEMPLATE/config.yml": "vendor.github-issue-config",
    ".github/ISSUE_TEMPLATE/build-fails.yml": "vendor.github-issue-forms",
    ".github/ISSUE_TEMPLATE/idea.yml": "vendor.github-issue-forms",
}


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_file_is_as_its_schema_wants_it(name: str) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", SCHEMAS[name]]
    # A citation's name isn't one of YAML's.
    checked = subprocess.run(
        [*command, "--default-filetype", "yaml", str(ROOT / name)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_every_issue_form_there_is_is_looked_at() -> None:
    assert {str(path.relative_to(ROOT)) for path in (ROOT / ".github").rglob("*.yml")} == {
        name for name in SCHEMAS if name.startswith(".github")
    }


def test_the_citation_is_of_this_version() -> None:
    told = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert told["version"] == __version__


def test_each_hook_is_something_that_make_lint_runs_too() -> None:
    lint = (ROOT / "Makefile").read_text(encoding="utf-8").partition("\nlint:")[2].partition("\n\n")[0]
    told = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    [repository] = told["repos"]
    assert repository["repo"] == "local"
    assert len(repository["hooks"]) >= 4
    for hook in repository["hooks"]:
        program, *words = shlex.split(hook["entry"])
        options = [word for word in words if word != "--force-exclude"]
        assert " ".join([program.removeprefix(".venv/bin/"), *options]) in lint, hook["id"]
        assert hook["language"] == "system"


def test_what_contributing_says_to_run_there_is() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"(?:[$] |`)make ([a-z]+)", text)
    assert {"dev", "lint", "test"} <= set(targets)
    phony = makefile.partition(".PHONY:")[2].partition("\n")[0].split()
    assert {*targets} <= {*phony}
    tasks = (ROOT / "tasks.py").read_text(encoding="utf-8")
    for task in re.findall(r"invoke ([a-z-]+)", text):
        assert f"def {task.replace('-', '_')}(" in tasks, task
    for path in re.findall(r"\]\(([^)#]+)\)", text):
        assert (ROOT / path).exists(), path

"""The workflows in ci/: what their jobs have a shell run."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Any

import yaml
from checkout import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

GITHUB, GITLAB = ROOT / "ci" / "github", ROOT / "ci" / "gitlab"
_INVOKE = re.compile(r"(?:^|[\s;])(?:\.venv/bin/)?invoke ([^;\n`]+)")


def jobs_of(path: Path) -> dict[str, dict[str, Any]]:
    """The jobs by name."""
    told = yaml.safe_load(path.read_text(encoding="utf-8"))
    if path.parent == GITHUB:
        jobs: dict[str, dict[str, Any]] = told["jobs"]
        return jobs
    return {name: job for name, job in told.items() if isinstance(job, dict) and "script" in job}


def script_of(job: dict[str, Any]) -> str:
    """All that a job has a shell run, in its order."""
    if "script" in job:
        return "\n".join(job["script"])
    return "\n".join(step["run"] for step in job["steps"] if "run" in step)


def scripts_of(path: Path) -> dict[str, str]:
    return {name: script_of(job) for name, job in jobs_of(path).items()}


def invoked(script: str) -> Iterator[list[str]]:
    """Each task that a script runs, with its options."""
    for call in _INVOKE.finditer(script):
        task, *rest = shlex.split(call[1])
        yield [task, *(word.partition("=")[0] for word in rest if word.startswith("--"))]

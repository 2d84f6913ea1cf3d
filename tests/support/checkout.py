"""A copy of this checkout, as a new user's clone has it, and bertir run in it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, kw_only=True)
class Result:
    """How a command ended."""

    status: int
    stdout: str
    stderr: str


@dataclass(frozen=True, kw_only=True)
class Checkout:
    """A copy of the checkout; `environment` is set for every command."""

    root: Path
    environment: dict[str, str] = field(default_factory=dict)

    def run(self, *command: str, **environment: str) -> Result:
        done = subprocess.run(
            command,
            cwd=self.root,
            env=dict(os.environ) | self.environment | environment,
            check=False,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        return Result(status=done.returncode, stdout=done.stdout, stderr=done.stderr)

    def invoke(self, *arguments: str, **environment: str) -> Result:
        """Run a task with the interpreter that runs the tests."""
        return self.run(sys.executable, "-m", "invoke", *arguments, **environment)


def copy_checkout(folder: Path, **environment: str) -> Checkout:
    """Copy what Git tracks, and what it would (new files that it doesn't ignore), as it is in the working tree."""
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        source, target = ROOT / name, folder / name
        if source.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)
    return Checkout(root=folder, environment=environment)

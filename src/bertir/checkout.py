"""The checkout that bertir runs from: which commit it is."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

SECONDS = 20


def committed(root: Path) -> str | None:
    """Give the full id of the commit that is checked out at `root`, if nothing that Git tracks is changed.

    None where that can't be said: another folder's repository, a copy without one, no git, changes.
    """
    # Plain git, not GitPython: two questions, asked only when a step has run.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    answers = []
    for question in (
        ("rev-parse", "--show-toplevel", "--verify", "HEAD^{commit}"),
        ("status", "--porcelain", "--untracked-files=no"),
    ):
        try:
            done = subprocess.run(
                ["git", "-c", "core.fsmonitor=false", "-C", str(root), "--no-optional-locks", *question],
                env=environment,
                capture_output=True,
                text=True,
                check=True,
                timeout=SECONDS,
                stdin=subprocess.DEVNULL,
            )
        except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
            return None
        answers.append(done.stdout)
    top, _, commit = answers[0].rstrip("\n").rpartition("\n")
    return commit if not answers[1] and top == str(root.resolve()) else None

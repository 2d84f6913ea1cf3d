"""A copy of the checkout in which a comment of a patch is another: what a build does after a patch change."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import TYPE_CHECKING

from bertir.errors import SourceError

if TYPE_CHECKING:
    from pathlib import Path

# A whole line that a patch adds, and that Python takes for a comment.
_COMMENT = re.compile(r"^\+( +)# .*$", re.MULTILINE)


def copy_checkout(root: Path, folder: Path) -> Path:
    """Copy what Git tracks, and what it would, as it is in the working tree.

    Raises:
        SourceError: this is no Git checkout.
    """
    command = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, check=False, capture_output=True, text=True)
    if listed.returncode != 0:
        raise SourceError(f"can't list the files of {root}: {listed.stderr.strip()}")
    for name in filter(None, listed.stdout.split("\0")):
        source, target = root / name, folder / name
        if source.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)
    return folder


def change_comment(patches: Path, text: str) -> str:
    """Change a comment that a patch adds; give the patch's name.

    Of the last patch that adds one: then none after it has the line as its context.

    Raises:
        SourceError: no patch adds a comment.
    """
    for path in sorted(patches.glob("*.patch"), reverse=True):
        old = path.read_text(encoding="utf-8")
        new = _COMMENT.sub(rf"+\1# {text}", old, count=1)
        if new != old:
            path.write_text(new, encoding="utf-8")
            return path.name
    raise SourceError(f"no patch in {patches} adds a comment that could be changed")

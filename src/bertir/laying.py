"""A step's inputs laid out in a folder, as it sees them by their paths; and those paths where there is no container."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# Where a step in a container sees its inputs, its program, and the folder for its outputs.
INPUTS, PROGRAMS, OUTPUTS = "/in", "/step", "/out"
# At the start of an argument, or of an option's value: whatever else has such a part is a name in a graph.
_PATH = re.compile(rf"\A(--?[a-z_-]+=)?({INPUTS}|{PROGRAMS}|{OUTPUTS})(?=/|\Z)")


def lay(inputs: Mapping[str, Path], place: str, folder: Path) -> None:
    """Lay out those inputs that a step sees below `place`, as links to what is in the store.

    Raises:
        OSError: they can't be.
    """
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)
    for path, source in inputs.items():
        if not path.startswith(f"{place}/"):
            continue
        target = folder / path.removeprefix(f"{place}/")
        for parent in reversed(target.relative_to(folder).parents[:-1]):
            (folder / parent).mkdir(exist_ok=True)
            (folder / parent).chmod(0o755)
        try:
            target.hardlink_to(source)
        except FileExistsError:  # a link to an object of the store, which isn't to be written into
            raise
        except OSError:  # another user's, which the kernel lets nobody link; or a file system without links
            shutil.copyfile(source, target)
            target.chmod(0o444)


def relative(argument: str) -> str:
    """Give an argument with its path, if it has one, relative to a folder in which `in`, `step` and `out` lie.

    So what a program is told doesn't depend on where that folder is.
    """
    found = _PATH.match(argument)
    if found is None:
        return argument
    return f"{found[1] or ''}{found[2].removeprefix('/')}{argument[found.end() :]}"

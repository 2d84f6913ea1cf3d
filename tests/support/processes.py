"""Which processes there are at work in a folder, wherever they came from and whoever is their parent now."""

from __future__ import annotations

import contextlib
from pathlib import Path


def working_in(folder: Path) -> list[str]:
    """The commands of those that have their working folder in `folder`, be it removed by now."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with contextlib.suppress(OSError):
                if f"{(process / 'cwd').readlink()}/".startswith(f"{folder}/"):
                    command = (process / "cmdline").read_bytes().replace(b"\0", b" ")
                    found.append(command.decode("utf-8", "replace"))
    return found

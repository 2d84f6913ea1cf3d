"""One shell in which a page's commands are typed, one after the other."""

from __future__ import annotations

import re
import subprocess
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from documented import is_said

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from documented import Typed


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a command ended: its status, and what it said on both streams, as a terminal shows it."""

    typed: Typed
    status: int
    said: str

    @property
    def objection(self) -> str:
        """What isn't as the page has it, or nothing."""
        if self.status != self.typed.status:
            return f"{self.typed.place}\nended with {self.status}, and not with {self.typed.status}:\n{self.said}"
        if self.typed.said and not is_said(self.typed.said, self.said):
            shown = "\n".join(self.typed.said)
            return f"{self.typed.place}\nis to say:\n{shown}\nand said:\n{self.said}"
        return ""


def type_in(typed: Sequence[Typed], folder: Path, environment: Mapping[str, str]) -> list[Ended]:
    """Type them in a shell in a folder; what one changes (a folder, a variable) the next one finds.

    Raises:
        RuntimeError: the shell ended before all were typed.
    """
    mark = uuid.uuid4().hex
    # A line of its own, whatever a command said last; the status of the command first, before anything changes it.
    script = "".join(f"{one.text}\nprintf '\\n{mark} %d\\n' \"$?\"\n" for one in typed)
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-c", script],
        cwd=folder,
        env=dict(environment),
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    said = re.split(rf"\n{mark} (\d+)\n", done.stdout)
    if len(said) != 2 * len(typed) + 1:
        raise RuntimeError(f"the shell ended with {done.returncode} before all was typed: {done.stdout}")
    return [
        Ended(typed=one, status=int(status), said=text)
        for one, text, status in zip(typed, said[::2], said[1::2], strict=False)
    ]

"""How the builds of a matrix ended, as data, and which error the task ends with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bertir.errors import error_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bertir.errors import BertirError
    from bertir.targets import Target

BUILT, PUBLISHED, UNCHANGED, REFUSED, FAILED = "built", "published", "unchanged", "refused", "failed"


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How one build of a matrix ended.

    Args:
        result: `built`, if a step ran; `published`, if every step was in the store; `unchanged`, if what was published is
            the same too; `refused`, if it wasn't begun, as what it is to be made of can't be; `failed`, if it was.
        facts: as `build-ir` tells them; None if nothing was published.
        error: as it is told; None if something was.
    """

    target: Target
    result: str
    seconds: float
    facts: Mapping[str, Any] | None = None
    error: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """How all of them ended, in the order of the lists.

    Args:
        jobs: how many could run at once; `memory`: and the bytes that they could take together, None if none had to run.
    """

    ended: Sequence[Ended]
    jobs: int
    memory: int | None
    seconds: float

    def error(self) -> BertirError | None:
        """Give what the task ends with: the first in the order of the lists that failed; if none did, that was refused."""
        wrong = [
            (ended.target.name, ended.error)
            for result in (FAILED, REFUSED)
            for ended in self.ended
            if ended.result == result and ended.error is not None
        ]
        if not wrong:
            return None
        name, first = wrong[0]
        return error_of(
            first["exit_status"],
            f"{len(wrong)} of {len(self.ended)} builds published nothing; this one decides on the exit status:"
            f"\n  {name}: {first['message']}",
            advice=first["advice"],
        )

"""What the command line says of a check or a rebuild; small, as every task imports it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bertir.local_checkpoint import Options


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """How to check.

    Args:
        vary: names of variations with commas between; empty is all that this machine can do.
        each: one rebuild a variation, and one with nothing varied; else all are varied together.
        times: how often each rebuild is done.
        skip_image: take the image as the engine has it.
        keep: a folder for the rebuilds, to look at; empty is one that is removed.
    """

    vary: str = ""
    each: bool = False
    times: int = 1
    skip_image: bool = False
    keep: str = ""


@dataclass(frozen=True, kw_only=True)
class Given:
    """What a provenance can only name by digest, and the user has to hand over for a rebuild."""

    checkpoint: Options | None = None
    task_data: str = ""

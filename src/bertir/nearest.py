"""What was meant by a name that isn't one."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Give the question for a message, or nothing if no known name is near."""
    from difflib import get_close_matches  # a build with nothing to do has no use for it

    # Longer than any name: nobody mistyped that, and comparing takes as long as it is.
    near = get_close_matches(name, list(known), n=1) if len(name) <= 100 else []  # noqa: PLR2004
    return f"Did you mean {near[0]}?" if near else ""

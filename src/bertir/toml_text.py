"""TOML that somebody wrote by hand: parsed in bounded time and memory."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Any

from bertir.small_file import read_small_text

if TYPE_CHECKING:
    from pathlib import Path

# The largest of ours has 8 kB, and its longest line 200 bytes.
_MOST_BYTES = 1 << 18
# What tomllib takes for a dotted key grows with the square of its parts: 24 GB for 200 kB of `a.a.a.a…`.
_LONGEST_LINE = 1_000


def read_toml(path: Path) -> dict[str, Any]:
    """Give a TOML file's tables.

    Raises:
        OSError: it can't be read, isn't a file, or is larger than anybody writes by hand.
        ValueError: it isn't UTF-8, isn't TOML, or is none that somebody would write.
    """
    try:
        return parse_toml(read_small_text(path, _MOST_BYTES))
    except UnicodeDecodeError as error:
        message = f"it is not TOML: {error}"
        raise ValueError(message) from error


def parse_toml(text: str) -> dict[str, Any]:
    """Give a text's tables. Raises as `read_toml` does."""
    for number, line in enumerate(text.split("\n"), 1):
        if len(line) > _LONGEST_LINE:
            message = f"it is not TOML that anybody would write: line {number} has more than {_LONGEST_LINE} characters"
            raise ValueError(message)
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = f"it is not TOML: {error}"
        raise ValueError(message) from error
    except RecursionError:
        message = "it is not TOML that anybody would write: it nests too deeply"
        raise ValueError(message) from None

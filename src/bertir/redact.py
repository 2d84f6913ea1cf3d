"""What may be shown: logs of CI jobs are kept, and what strangers wrote may move a terminal's cursor."""

from __future__ import annotations

import re

_MOST_SHOWN = 200
_LOGIN = re.compile(r"(?<=://)[^/@\s]+@")


def without_logins(text: str) -> str:
    """Give a text whose URLs are without `user:password@`."""
    return _LOGIN.sub("", text)


def printable(text: str) -> str:
    r"""Give a text of one line in which whatever isn't printable is written out (`\x1b`, `\n`)."""
    return "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape", "surrogatepass").decode()
        for sign in text
    )


def shown(value: object) -> str:
    """Give a value as a message shows it: on one line, not at any length, whatever it is."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of over 4,300 digits; a list in a list in a list …
        text = f"a {type(value).__name__}"
    return printable(text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}… ({len(text)} characters)")

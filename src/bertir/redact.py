"""What may be shown: logs of CI jobs are kept, and what strangers wrote may move a terminal's cursor."""

from __future__ import annotations

import re

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

"""What may be shown: logs of CI jobs are kept, and what strangers wrote may move a terminal's cursor."""

from __future__ import annotations

import re

# Of a signing key: never shown, and handed on to no program.
PASSPHRASE = "BERTIR_KEY_PASSPHRASE"  # noqa: S105 - the name of an environment variable
_MOST_SHOWN = 200
_LONGEST_LINE = 1_000
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


def line(text: str) -> str:
    """Give a text as one line of a message: printable, and not at any length."""
    text = printable(text)
    return text if len(text) <= _LONGEST_LINE else f"{text[:_LONGEST_LINE]}… ({len(text)} characters)"


def shown(value: object) -> str:
    """Give a value as a message shows it: on one line, not at any length, whatever it is."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of over 4,300 digits; a list in a list in a list …
        text = f"a {type(value).__name__}"
    return printable(text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}… ({len(text)} characters)")

"""What may be shown: logs of CI jobs are kept, and the URL of a company's mirror may hold a password."""

from __future__ import annotations

import re

_LOGIN = re.compile(r"(?<=://)[^/@\s]+@")


def without_logins(text: str) -> str:
    """Give a text whose URLs are without `user:password@`."""
    return _LOGIN.sub("", text)

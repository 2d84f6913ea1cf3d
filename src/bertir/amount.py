"""Amounts as people write them on a command line: `30d`, `12h`; `20G`, `500M`."""

from __future__ import annotations

import re

from bertir.errors import ConfigurationError

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 24 * 3600, "w": 7 * 24 * 3600}
_BYTES = {
    "": 1,
    "K": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
}
_NUMBER = re.compile(r"(\d{1,15}(?:\.\d{1,6})?) ?([A-Za-z]*)", re.ASCII)


def duration(option: str, text: str) -> float:
    """Give seconds.

    Raises:
        ConfigurationError: it isn't a number with one of the units s, m, h, d, w.
    """
    match = _NUMBER.fullmatch(text)
    if match is None or match[2] not in _SECONDS:
        raise ConfigurationError(
            f"{option} must be a number with a unit of {', '.join(_SECONDS)}, and is {text!r}",
            advice=f"For example: {option} 30d",
        )
    return float(match[1]) * _SECONDS[match[2]]


def size(option: str, text: str) -> int:
    """Give bytes.

    Raises:
        ConfigurationError: it isn't a number, with a unit of K, M, G, T (1000) or Ki, Mi, Gi, Ti (1024) if any.
    """
    match = _NUMBER.fullmatch(text)
    unit = match[2].removesuffix("B") if match else ""
    if match is None or unit not in _BYTES:
        raise ConfigurationError(
            f"{option} must be a number of bytes, or one with a unit as M, G, Gi, and is {text!r}",
            advice=f"For example: {option} 20G",
        )
    return int(float(match[1]) * _BYTES[unit])

"""Compressed streams of strangers: read up to a number of bytes, and no further."""

from __future__ import annotations

from typing import BinaryIO


class TooMuchError(ValueError):
    """A stream gave more bytes than it may."""


class Bounded:
    """Pass a stream's bytes on until there were too many.

    A megabyte of xz may stand for seven gigabytes; and a reader of tars takes some of them (long names, extended
    headers, sparse files) at once, as many as a header says.
    """

    def __init__(self, file: BinaryIO, most: int) -> None:
        self._file = file
        self._most = most
        self._left = most

    def read(self, size: int = -1) -> bytes:
        """Read as files do; raises `TooMuchError`."""
        data = self._file.read(self._left + 1 if size < 0 else min(size, self._left + 1))
        self._left -= len(data)
        if self._left < 0:
            raise TooMuchError(f"it unpacks to more than {self._most} bytes")
        return data

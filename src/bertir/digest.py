"""Digests, and the canonical JSON that they are taken over."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, BinaryIO, Self

from bertir.redact import shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

CHUNK_BYTES = 1 << 20
_HEX = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, order=True)
class Digest:
    """A sha256, the only algorithm that bertir pins by.

    `Digest.from_str(str(d)) == d` for every digest. Git's object ids are not digests in this sense:
    they stay strings (see `source.py`).
    """

    hex: str

    def __post_init__(self) -> None:
        if not _HEX.fullmatch(self.hex):
            message = f"not a sha256 in lower-case hex: {shown(self.hex)}"
            raise ValueError(message)

    @classmethod
    def from_str(cls, text: str) -> Self:
        """Read `sha256:<64 hex digits>`, the OCI form, or the bare digits.

        Raises:
            ValueError: it is neither.
        """
        return cls(text.removeprefix("sha256:"))

    @classmethod
    def of_bytes(cls, data: bytes) -> Self:
        return cls(hashlib.sha256(data).hexdigest())

    @classmethod
    def of_file(cls, path: Path) -> Self:
        with path.open("rb") as file:
            return cls(hashlib.file_digest(file, "sha256").hexdigest())

    @classmethod
    def of_json(cls, value: Any) -> Self:  # noqa: ANN401 - any JSON value
        return cls.of_bytes(canonical_json(value))

    @property
    def short(self) -> str:
        """The first twelve digits, for people."""
        return self.hex[:12]

    def __str__(self) -> str:
        return f"sha256:{self.hex}"


def canonical_json(value: Any) -> bytes:  # noqa: ANN401 - any JSON value
    """Give one byte string for one JSON value: keys sorted, no blanks, UTF-8, no NaN, no duplicate keys.

    Raises:
        TypeError, ValueError: the value isn't JSON (a float NaN, a key that is no string, an object).
    """
    _refuse_odd_keys(value)
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def _refuse_odd_keys(value: Any) -> None:  # noqa: ANN401 - any JSON value
    # json.dumps turns the keys 1 and "1" into the same text, so two values could share a digest.
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                message = f"a JSON object's key must be a string: {shown(key)}"
                raise TypeError(message)
            _refuse_odd_keys(item)
    elif isinstance(value, list | tuple):
        for item in value:
            _refuse_odd_keys(item)


def read_chunks(file: IO[bytes]) -> Iterator[bytes]:
    """Read a file to its end in pieces that memory bears."""
    while chunk := file.read(CHUNK_BYTES):
        yield chunk


def tree_digest(files: Mapping[str, Digest]) -> Digest:
    """One digest over names and contents of a set of files."""
    return Digest.of_json({name: str(digest) for name, digest in files.items()})


class HashingWriter:
    """Pass bytes on to a file while hashing and counting them."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes | memoryview) -> int:
        self._hash.update(data)
        self.size += len(data)
        return self._file.write(data)

    @property
    def digest(self) -> Digest:
        return Digest(self._hash.hexdigest())

"""Where the fields of a protobuf message lie (protobuf.dev, "Encoding"): for what is too large to be read to see what it is.

Imported by the programs beside it, in the container.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator
    from mmap import mmap

VARINT, EIGHT_BYTES, COUNTED, FOUR_BYTES = 0, 1, 2, 5
MORE = 0x80  # the bit of a varint's byte that says that another one follows
MOST_BYTES = 10  # of a varint


class WireError(Exception):
    """These bytes are no message."""


class Field(NamedTuple):
    """One field of a message, by where it lies: its tag from `start` on, its value from `first` to `end`."""

    number: int
    start: int
    first: int
    end: int

    @property
    def size(self) -> int:
        return self.end - self.first


def varint(data: mmap | bytes, at: int, end: int) -> tuple[int, int]:
    """A number of variable length, and where what follows it is."""
    value = 0
    for place in range(at, min(end, at + MOST_BYTES)):
        byte = data[place]
        value |= (byte & ~MORE) << 7 * (place - at)
        if not byte & MORE:
            return value, place + 1
    raise WireError(f"no number at byte {at}")


def fields(data: mmap | bytes, first: int, end: int) -> Iterator[Field]:
    """The fields of the message that lies there, in the order in which they lie.

    Raises:
        WireError: there is none.
    """
    at = first
    while at < end:
        start = at
        tag, at = varint(data, at, end)
        kind = tag & 7
        if kind == COUNTED:
            size, at = varint(data, at, end)
        elif kind == VARINT:
            size = varint(data, at, end)[1] - at
        elif kind in (EIGHT_BYTES, FOUR_BYTES):
            size = 8 if kind == EIGHT_BYTES else 4
        else:
            raise WireError(f"a field of kind {kind} at byte {start}")
        if size > end - at:
            raise WireError(f"a field that ends behind its message, at byte {start}")
        yield Field(tag >> 3, start, at, at + size)
        at += size


def only(data: mmap | bytes, message: Field, number: int) -> Field:
    """The one field that a message has of that number.

    Raises:
        WireError: it has none, or several.
    """
    found = [field for field in fields(data, message.first, message.end) if field.number == number]
    if len(found) != 1:
        raise WireError(
            f"{len(found)} fields {number} in the message at byte {message.first}, where there is one"
        )
    return found[0]


def exactly(data: mmap | bytes, message: Field, *numbers: int) -> list[Field]:
    """The fields of a message that has those of these numbers, in this order, and no others.

    Raises:
        WireError: it has others.
    """
    found = list(fields(data, message.first, message.end))
    if [field.number for field in found] != [*numbers]:
        raise WireError(f"other fields than {numbers} in the message at byte {message.first}")
    return found

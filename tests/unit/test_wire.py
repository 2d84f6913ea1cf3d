"""Where the fields of a protobuf message lie."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

STEPS = Path(__file__).parents[2] / "docker" / "steps"
NUMBERS = st.integers(min_value=1, max_value=(1 << 29) - 1)  # the numbers that a field can have


@pytest.fixture(scope="module")
def wire() -> Iterator[ModuleType]:
    sys.path.insert(0, str(STEPS))
    try:
        yield importlib.import_module("wire")
    finally:
        sys.path.remove(str(STEPS))
        sys.modules.pop("wire", None)


def varint(value: int) -> bytes:
    """As protobuf.dev has it: seven bits a byte, the lowest first; the eighth says that more follow."""
    written = bytearray()
    while value >= 1 << 7:
        written.append(value % (1 << 7) + (1 << 7))
        value //= 1 << 7
    return bytes([*written, value])


FIELDS = st.one_of(
    st.tuples(NUMBERS, st.just(0), st.integers(min_value=0, max_value=(1 << 64) - 1).map(varint)),
    st.tuples(NUMBERS, st.just(1), st.binary(min_size=8, max_size=8)),
    st.tuples(NUMBERS, st.just(2), st.binary(max_size=300)),
    st.tuples(NUMBERS, st.just(5), st.binary(min_size=4, max_size=4)),
)


def written(number: int, kind: int, value: bytes) -> bytes:
    return varint(number << 3 | kind) + (varint(len(value)) if kind == 2 else b"") + value


@given(message=st.lists(FIELDS, max_size=8), before=st.binary(max_size=5), behind=st.binary(max_size=5))
def test_each_field_is_found_where_it_was_written(
    wire: ModuleType, message: list[tuple[int, int, bytes]], before: bytes, behind: bytes
) -> None:
    parts = [written(*field) for field in message]
    data = b"".join([before, *parts, behind])
    found = list(wire.fields(data, len(before), len(data) - len(behind)))
    assert [(one.number, data[one.first : one.end]) for one in found] == [
        (number, value) for number, _, value in message
    ]
    assert [data[one.start : one.end] for one in found] == parts


@given(data=st.binary(max_size=60))
@example(data=b"\x0a\x05abc")  # a field that says that it is longer than what there is
@example(data=b"\x80" * 11)  # a number without an end
@example(data=b"\x0b")  # a kind that there isn't any more
@example(data=b"\x0d\x00")  # four bytes, of which there is one
def test_any_bytes_are_fields_one_after_the_other_or_no_message(wire: ModuleType, data: bytes) -> None:
    at = 0
    try:
        for field in wire.fields(data, 0, len(data)):
            assert field.start == at < field.first <= field.end <= len(data)
            at = field.end
    except wire.WireError:
        assert at < len(data)
    else:
        assert at == len(data)


@pytest.mark.parametrize(
    "data", [b"\x0a\x05abc", b"\x80" * 11, b"\x0b", b"\x0d\x00", b"\x08"], ids=lambda data: data.hex()
)
def test_what_is_no_message_is_refused(wire: ModuleType, data: bytes) -> None:
    with pytest.raises(wire.WireError):
        list(wire.fields(data, 0, len(data)))


def test_the_one_field_of_a_number_is_given_and_none_of_several(wire: ModuleType) -> None:
    data = written(1, 2, b"one") + written(2, 2, b"two") + written(1, 2, b"three")
    message = wire.Field(0, 0, 0, len(data))
    found = wire.only(data, message, 2)
    assert data[found.first : found.end] == b"two"
    for number, count in ((1, 2), (3, 0)):
        with pytest.raises(wire.WireError, match=f"{count} fields {number}"):
            wire.only(data, message, number)


def test_a_message_of_exactly_these_fields_gives_them_and_any_other_is_refused(wire: ModuleType) -> None:
    data = written(1, 2, b"key") + written(2, 2, b"value")
    message = wire.Field(0, 0, 0, len(data))
    assert [data[one.first : one.end] for one in wire.exactly(data, message, 1, 2)] == [b"key", b"value"]
    for numbers in ((1,), (2, 1), (1, 2, 3), ()):
        with pytest.raises(wire.WireError, match="other fields"):
            wire.exactly(data, message, *numbers)

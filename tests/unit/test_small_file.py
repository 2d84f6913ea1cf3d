"""Small files are read whole, and none that has more bytes than it may."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bertir.small_file import read_small

if TYPE_CHECKING:
    import os


def test_a_file_of_just_as_many_bytes_as_it_may_have_is_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    assert read_small(path, 3) == b"abc"
    with pytest.raises(OSError, match="it has more than 2 bytes") as raised:
        read_small(path, 2)
    assert raised.value.errno == errno.EFBIG


def test_a_file_that_says_it_is_empty_and_is_not_is_read_whole() -> None:
    path = Path("/proc/self/status")
    assert path.stat().st_size == 0
    assert read_small(path).startswith(b"Name:")
    assert len(read_small(path)) > 100
    with pytest.raises(OSError, match="it has more than 5 bytes"):
        read_small(path, 5)


@pytest.mark.parametrize("more", [1, 3, 100])
def test_what_is_written_to_a_file_as_it_is_opened_is_read_too_and_counted(tmp_path: Path, more: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")

    def grow(_: os.stat_result) -> None:
        with path.open("ab") as file:
            file.write(bytes(more))

    assert read_small(path, 200, allowed=grow) == b"abc" + bytes(more)
    with pytest.raises(OSError, match="it has more than 4 bytes"):
        read_small(path, 4, allowed=grow)

"""Every malformed variation of a file that is right, made systematically: of its values, of its bytes, of what it is."""

from __future__ import annotations

import copy
import json
import os
import random
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

MARK = "INJECTED"
HUGE = 2**70
VALUES: tuple[Any, ...] = (
    None,
    "",
    "x" * 10_000,
    -1,
    0,
    HUGE,
    1.5,
    float("nan"),
    float("inf"),
    True,
    False,
    [],
    {},
    [None],
    [1, "a", {}],
    [["x", "y"]],
    {"a": {"b": 1}},
    "a\0b",
    f"a\n{MARK}",
    "../../etc/passwd",
    f"\x1b[2J\x1b[31m{MARK}",
    "\u202egnp.exe",
    f"a\r{MARK}",
    "null",
    "--option",
    "sha256:" + "0" * 64,
    "0" * 64,
)
KEYS = ("unknown", "", f"a\n{MARK}", f"\x1b[31m{MARK}", "k" * 10_000, "../x", "a\0b")
# More than any of ours nests, more than Python's parsers take, and more than its stack holds.
DEPTHS = (50, 300, 900, 1_100, 5_000, 100_000)
MOST_ITEMS = 2  # of a list: its entries are alike


def to_toml(value: dict[str, Any]) -> bytes:
    """Write TOML, in inline tables. It has no null: such a key is left out."""
    return "".join(
        f"{json.dumps(key)} = {_inline(item)}\n" for key, item in value.items() if item is not None
    ).encode()


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        items = (f"{json.dumps(key)} = {_inline(item)}" for key, item in value.items() if item is not None)
        return "{" + ", ".join(items) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_inline(item) for item in value if item is not None) + "]"
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value)


def to_json(value: Any) -> bytes:
    return json.dumps(value).encode()


def changed_values(value: Any) -> Iterator[Any]:
    """Give the value with each of its parts replaced by each odd value, left out, renamed, or with one more key."""
    for place in _places(value, ()):
        for odd in VALUES:
            yield _with(value, place, odd)
        if place and isinstance(_at(value, place[:-1]), dict):
            yield _without(value, place)
            yield _renamed(value, place)
        if isinstance(_at(value, place), dict):
            for key in KEYS:
                yield _with(value, (*place, key), "x")
        if isinstance(_at(value, place), list) and (items := _at(value, place)):
            yield _with(value, place, [*items, items[0]])
            yield _with(value, place, items[::-1])


def _places(value: Any, above: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    if above:
        yield above
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _places(item, (*above, key))
    elif isinstance(value, list):
        for number, item in enumerate(value[:MOST_ITEMS]):
            yield from _places(item, (*above, number))


def _at(value: Any, place: tuple[Any, ...]) -> Any:
    for step in place:
        value = value[step]
    return value


def _with(value: Any, place: tuple[Any, ...], item: Any) -> Any:
    made = copy.deepcopy(value)
    _at(made, place[:-1])[place[-1]] = item
    return made


def _without(value: Any, place: tuple[Any, ...]) -> Any:
    made = copy.deepcopy(value)
    del _at(made, place[:-1])[place[-1]]
    return made


def _renamed(value: Any, place: tuple[Any, ...]) -> Any:
    made = copy.deepcopy(value)
    table = _at(made, place[:-1])
    table[f"{place[-1]}x"] = table.pop(place[-1])
    return made


def changed_bytes(data: bytes, *, cuts: int = 60, flips: int = 150) -> Iterator[bytes]:
    """Give the bytes cut at many places, with one bit flipped at many places, in other encodings, and nested."""
    for number in range(cuts):
        yield data[: len(data) * number // cuts]
    seeded = random.Random(1)  # noqa: S311 - no secret
    for _ in range(flips):
        place = seeded.randrange(len(data))
        yield data[:place] + bytes([data[place] ^ (1 << seeded.randrange(8))]) + data[place + 1 :]
    text = data.decode("utf-8", errors="replace")
    yield b"\xef\xbb\xbf" + data
    yield data.replace(b"\n", b"\r\n")
    yield data.replace(b"\n", b"\r")
    yield text.encode("utf-16")
    yield text.encode("utf-32")
    yield data + b"\xff\xfe"
    yield b"\xc3\x28" + data
    yield data + b"\0"
    yield b"\0" * 4096
    yield data + data
    yield data[::-1]
    yield f"\x1b[2J{MARK}\n".encode() + data
    yield b"x" * 1_000_000
    yield b"\n" * 1_000_000
    for depth in DEPTHS:
        yield b"[" * depth + b"]" * depth
        yield b"a = " + b"[" * depth + b"]" * depth
        yield b'{"a":' * depth + b"1" + b"}" * depth
        yield b"a = " + b"{a = " * depth + b"1" + b"}" * depth
        yield b"a." * depth + b"a = 1"
    for digits in (20, 4_301, 100_000):
        yield b"a = " + b"9" * digits
        yield b"a = 0x" + b"f" * digits
        yield b'{"a": ' + b"9" * digits + b"}"
        yield b"a = 1e" + b"9" * digits


def changed_lines(data: bytes) -> Iterator[bytes]:
    """Give a text with each of its first lines left out, doubled, moved, or an odd one put in its place."""
    lines = data.split(b"\n")
    odd = [value.encode() for value in VALUES if isinstance(value, str)] + [
        b"#",
        b" ",
        b"\\",
        b"\xff",
        b"-r /etc/x",
    ]
    for number in range(min(len(lines), 12)):
        rest = lines[:number] + lines[number + 1 :]
        yield b"\n".join(rest)
        yield b"\n".join([*lines[:number], lines[number], *lines[number:]])
        yield b"\n".join([*rest, lines[number]])
        for line in odd:
            yield b"\n".join([*lines[:number], line, *lines[number + 1 :]])
            yield b"\n".join([*lines[:number], lines[number] + line, *lines[number + 1 :]])


def other_things(path: Path) -> Iterator[str]:
    """Put something that is no file, or no readable one, in the file's place, one thing after the other."""
    whole = path.read_bytes()
    makers: dict[str, Callable[[], object]] = {
        "nothing": lambda: None,
        "a folder": path.mkdir,
        "a pipe": lambda: os.mkfifo(path),
        "a device without end": lambda: path.symlink_to("/dev/zero"),
        "a terminal": lambda: path.symlink_to("/dev/tty"),
        "a link to nothing": lambda: path.symlink_to(path.with_name("nowhere")),
        "a link to itself": lambda: path.symlink_to(path),
        "a link to a folder": lambda: path.symlink_to(path.parent),
        "32 GB of nothing": lambda: _sparse(path, 32 << 30),
        "the memory of a process": lambda: path.symlink_to("/proc/self/mem"),
    }
    if os.geteuid() != 0:  # root reads whatever the mode says
        makers["a file that nobody may read"] = lambda: os.close(os.open(path, os.O_CREAT, 0))
    for name, make in makers.items():
        _remove(path)
        make()
        yield name
    _remove(path)
    path.write_bytes(whole)


def _sparse(path: Path, size: int) -> None:
    with path.open("wb") as file:
        file.truncate(size)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    else:
        path.unlink(missing_ok=True)

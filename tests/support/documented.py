"""The commands that the project's pages show: fenced `console` blocks, as their reader would type them.

A line that begins with `$ ` is typed, and so are those after it that begin with `> `; what follows is what is said then, with
`…` for what differs from time to time. Two comments, which a reader of the page doesn't see, tell what can't be seen:

    <!-- commands: published, my-bert -->    what this page's reader has at hand beside a clone (tests/support/hand.py)
    <!-- status: 2 -->                       the commands of the block that follows end with this status, and not with 0
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from checkout import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

# What was; its commands need not work any more.
_HISTORY = ("CHANGELOG.md",)
_FENCE = re.compile(r"^( *)(`{3,}|~{3,})(\S*)\s*$")
_GIVEN = re.compile(r"^<!-- commands: (.+) -->$", re.MULTILINE)
_STATUS = re.compile(r"^ *<!-- status: (\d+) -->$")
_REMARK = re.compile(r"(^|\s+)#\s.*$", re.MULTILINE)
LANGUAGE = "console"


@dataclass(frozen=True, kw_only=True)
class Typed:
    """A command of a page, and what the page shows of its end."""

    page: str
    line: int
    text: str
    said: tuple[str, ...] = ()
    status: int = 0

    @property
    def command(self) -> str:
        """Without the remarks of a shell."""
        return _REMARK.sub("", self.text).strip()

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}: {self.command}"


@dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced block of a page: the number of its first line, its language, its lines, and what stands before it."""

    line: int
    language: str
    lines: tuple[str, ...]
    before: str


def pages() -> list[Path]:
    """Give every page of the project that tells how something is done now."""
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.md"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    found = {ROOT / name for name in listed.split("\0") if name and name not in _HISTORY}
    return sorted(path for path in found if path.is_file())


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def given(page: Path) -> tuple[str, ...]:
    """What the page says that its reader has at hand.

    Raises:
        ValueError: it says so more than once.
    """
    found = _GIVEN.findall(page.read_text(encoding="utf-8"))
    if len(found) > 1:
        raise ValueError(f"{name_of(page)} says more than once what is at hand")
    return tuple(one.strip() for text in found for one in text.split(","))


def blocks(page: Path) -> Iterator[Block]:
    """Give a page's fenced blocks, whatever their language."""
    lines = page.read_text(encoding="utf-8").splitlines()
    number = 0
    before = ""
    while number < len(lines):
        opening = _FENCE.match(lines[number])
        if opening is None:
            before = lines[number] or before
            number += 1
            continue
        indent, fence, language = opening.groups()
        first = number = number + 1
        while number < len(lines) and lines[number].strip() != fence:
            number += 1
        inside = tuple(line.removeprefix(indent) for line in lines[first:number])
        yield Block(line=first + 1, language=language, lines=inside, before=before)
        before = ""
        number += 1


def commands(page: Path) -> list[Typed]:
    """Give what a page has its reader type, in order.

    Raises:
        ValueError: a block begins with something that isn't a command.
    """
    found: list[Typed] = []
    for block in blocks(page):
        if block.language == LANGUAGE:
            found += _typed(name_of(page), block)
    return found


def _typed(page: str, block: Block) -> Iterator[Typed]:
    status = _STATUS.match(block.before)
    starts = [number for number, line in enumerate(block.lines) if line.startswith("$ ")]
    if starts[:1] != [0]:
        raise ValueError(f"{page}:{block.line}: a block of commands must begin with one: `$ …`")
    for start, end in zip(starts, [*starts[1:], len(block.lines)], strict=True):
        after = start + 1
        while after < end and (block.lines[after].startswith("> ") or block.lines[after] == ">"):
            after += 1
        yield Typed(
            page=page,
            line=block.line + start,
            text="\n".join(line[2:] for line in block.lines[start:after]),
            said=tuple(line for line in block.lines[after:end] if line.strip()),
            status=int(status[1]) if status else 0,
        )


def is_said(shown: Sequence[str], said: str) -> bool:
    """Whether a command said what a page shows: `…` stands for anything, a line of it for any lines, a space for any."""
    pattern = ""
    for line in shown:
        words = " ".join(line.split())
        if words == "…":
            pattern += r"(?:.*\n)*?"
        else:
            pattern += r".*?".join(re.escape(part) for part in words.split("…")) + r"\n"
    spoken = "".join(f"{' '.join(line.split())}\n" for line in said.splitlines() if line.strip())
    return re.fullmatch(pattern, spoken) is not None

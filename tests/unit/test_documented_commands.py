"""Whether every command of the pages is run by a test, and how what they show is read and compared."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import pytest
from checkout import ROOT
from documented import Typed, blocks, commands, given, is_said, name_of, pages
from hand import AT_HAND, CLONE, COMPANY
from not_typed import ELSEWHERE, NEVER
from typing_in import type_in

if TYPE_CHECKING:
    from pathlib import Path

# Programs whose calls belong into blocks that are run.
_PROGRAMS = r"(?:\$ |\.venv/bin/)?(?:invoke|bertir|make|pip|git|docker|skopeo|curl|export|apt-get)\s"
# Files of other programs' languages, tables and figures: not typed by anybody.
_LANGUAGES = {"console", "python", "text", "toml", "json", "ini", "yaml", "{toctree}"}


def test_every_page_with_commands_says_what_is_at_hand() -> None:
    known = {CLONE, COMPANY, *AT_HAND}
    for page in pages():
        if commands(page):
            assert given(page), f"{name_of(page)} lacks a comment: <!-- commands: {CLONE} -->"
        assert set(given(page)) <= known, name_of(page)


def test_every_thing_that_can_be_at_hand_is_asked_for_by_a_page() -> None:
    asked = {thing for page in pages() for thing in given(page)}
    assert asked >= {COMPANY, *AT_HAND}


def test_what_is_typed_stands_in_blocks_that_are_run() -> None:
    for page in pages():
        fenced: set[int] = set()
        for block in blocks(page):
            assert block.language in _LANGUAGES, f"{name_of(page)}:{block.line}: {block.language!r}"
            fenced |= set(range(block.line, block.line + len(block.lines)))
            if block.language == "text":
                calls = [line for line in block.lines if re.match(_PROGRAMS, line)]
                assert calls == [], f"{name_of(page)}:{block.line}"
        for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
            if number not in fenced:
                assert not re.match(rf"(?: {{4,}}|\t){_PROGRAMS}", line), f"{name_of(page)}:{number}: {line}"


def test_what_is_not_typed_is_on_a_page_and_its_test_is_there() -> None:
    shown = {one.command for page in pages() for one in commands(page)}
    assert not ELSEWHERE.keys() & NEVER.keys()
    assert ELSEWHERE.keys() | NEVER.keys() <= shown
    for command, test in ELSEWHERE.items():
        path, _, name = test.partition("::")
        assert f"def {name}(" in (ROOT / path).read_text(encoding="utf-8"), command
    assert all(len(reason.split()) > 3 for reason in NEVER.values())


# how a page is read

PAGE = """\
# A page
<!-- commands: clone, my-bert -->

```console
$ first --option    # a remark
said
$ second \\
>   --more
$ third # one
```

1. in a list:

   <!-- status: 2 -->
   ```console
   $ fourth
   ```

```text
$ not typed
```
"""


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("documented.ROOT", tmp_path)
    path = tmp_path / "page.md"
    path.write_text(PAGE, encoding="utf-8")
    return path


def test_commands_are_read_with_their_lines_what_is_said_and_their_status(page: Path) -> None:
    first, second, third, fourth = commands(page)
    assert (first.command, first.line, first.said) == ("first --option", 5, ("said",))
    assert (second.text, second.said, second.status) == ("second \\\n  --more", (), 0)
    assert third.command == "third"
    assert (fourth.command, fourth.line, fourth.status) == ("fourth", 16, 2)
    assert given(page) == ("clone", "my-bert")


def test_a_block_that_begins_with_something_else_is_refused(page: Path) -> None:
    page.write_text("```console\nfirst\n```\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"page\.md:2: a block of commands must begin with one"):
        commands(page)


@pytest.mark.parametrize(
    ("shown", "said", "same"),
    [
        (["a  table of 3"], "a table   of 3\n\n", True),
        (["took … s"], "took 1.5 s\n", True),
        (["took … s"], "took 1.5 minutes\n", False),
        (["…", "the end"], "one\ntwo\nthe end\n", True),
        (["…", "the end"], "the end\n", True),
        (["the end"], "one\nthe end\n", False),
        (["the start"], "the start\nmore\n", False),
        (["a.b"], "axb\n", False),
    ],
)
def test_what_is_said_is_compared_but_for_what_is_left_open(shown: list[str], said: str, same: bool) -> None:
    assert is_said(shown, said) is same


# how they are typed


def typed(text: str, *said: str, status: int = 0) -> Typed:
    return Typed(page="page.md", line=1, text=text, said=said, status=status)


def test_one_shell_hears_all_commands_of_a_page(tmp_path: Path) -> None:
    ended = type_in(
        [
            typed("mkdir deep && cd deep && word=hello"),
            typed('echo $word >&2; printf \'from %s\' "$(basename "$PWD")"', "hello", "from deep"),
            typed("cat > file <<END\n$word\nEND"),
            typed("cat file; false", "hello", status=1),
        ],
        tmp_path,
        {"PATH": os.environ["PATH"]},
    )
    assert [one.objection for one in ended] == [""] * 4
    assert [one.status for one in ended] == [0, 0, 0, 1]


def test_another_status_and_other_words_are_objected_to(tmp_path: Path) -> None:
    ended = type_in([typed("false"), typed("echo one", "two")], tmp_path, {"PATH": os.environ["PATH"]})
    assert "page.md:1: false\nended with 1, and not with 0" in ended[0].objection
    assert "is to say:\ntwo\nand said:\n" in ended[1].objection


def test_a_shell_that_ends_too_early_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="ended with 3 before all was typed"):
        type_in([typed("exit 3"), typed("true")], tmp_path, {"PATH": os.environ["PATH"]})

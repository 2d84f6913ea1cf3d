"""What `--help` says of every task, by rule: an example that can be typed, every option's default, and its unit."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Any

import pytest
from checkout import ROOT
from invoke.parser import Parser

from docs.site.tasks_page import load_tasks

if TYPE_CHECKING:
    from pathlib import Path

    from invoke.collection import Collection
    from invoke.parser.context import ParserContext

# Options that take an amount, and what of: their help must say it.
UNITS = {
    "batch": "rows",
    "batches": "rows",
    "seq-len": "tokens",
    "seq-lens": "tokens",
    "jobs": "builds",
    "memory": "bytes",
    "older-than": "s, m, h, d, w",
    "max-size": "bytes",
    "times": "rebuild",
    "rounds": "repetitions",
}
# How a task reads an amount: each of these names the option.
READS = re.compile(r'\b(?:whole_number|duration|size)\(\s*"--([a-z-]+)"')


@pytest.fixture(scope="module")
def collection() -> Collection:
    return load_tasks(ROOT)


@pytest.fixture(scope="module")
def contexts(collection: Collection) -> dict[str, ParserContext]:
    found = {str(one.name): one for one in collection.to_contexts()}
    assert len(found) >= 18
    return found


def options(context: ParserContext) -> dict[str, Any]:
    # `--seq-len` is the parameter `seq_len` in Python, `--format` is `format_`.
    return {str(one.name).strip("_").replace("_", "-"): one for one in context.args.values()}


def test_every_task_ends_with_an_example_that_can_be_typed(
    collection: Collection, contexts: dict[str, ParserContext]
) -> None:
    for name in contexts:
        text = " ".join((collection[name].__doc__ or "").split())
        found = re.fullmatch(r"[A-Z].+ Example: `invoke ([^`]+)`\.", text)
        assert found, name
        [parsed] = Parser(contexts=contexts.values()).parse_argv(shlex.split(found[1]))
        assert parsed.name == name


def test_every_option_is_explained(contexts: dict[str, ParserContext]) -> None:
    for name, context in contexts.items():
        for option, argument in options(context).items():
            assert argument.help, (name, option)
            assert len(argument.help) > 8, (name, option)


def test_every_option_says_what_it_is_without_being_given(contexts: dict[str, ParserContext]) -> None:
    for name, context in contexts.items():
        for option, argument in options(context).items():
            if argument.kind is bool:
                assert argument.default is False, (name, option)
                continue
            default = re.search(r"\(default: ([^()]+)", argument.help)
            assert default or argument.help.startswith("needed: "), (name, option)
            if argument.default:
                assert default, (name, option)
                assert default[1].split(")")[0] == argument.default, (name, option)


def test_every_amount_says_its_unit(contexts: dict[str, ParserContext], root: Path) -> None:
    sources = [root / "tasks.py", *sorted((root / "src" / "bertir").glob("*.py"))]
    read = {option for path in sources for option in READS.findall(path.read_text(encoding="utf-8"))}
    assert {"batch", "seq-len", "times", "memory", "max-size", "older-than"} <= read
    assert read <= UNITS.keys()
    seen = set()
    for name, context in contexts.items():
        for option, argument in options(context).items():
            if option in UNITS:
                seen.add(option)
                assert UNITS[option] in argument.help, (name, option)
    assert seen == UNITS.keys()

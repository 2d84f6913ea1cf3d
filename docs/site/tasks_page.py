"""docs/reference/tasks.md, made from the tasks themselves: their help texts, options and defaults."""

from __future__ import annotations

import re
import signal
from importlib.util import module_from_spec, spec_from_file_location
from typing import TYPE_CHECKING

from invoke.collection import Collection

from bertir.installed import CHECKOUT_TASKS
from bertir.interruption import SIGNALS

if TYPE_CHECKING:
    from pathlib import Path

    from invoke.parser.argument import Argument
    from invoke.parser.context import ParserContext

PAGE = "docs/reference/tasks.md"
_HEAD = """\
# Tasks

This page is made from `tasks.py` by `invoke docs`, and a test compares it; it is what `invoke --help TASK` says.

In a checkout type `invoke`, of a virtualenv that `make` made (`. .venv/bin/activate`, or `.venv/bin/invoke`); an
[installed bertir](../package.md) has the same tasks as `bertir`. Each ends with an [exit status](../exit-statuses.md) of its own.
"""
_DEFAULT = re.compile(r" \(default: (.+)\)(?=[^()]*$)")
_DOCSTRING = re.compile(r"(.+?) Example: (`.+`)\.", re.DOTALL)


def load_tasks(root: Path) -> Collection:
    """Import a checkout's tasks.py, apart from the one that may be running.

    Raises:
        ImportError: it can't be.
    """
    path = root / "tasks.py"
    found = spec_from_file_location("tasks_of_the_page", path)
    if found is None or found.loader is None:
        raise ImportError(f"{path} can't be imported", path=str(path))
    module = module_from_spec(found)
    # From its import until a task begins, a signal ends the process: not this one.
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        found.loader.exec_module(module)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return Collection.from_module(module)


def tasks_page(tasks: Collection) -> str:
    """Give the page, in the order of tasks.py."""
    contexts = {str(one.name): one for one in tasks.to_contexts()}
    order = [name for name in _order(tasks) if name in contexts]
    parts = [
        _HEAD,
        "## All of them\n",
        _table(order, tasks),
    ]
    parts += [_section(name, tasks[name].__doc__ or "", contexts[name]) for name in order]
    return "\n".join(parts)


def _order(tasks: Collection) -> list[str]:
    written = {name: task.body.__code__.co_firstlineno for name, task in tasks.tasks.items()}
    return sorted(written, key=lambda name: written[name])


def _table(order: list[str], tasks: Collection) -> str:
    rows = ["| task | what it does |", "|---|---|"]
    for name in order:
        what, _ = _told(tasks[name].__doc__ or "")
        only = " (in a checkout alone)" if name in CHECKOUT_TASKS else ""
        rows.append(f"| [`{name}`](#{name}) | {_cell(what)}{only} |")
    return "\n".join(rows) + "\n"


def _section(name: str, text: str, context: ParserContext) -> str:
    what, example = _told(text)
    positional = "".join(f" {str(one.name).upper()}" for one in context.positional_args)
    lines = [
        f"## {name}\n",
        f"{what}\n",
        f"Usage: `invoke {name}{positional} [--options]`, for example {example}.\n",
    ]
    if options := list(dict.fromkeys(context.args.values())):
        lines += ["| option | what it says | without it |", "|---|---|---|"]
        lines += [_option(one) for one in options]
        lines.append("")
    return "\n".join(lines)


def _told(text: str) -> tuple[str, str]:
    found = _DOCSTRING.fullmatch(" ".join(text.split()))
    if found is None:
        raise ValueError(f"a task's docstring ends without an example: {text}")
    return found[1], found[2]


def _option(argument: Argument) -> str:
    name = str(argument.name).strip("_").replace("_", "-")
    said = str(argument.help)
    found = _DEFAULT.search(said)
    if found:
        said = said[: found.start()] + said[found.end() :]
    without = found[1] if found else "no" if argument.kind is bool else ""
    if said.startswith("needed: "):
        said, without = said.removeprefix("needed: "), "(needed)"
    value = "" if argument.kind is bool else " …"
    return f"| `--{name}{value}` | {_cell(said)} | {_cell(without)} |"


def _cell(text: str) -> str:
    """A text in a table's cell: what a shell or a file is told stands as code, and nothing reads as Markdown."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")

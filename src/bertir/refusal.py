"""What is said of a command line that can't be parsed, by `invoke` and by `bertir` alike."""

from __future__ import annotations

import ast
import contextlib
import os
import re
import signal
import sys
from typing import TYPE_CHECKING

from invoke.exceptions import Exit, ParseError

from bertir.installed import CHECKOUT_TASKS, as_called, is_installed
from bertir.nearest import did_you_mean
from bertir.redact import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from invoke.parser.context import ParserContext
    from invoke.program import Program


def explain_refusals(program: Program) -> None:
    """Let `program` say what it can't parse as bertir says everything: what is wrong, what was meant, status 2.

    invoke has no place to put that. It prints its own message, without a suggestion, and ends with 1, unless one of
    these methods raises `Exit`.
    """
    for name in ("parse_core", "parse_collection", "parse_tasks", "parse_cleanup"):
        setattr(program, name, _explained(program, getattr(program, name)))


def _explained(program: Program, parse: Callable[..., None]) -> Callable[..., None]:
    def explained(*arguments: object) -> None:
        with _explaining(program):
            parse(*arguments)

    return explained


@contextlib.contextmanager
def _explaining(program: Program) -> Iterator[None]:
    try:
        try:
            yield
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()  # help and lists are printed in here
    except ParseError as error:
        contexts = program.parser.contexts if hasattr(program, "parser") else {}
        message, advice = _refusal(str(error), error.context, contexts, program.initial_context)
        text = f"error: {message}\n{as_called(advice)}".rstrip()
        raise Exit("\n".join(map(printable, text.split("\n"))), 2) from error
    except BrokenPipeError as error:
        # Who read the help has gone; Python would say so once more when it closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise Exit(code=128 + signal.SIGPIPE) from error
    except ValueError as error:
        # Of `--list-depth x`, which nobody needs, and of `-T x` of invoke: the option isn't named.
        if "invalid literal for int" not in str(error):
            raise
        raise Exit(
            f"error: an option takes a whole number, and was given {_last_word(str(error))}", 2
        ) from error


def _refusal(
    text: str, context: ParserContext | None, contexts: Mapping[str, ParserContext], core: ParserContext
) -> tuple[str, str]:
    """Give a message and an advice for what invoke said."""
    task = context.name if context and context.name else ""
    if unknown := re.fullmatch(r"No idea what (.+) is!", text, re.DOTALL):
        token = _unquoted(unknown[1])
        if token.startswith("-"):
            return _no_option(token, task, context or core, core)
        return _no_task(token, task, contexts)
    help_ = f"`invoke --help {task}` says more." if task else "`invoke --help` says more."
    if flag := re.match(r"Flag <Argument: (\S+?)(?: .*)?> (needed|doesn't)", text):
        wrong = "needs a value, and was given none" if flag[2] == "needed" else "takes no value"
        return f"--{flag[1].strip('_').replace('_', '-')} {wrong}", help_
    if missing := re.search(r"did not receive required positional arguments: (.+)", text):
        return f"{task} needs {missing[1].replace(chr(39), '').upper()}, and was given none", help_
    return text, help_


def _last_word(text: str) -> str:
    return printable(text.rpartition(": ")[2])


def _unquoted(text: str) -> str:
    with contextlib.suppress(ValueError, SyntaxError):  # invoke writes some of them without escapes
        return str(ast.literal_eval(text))
    return text[1:-1]


def _no_option(token: str, task: str, context: ParserContext, core: ParserContext) -> tuple[str, str]:
    known = [name for one in (context, core) for name in one.flag_names() if name.startswith("--")]
    where, help_ = (f"{task} has", f"--help {task}") if task else ("there is", "--help")
    return f"{where} no option {token}", f"{did_you_mean(token, known)} `invoke {help_}` lists them.".lstrip()


def _no_task(token: str, task: str, contexts: Mapping[str, ParserContext]) -> tuple[str, str]:
    if is_installed() and token in CHECKOUT_TASKS:
        return (
            f"{token} works on the files of a checkout of bertir, and this is an installed package, which has none",
            f"In a checkout: invoke {token}",
        )
    after = f" (after {task}, which takes no such argument)" if task else ""
    message = f"there is no task named {token!r}{after}"
    return message, f"{did_you_mean(token, contexts)} `invoke --list` lists them.".lstrip()

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections import defaultdict

import pytest

import bertir
from bertir import errors
from bertir.errors import BertirError

STATUSES = {
    "BertirError": 1,
    "ConfigurationError": 2,
    "LockError": 3,
    "NoRoomError": 1,
    "StaleLockError": 3,
    "FetchError": 4,
    "DigestMismatchError": 102,
    "SourceError": 5,
    "PatchError": 5,
    "EngineError": 6,
    "ImageError": 6,
    "StepError": 7,
    "MissingOutputError": 7,
    "StepTimeoutError": 101,
    "VerificationError": 8,
    "ParityError": 8,
    "ReproducibilityError": 104,
}
PARENTS = {
    "ConfigurationError": "BertirError",
    "LockError": "BertirError",
    "NoRoomError": "BertirError",
    "StaleLockError": "LockError",
    "FetchError": "BertirError",
    "DigestMismatchError": "FetchError",
    "SourceError": "BertirError",
    "PatchError": "SourceError",
    "EngineError": "BertirError",
    "ImageError": "EngineError",
    "StepError": "BertirError",
    "MissingOutputError": "StepError",
    "StepTimeoutError": "StepError",
    "VerificationError": "BertirError",
    "ParityError": "VerificationError",
    "ReproducibilityError": "VerificationError",
}


def public_errors() -> list[type[BertirError]]:
    return [
        value
        for name, value in inspect.getmembers(errors, inspect.isclass)
        if issubclass(value, BertirError) and not name.startswith("_")
    ]


def every_error() -> list[type[BertirError]]:
    """All of the package, wherever they are defined."""
    for module in pkgutil.iter_modules(bertir.__path__):
        importlib.import_module(f"bertir.{module.name}")
    found: list[type[BertirError]] = []
    waiting: list[type[BertirError]] = [BertirError]
    while waiting:
        kind = waiting.pop()
        found.append(kind)
        waiting += kind.__subclasses__()
    return [kind for kind in found if kind.__module__.startswith("bertir.")]


def test_exit_statuses_are_those_of_the_design() -> None:
    assert {kind.__name__: kind.exit_status for kind in public_errors()} == STATUSES


def test_the_tree_of_errors_is_that_of_the_design() -> None:
    assert {
        kind.__name__: kind.__mro__[1].__name__ for kind in public_errors() if kind is not BertirError
    } == PARENTS


def test_a_status_of_its_own_is_shared_with_no_stranger() -> None:
    by_status = defaultdict(set)
    for kind in every_error():
        by_status[kind.exit_status].add(kind)
    for status, kinds in by_status.items():
        if status == BertirError.exit_status:
            continue  # what has no status of its own
        top = [
            kind
            for kind in kinds
            if not any(other is not kind and issubclass(kind, other) for other in kinds)
        ]
        assert len(top) == 1, f"{status} means {sorted(kind.__name__ for kind in top)}"


def test_no_error_takes_a_status_that_means_something_else_to_a_shell() -> None:
    for kind in every_error():
        assert 1 <= kind.exit_status <= 125, kind


@pytest.mark.parametrize("kind", public_errors(), ids=lambda kind: kind.__name__)
def test_every_public_error_says_what_it_is_for(kind: type[BertirError]) -> None:
    text = kind.__dict__.get("__doc__")  # its own: inspect.getdoc would give the parent's
    assert text
    assert text.strip()[0].isupper()
    assert text.strip().split("\n")[0].endswith(".")


def test_an_error_is_its_message_and_keeps_the_advice_apart() -> None:
    error = errors.FetchError("no such file", advice="try another")
    assert (str(error), error.advice) == ("no such file", "try another")
    assert errors.FetchError("no such file").advice == ""


@pytest.mark.parametrize(
    ("status", "kind"),
    [(2, "ConfigurationError"), (7, "StepError"), (104, "ReproducibilityError"), (99, "BertirError")],
)
def test_what_another_process_ended_with_becomes_the_error_of_that_status(status: int, kind: str) -> None:
    error = errors.error_of(status, "it said so", advice="do this")
    assert (type(error).__name__, str(error), error.advice) == (kind, "it said so", "do this")

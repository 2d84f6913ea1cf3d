"""By which name bertir says it is called; whether it is installed is seen in test_package.py, by a wheel."""

from __future__ import annotations

import sys

import pytest

from bertir.errors import ConfigurationError
from bertir.installed import as_called, is_installed, program_name, project_root


def test_a_checkout_is_none_that_is_installed(root: object) -> None:
    assert not is_installed()
    assert project_root() == root


@pytest.mark.parametrize(
    ("argv", "name"),
    [
        ("/usr/lib/python3/site-packages/invoke/__main__.py", "invoke"),
        ("/work/.venv/bin/invoke", "invoke"),
        ("inv", "invoke"),
        ("/work/.venv/bin/bertir", "bertir"),
        ("/work/bertir/setup.py", "invoke"),
    ],
)
def test_the_name_is_what_was_typed(monkeypatch: pytest.MonkeyPatch, argv: str, name: str) -> None:
    monkeypatch.setattr(sys, "argv", [argv, "build-ir"])
    assert program_name() == name
    assert ConfigurationError("x", advice="Run: invoke image").advice == f"Run: {name} image"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "`invoke models` lists them, `invoke fetch` gets them.",
            "`bertir models` lists them, `bertir fetch` gets them.",
        ),
        ("Run: invoke build-ir", "Run: bertir build-ir"),
        ("invoke --help TASK shows an example.", "bertir --help TASK shows an example."),
        ("first line\ninvoke gc", "first line\nbertir gc"),
        # What works on a checkout is called as there.
        ("`invoke lock`, or `invoke golden`", "`invoke lock`, or `invoke golden`"),
        ("Run: invoke audit --database DIR", "Run: invoke audit --database DIR"),
        # invoke as a word, a package, a file of somebody's.
        ("/home/me/invoke models/x is missing", "/home/me/invoke models/x is missing"),
        ("to invoke it", "to invoke it"),
        ("`invoke` 3.0", "`invoke` 3.0"),
        ("pip wheel of: invoke 3.0", "pip wheel of: invoke 3.0"),
    ],
)
def test_only_calls_are_renamed(monkeypatch: pytest.MonkeyPatch, text: str, told: str) -> None:
    monkeypatch.setattr(sys, "argv", ["/work/.venv/bin/invoke"])
    assert as_called(text) == text
    monkeypatch.setattr(sys, "argv", ["/work/.venv/bin/bertir"])
    assert as_called(text) == told

"""Fuzzing says how much it did: each test counts its cases, and the sum is printed at the end."""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MOST_MEMORY = 1 << 30  # that a case may take on top of what is there

_CASES = "cases"


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the developer's own."""
    for name in os.environ:
        if name.startswith(("BERTIR_", "GIT_")):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _little_memory() -> Iterator[None]:
    """What would fill the memory ends in a MemoryError, which is no error of bertir's."""
    taken = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (taken + MOST_MEMORY, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@pytest.fixture
def count(request: pytest.FixtureRequest) -> Callable[[int], None]:
    """Note how many cases a test went through."""
    # A property of the report, as another process may be what tells it.
    properties: list[tuple[str, object]] = request.node.user_properties
    return lambda cases: properties.append((_CASES, cases))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    cases: dict[str, int] = {}
    for report in terminalreporter.getreports("passed"):
        for name, number in report.user_properties:
            if name == _CASES:
                cases[report.nodeid] = cases.get(report.nodeid, 0) + int(str(number))
    if cases:
        terminalreporter.section("fuzzing")
        for name, number in cases.items():
            terminalreporter.write_line(f"{number:>8}  {name.rpartition('/')[2]}")
        terminalreporter.write_line(f"{sum(cases.values()):>8}  cases in all")

"""What all tests share: one store and one engine a session, golden digests."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

if TYPE_CHECKING:
    from collections.abc import Callable

# No deadline: how long an example takes says more of the machine than of the code.
settings.register_profile("bertir", deadline=None)
settings.load_profile("bertir")

# A CI runner may start this with SIGINT ignored (sh does, for what it starts by `&`), or SIGHUP (nohup), and so would be
# what tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

GOLDEN = Path(__file__).parent / "golden"
FIGURE = "figure"
# What these tests have in common is made once, in this order; and of two that use the engine at once one may take away
# what the other is at. So of several workers (`-n`) one runs all of them, beside the others.
ENGINE_TESTS = ("tests/e2e/", "tests/integration/")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rewrite-golden", action="store_true", help="write tests/golden anew instead of comparing"
    )


class EngineTogether(LoadScopeScheduling):  # type: ignore[misc]
    """Gives one worker all tests that use the engine, in their order, and whoever is free the others.

    (Of xdist 3.8, `--dist=loadgroup` groups nothing with pytest 9.2.)
    """

    def _split_scope(self, nodeid: str) -> str:
        return "engine" if nodeid.startswith(ENGINE_TESTS) else nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> EngineTogether:
    return EngineTogether(config, log)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Tell the figures that docs/reliability.md states."""
    for report in terminalreporter.getreports("passed"):
        for name, line in report.user_properties:
            if name == FIGURE:
                terminalreporter.write_line(f"figure: {line}")


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Note a figure, to be told after the tests: how many cases there were, how long they took."""
    properties: list[tuple[str, object]] = request.node.user_properties
    return lambda told: properties.append((FIGURE, told))


@pytest.fixture(scope="session")
def engine_environment() -> dict[str, str]:
    """The environment in which an engine answers. Without one: a failure when CI=true, else a skip."""
    from bertir.engine import connect
    from bertir.errors import EngineError

    environment = dict(os.environ)
    try:
        with connect(environment, folder=Path("/nonexistent")):
            return environment
    except EngineError as error:
        if environment.get("CI") == "true":
            pytest.fail(f"CI=true, and {error}")
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def store_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of this session, empty at its start."""
    return tmp_path_factory.mktemp("store")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, dict[str, str]], None]:
    """Compare digests with those of tests/golden/NAME.json, or write them there (`invoke golden`)."""

    def compare(name: str, found: dict[str, str]) -> None:
        path = GOLDEN / f"{name}.json"
        if request.config.getoption("--rewrite-golden"):
            path.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        expected = json.loads(path.read_text(encoding="utf-8"))
        assert found == expected, "rewrite them by `invoke golden` if the change is meant"

    return compare

"""Programs of several steps in processes that begin where one import has ended (docker/steps/together.py)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

STEPS = Path(__file__).parents[2] / "docker" / "steps"
# A module that takes note of each import of it, and holds what a process of it changes.
MODULE = """
import os
with open("imports", "a") as file:
    file.write(f"{os.getpid()}\\n")
kept = []
"""


class Steps:
    """Programs that are run together, and what is left of each."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._out = folder / "out"
        self._out.mkdir()
        (folder / "shared.py").write_text(MODULE, encoding="utf-8")

    def program(self, name: str, text: str) -> list[str]:
        (self._folder / f"{name}.py").write_text(text, encoding="utf-8")
        return ["--", name, f"{name}.py"]

    def start(self, *arguments: str, ready: str = "") -> subprocess.Popen[str]:
        own = {"BERTIR_READY": ready} if ready else {}
        return subprocess.Popen(
            [sys.executable, "-B", str(STEPS / "together.py"), *arguments],
            cwd=self._folder,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(self._folder), **own},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *arguments: str) -> tuple[int, str]:
        process = self.start(*arguments)
        said, _ = process.communicate(timeout=60)
        return process.returncode, said

    def ended(self, name: str) -> str:
        return (self._out / f".ended-{name}").read_text(encoding="ascii")

    def log(self, name: str) -> str:
        return (self._out / f".log-{name}").read_text(encoding="utf-8")

    def left(self) -> set[str]:
        return {path.name for path in self._out.iterdir()}

    def imports(self) -> int:
        return len((self._folder / "imports").read_text(encoding="ascii").splitlines())


@pytest.fixture
def steps(tmp_path: Path) -> Steps:
    return Steps(tmp_path)


TELLS = """
import os, shared, sys
print(__name__, sys.argv, shared.kept, os.nice(0), flush=True)
shared.kept.append(1)
os.write(2, b"to stderr\\n")
"""


def test_each_is_a_program_of_its_own_and_what_they_share_is_imported_once(steps: Steps) -> None:
    one, other = steps.program("one", TELLS), steps.program("other", TELLS)
    status, said = steps.run("--yields=other", "shared", "out", *one, "--flag=1", *other, "", "a b")
    assert (status, said) == (0, "")
    nice = os.nice(0)
    assert steps.log("one") == f"__main__ ['one.py', '--flag=1'] [] {nice}\nto stderr\n"
    assert steps.log("other") == f"__main__ ['other.py', '', 'a b'] [] {min(nice + 10, 19)}\nto stderr\n"
    assert steps.imports() == 1
    assert (steps.ended("one"), steps.ended("other")) == ("0\n", "0\n")
    assert steps.left() == {".log-one", ".log-other", ".ended-one", ".ended-other"}


@pytest.mark.parametrize(
    ("text", "ended", "log"),
    [
        ("import sys; sys.exit(3)", "3\n", ""),
        ("import sys; sys.exit('bertir-step: no')", "1\n", "bertir-step: no\n"),
        ("import os; os._exit(4)", "4\n", ""),
        ("import os; os.kill(os.getpid(), 9)", "137\n", ""),
        ("import os; os.abort()", "134\n", ""),
        ("print('before'); 1 / 0", "1\n", "ZeroDivisionError: division by zero\n"),
        ("def", "1\n", "SyntaxError: invalid syntax\n"),
    ],
)
def test_how_one_ends_is_told_of_it_alone(steps: Steps, text: str, ended: str, log: str) -> None:
    status, said = steps.run(
        "shared", "out", *steps.program("one", text), *steps.program("other", "print('well')")
    )
    assert (status, said) == (0, "")
    assert steps.ended("one") == ended
    assert steps.log("one").endswith(log)
    assert (steps.ended("other"), steps.log("other")) == ("0\n", "well\n")


OPEN = """
import os
opened = [os.readlink(f"/proc/self/fd/{number}") for number in range(64) if os.path.exists(f"/proc/self/fd/{number}")]
print(len({path for path in opened if path.startswith("pipe:")}), [path for path in opened if ".log" in path])
"""


def test_each_has_its_own_output_alone(steps: Steps) -> None:
    """Else the end of what one prints would come with the end of another one."""
    steps.run("shared", "out", *steps.program("one", OPEN), *steps.program("other", OPEN))
    assert steps.log("one") == steps.log("other") == "1 []\n"


@pytest.mark.parametrize(("printed", "kept"), [(4 << 20, 4 << 20), (40 << 20, 16 << 20)])
def test_a_log_is_there_when_the_end_is_told_and_is_cut(steps: Steps, printed: int, kept: int) -> None:
    text = f"import os\nfor _ in range({printed >> 20}): os.write(1, b'.' * {1 << 20})"
    assert steps.run("shared", "out", *steps.program("one", text)) == (0, "")
    assert (steps.ended("one"), len(steps.log("one"))) == ("0\n", kept)


def test_each_waits_for_its_own_inputs_and_ends_by_itself(steps: Steps, tmp_path: Path) -> None:
    waits = f"import sys; sys.path.insert(0, {str(STEPS)!r}); import said; said.run(lambda: print('goes on'))"
    process = steps.start(
        "shared", "out", *steps.program("one", waits), *steps.program("other", waits), ready="ready"
    )
    (tmp_path / "ready").touch()  # is nobody's
    (tmp_path / "ready-other").touch()
    until(lambda: ".ended-other" in steps.left())
    assert (steps.log("one"), steps.log("other")) == ("", "goes on\n")
    assert process.poll() is None
    (tmp_path / "ready-one").touch()
    assert process.wait(60) == 0
    process.communicate()
    assert (steps.log("one"), steps.ended("one")) == ("goes on\n", "0\n")


def until(done: Callable[[], bool]) -> None:
    begun = time.monotonic()
    while not done():
        assert time.monotonic() - begun < 60
        time.sleep(0.01)


def test_what_cannot_be_imported_is_said_by_the_process_that_imports_it_and_no_step_has_ended(
    steps: Steps,
) -> None:
    status, said = steps.run("no_such_module", "out", *steps.program("one", TELLS))
    assert status == 1
    assert said.endswith("ModuleNotFoundError: No module named 'no_such_module'\n")
    assert steps.left() == {".log-one"}


def test_a_log_that_is_there_already_is_not_written_into(steps: Steps, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").touch()
    (tmp_path / "out/.log-one").symlink_to(tmp_path / "elsewhere")
    status, said = steps.run("shared", "out", *steps.program("one", TELLS))
    assert status == 1
    assert "FileExistsError" in said
    assert (tmp_path / "elsewhere").read_bytes() == b""


def test_a_signal_that_ends_the_first_process_leaves_no_end_of_a_step_behind(steps: Steps) -> None:
    process = steps.start("shared", "out", *steps.program("one", "import time; time.sleep(1)"))
    until(lambda: ".log-one" in steps.left())
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert ".ended-one" not in steps.left()

"""What a person sees of a build: on a terminal, in a pipe, quiet, and with all that the steps print."""

from __future__ import annotations

import os
import pty
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from ground import Ground

pytestmark = pytest.mark.engine

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")
STEPS = ("import", "freeze", "reference", "convert", "verify")


@pytest.fixture
def store(ground: Ground, tmp_path: Path) -> dict[str, str]:
    """A store of its own, with the materials and no step done: others count what is in the ground's."""
    made = ground.checkout.invoke("build-ir")  # nothing to do, unless this file is run alone
    assert made.status == 0, made.stderr
    copy = tmp_path / "store"
    shutil.copytree(ground.store, copy)
    (copy / "identity").unlink(missing_ok=True)
    for step in STEPS:
        shutil.rmtree(copy / "records" / step, ignore_errors=True)
    return {"BERTIR_STORE": str(copy)}


def on_a_terminal(ground: Ground, *arguments: str, **environment: str) -> tuple[int, str]:
    """The exit status, and what came on the terminal that is standard error."""
    leader, follower = pty.openpty()
    given = {**os.environ, **ground.checkout.environment, "TERM": "xterm", "CI": "", **environment}
    process = subprocess.Popen(
        [sys.executable, "-m", "invoke", *arguments],
        cwd=ground.checkout.root,
        env=given,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=follower,
    )
    os.close(follower)
    said = b""
    with suppress(OSError):  # a terminal whose other end is closed ends in an error
        while chunk := os.read(leader, 1 << 16):
            said += chunk
    os.close(leader)
    return process.wait(), said.decode()


def test_on_a_terminal_each_step_has_a_row_that_is_drawn_again_and_the_cursor_comes_back(
    ground: Ground, store: dict[str, str]
) -> None:
    status, said = on_a_terminal(ground, "build-ir", **store)
    assert status == 0, said
    last = ESCAPE.sub("", said.rpartition("\x1b[2K")[2])
    for step in STEPS:
        assert re.search(rf"✓ {step} +\d+\.\d s done in \d+\.\d s", last), last
    assert "▸ freeze" in ESCAPE.sub("", said)
    assert said.rindex("\x1b[?25h") > said.rindex("\x1b[?25l")
    # The last line that a step printed stood beside it: TensorFlow's, which name their file.
    assert re.search(r"running in the container  \S", ESCAPE.sub("", said))


def test_a_step_that_fails_on_a_terminal_is_shown_as_stopped_and_the_message_comes_after(
    ground: Ground, store: dict[str, str]
) -> None:
    program = ground.checkout.root / "docker" / "steps" / "freeze.py"
    before = program.read_text(encoding="utf-8")
    program.write_text("raise SystemExit(3)\n", encoding="utf-8")
    status, said = on_a_terminal(ground, "build-ir", **store)
    program.write_text(before, encoding="utf-8")
    text = ESCAPE.sub("", said)
    assert status == 7, text
    assert re.search(r"✗ freeze +\d+\.\d s stopped", text)
    assert text.rindex("error: freeze: exit status 3") > text.rindex("✗ freeze")
    assert said.rindex("\x1b[?25h") > said.rindex("\x1b[?25l")


def test_on_a_terminal_each_build_of_a_matrix_has_a_row_while_it_is_at_work(
    ground: Ground, store: dict[str, str]
) -> None:
    arguments = ("build-matrix", "--heads", "pooled,classifier", "--jobs", "2")
    status, said = on_a_terminal(ground, *arguments, COLUMNS="120", **store)
    text = ESCAPE.sub("", said)
    assert status == 7, text  # there is no classifier in it
    assert re.search(r"▸ matrix +\d\.\d s 0 of 2 ended", text)
    # Whichever of its steps was at work when it was drawn.
    assert re.search(r"▸ tiny-bert/reshapable-fp16 +\d+\.\d s \w+: running in the container", text)
    assert re.search(r"[▸◌] tiny-bert/reshapable-fp16-classifier +\d+\.\d s \w+: \w", text)
    assert re.search(r"\] matrix +tiny-bert/reshapable-fp16: built in \d+\.\d s", text)
    last = ESCAPE.sub("", said.rpartition("\x1b[2K")[2])
    assert re.match(r"✓ matrix +\d+\.\d s 2 of 2 ended *\r", last), last
    assert said.rindex("\x1b[?25h") > said.rindex("\x1b[?25l")


def test_in_a_ci_job_a_terminal_gets_plain_lines(ground: Ground, store: dict[str, str]) -> None:
    status, said = on_a_terminal(ground, "build-ir", CI="true", **store)
    assert status == 0, said
    assert "\x1b" not in said
    assert re.search(r"\] freeze +done in", said.replace(" s]", "]"))


def test_quiet_tells_nothing_and_verbose_all_that_the_steps_print(
    ground: Ground, store: dict[str, str]
) -> None:
    verbose = ground.checkout.invoke("build-ir", "--verbose", **store)
    assert verbose.status == 0, verbose.stderr
    assert re.search(r"s\] convert +\| \[ SUCCESS \] XML file: /out/model\.xml", verbose.stderr)
    quiet = ground.checkout.invoke(
        "build-ir", "--quiet", "--output", "elsewhere", "--precision", "fp32", **store
    )
    assert (quiet.status, quiet.stderr) == (0, "")
    assert "model.xml" in quiet.stdout
    both = ground.checkout.invoke("build-ir", "--quiet", "--verbose")
    assert (both.status, both.stderr) == (2, "error: --quiet and --verbose exclude each other\n")

"""What a person sees of a build: on a terminal, in a pipe, quiet, and with all that the steps print."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ground import Ground

pytestmark = pytest.mark.engine

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")
STEPS = ("import", "freeze", "reference", "convert", "verify")


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
    ground: Ground,
) -> None:
    status, said = on_a_terminal(ground, "build-ir")
    assert status == 0, said
    last = ESCAPE.sub("", said.rpartition("\x1b[2K")[2])
    for step in STEPS:
        assert re.search(rf"✓ {step} +\d+\.\d s done in \d+\.\d s", last), last
    assert "▸ freeze" in ESCAPE.sub("", said)
    assert said.rindex("\x1b[?25h") > said.rindex("\x1b[?25l")
    # The last line that a step printed stood beside it: TensorFlow's, which name their file.
    assert re.search(r"running in the container  \S", ESCAPE.sub("", said))


def test_a_step_that_fails_on_a_terminal_is_shown_as_stopped_and_the_message_comes_after(
    ground: Ground,
) -> None:
    program = ground.checkout.root / "docker" / "steps" / "freeze.py"
    before = program.read_text(encoding="utf-8")
    program.write_text("raise SystemExit(3)\n", encoding="utf-8")
    status, said = on_a_terminal(ground, "build-ir")
    program.write_text(before, encoding="utf-8")
    text = ESCAPE.sub("", said)
    assert status == 7, text
    assert re.search(r"✗ freeze +\d+\.\d s stopped", text)
    assert text.rindex("error: freeze: exit status 3") > text.rindex("✗ freeze")
    assert said.rindex("\x1b[?25h") > said.rindex("\x1b[?25l")


def test_in_a_ci_job_a_terminal_gets_plain_lines(ground: Ground) -> None:
    status, said = on_a_terminal(ground, "build-ir", "--seq-len", "64", CI="true")
    assert status == 0, said
    assert "\x1b" not in said
    assert re.search(r"\] freeze +done in", said.replace(" s]", "]"))


def test_quiet_tells_nothing_and_verbose_all_that_the_steps_print(ground: Ground) -> None:
    verbose = ground.checkout.invoke("build-ir", "--verbose", "--seq-len", "32")
    assert verbose.status == 0, verbose.stderr
    assert re.search(r"s\] convert +\| \[ SUCCESS \] XML file: /out/model\.xml", verbose.stderr)
    quiet = ground.checkout.invoke("build-ir", "--quiet", "--output", "elsewhere", "--precision", "fp32")
    assert (quiet.status, quiet.stderr) == (0, "")
    assert "model.xml" in quiet.stdout
    both = ground.checkout.invoke("build-ir", "--quiet", "--verbose")
    assert (both.status, both.stderr) == (2, "error: --quiet and --verbose exclude each other\n")

"""The completion scripts that `invoke` and `bertir` print, sourced by real shells."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Complete = Callable[[str], list[str]]

PROGRAMS = ("invoke", "bertir")
# Takes what was typed in place of the user, as bash does when Tab is pressed, and prints what it would offer.
BASH = """
set -eu
source "$1"
line=$2
read -ra COMP_WORDS <<<"$line"
[[ $line == *' ' ]] && COMP_WORDS+=('')
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
[[ "$(complete -p "${COMP_WORDS[0]}")" =~ -F\\ ([^ ]+) ]]
"${BASH_REMATCH[1]}" "${COMP_WORDS[0]}" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""
FISH = 'source $argv[1]; complete --do-complete "$argv[2]"'


def environment() -> Mapping[str, str]:
    scripts = Path(sys.executable).parent
    return {**os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"}


def output(root: Path, *command: str) -> str:
    done = subprocess.run(
        command, cwd=root, env=environment(), check=False, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.fixture(params=PROGRAMS)
def program(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["bash", "fish"])
def complete(request: pytest.FixtureRequest, root: Path, tmp_path: Path, program: str) -> Complete:
    """Give what a shell offers after what was typed."""
    shell = str(request.param)
    found = shutil.which(shell)
    if found is None:
        pytest.skip(f"there is no {shell}")
    script = tmp_path / "completion"
    script.write_text(output(root, program, "--print-completion-script", shell), encoding="utf-8")
    driver = {"bash": [found, "-c", BASH, "bash"], "fish": [found, "--no-config", "-c", FISH]}[shell]

    def offered(typed: str) -> list[str]:
        return output(root, *driver, str(script), typed).split()

    return offered


def test_a_task_is_completed(complete: Complete, program: str) -> None:
    assert complete(f"{program} build-m") == ["build-matrix"]
    assert {"build-ir", "models", "verify"} <= set(complete(f"{program} "))


def test_an_option_of_the_task_is_completed(complete: Complete, program: str) -> None:
    assert complete(f"{program} build-ir --prec") == ["--precision"]
    assert {"--older-than", "--max-size"} <= set(complete(f"{program} gc --"))
    assert "--older-than" not in complete(f"{program} build-ir --")


def test_an_option_is_completed_after_others(complete: Complete, program: str) -> None:
    assert complete(f"{program} build-ir --precision fp32 --hea") == ["--head"]


def test_a_shell_without_a_script_is_refused_with_those_that_have_one(root: Path) -> None:
    done = subprocess.run(
        ["bertir", "--print-completion-script", "tcsh"],
        cwd=root,
        env=environment(),
        check=False,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith('error: Completion for shell "tcsh" not supported (options are: bash, fish')

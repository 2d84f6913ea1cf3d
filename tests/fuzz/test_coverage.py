"""Coverage-guided fuzzing of what reads archives, for a fixed number of runs from a fixed seed."""

from __future__ import annotations

import importlib.util
import os
import re
import resource
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from checkout import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable

RUNS = {"target_deb": 3_000, "target_wheel": 4_000, "target_tar": 1_200, "target_safetensors": 2_000}


def _unlimited() -> None:
    # libFuzzer maps more than it uses; it has a limit of its own.
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (hard, hard))


@pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None, reason="atheris has no wheel for this machine"
)
@pytest.mark.parametrize("name", RUNS)
def test_no_archive_ends_in_anything_but_an_error_of_bertirs(
    tmp_path: Path, name: str, count: Callable[[int], None]
) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    command = [
        sys.executable,
        str(Path(__file__).with_name(f"{name}.py")),
        str(corpus),
        f"-runs={RUNS[name]}",
    ]
    command += [
        "-seed=1",
        "-max_len=8192",
        "-timeout=20",
        "-rss_limit_mb=1024",
        f"-artifact_prefix={tmp_path}/",
    ]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT / "tests" / "support")},
        preexec_fn=_unlimited,
        check=False,
        capture_output=True,
        text=True,
        errors="replace",
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-6_000:]
    found = re.search(r"Done (\d+) runs", done.stderr)
    assert found
    assert int(found[1]) >= RUNS[name]
    count(int(found[1]))

"""Work that is killed everywhere: before and after each call that changes files, takes a lock, or reads from a server.

What lies in a file is whole, what is the user's is the old or the new, nothing temporary stays, and the next run goes on.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from checkout import ROOT
from file_server import serve_files
from google_zip import google_models, small_files, write_zip
from killable_work import MODEL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KINDS = ("SIGKILL", "SIGTERM", "SIGINT", "SIGINT twice")
# Of all kinds; those that there were when this was written, less what a change to the code may well take away.
LEAST_CASES = {"Build": 600, "Download": 250, "Bundle": 250, "Archive": 100}


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Path]:
    """In memory where that can be: a thousand cases wait for the disk otherwise."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else tmp_path) as folder:
        yield Path(folder)


def kill_everywhere(work: str, folder: Path, url: str = "") -> dict[str, int]:
    """Kill a piece of work at each of its points in each of the four ways; give the numbers of cases."""
    environment = dict(os.environ) | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'tests' / 'support'}"}
    program = str(ROOT / "tests" / "support" / "kill_points.py")
    children = {}
    for kind in KINDS:
        place = Path(tempfile.mkdtemp(dir=folder))
        command = [sys.executable, program, work, kind, str(place), "--url", url]
        children[kind] = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
    found = {}
    for kind, child in children.items():
        out, err = child.communicate()
        assert child.returncode == 0, err
        found[kind] = json.loads(out)
        assert found[kind]["missed"] <= found[kind]["cases"] / 20
    wrong = [f"{kind}: {line}" for kind, result in found.items() for line in result["wrong"]]
    assert not wrong, f"{len(wrong)} cases\n" + "\n".join(itertools.islice(wrong, 40))
    return {kind: result["cases"] for kind, result in found.items()}


@pytest.mark.parametrize("work", ["Build", "Bundle", "Archive"])
def test_killed_at_any_point_nothing_is_lost_nothing_is_left_and_the_next_run_goes_on(
    work: str, scratch: Path, figure: Callable[[str], None]
) -> None:
    cases = kill_everywhere(work, scratch)
    figure(f"kill points, {work.lower()}: {cases}")
    assert sum(cases.values()) >= LEAST_CASES[work]


def test_a_download_that_is_killed_at_any_point_goes_on(scratch: Path, figure: Callable[[str], None]) -> None:
    with serve_files() as server:
        path = google_models()[MODEL]["zip"]["url"].partition("//")[2].partition("/")[2]
        server.files[f"/{path}"] = write_zip(scratch / "served.zip", small_files(MODEL), "uncased")
        cases = kill_everywhere("Download", scratch, server.url)
    figure(f"kill points, download: {cases}")
    assert sum(cases.values()) >= LEAST_CASES["Download"]

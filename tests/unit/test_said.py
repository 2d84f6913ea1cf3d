"""How a step's process behaves, whatever its program (docker/steps/said.py)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

STEPS = Path(__file__).parents[2] / "docker" / "steps"
SIZE = 64 << 20
# How much of its memory it has still, in bytes, when it has given back a large piece of it.
PROGRAM = f"""
import ctypes, resource, sys
sys.path.insert(0, {str(STEPS)!r})
import said

def main():
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    piece = libc.malloc(ctypes.c_size_t({SIZE}))
    ctypes.memset(piece, 1, {SIZE})
    libc.free(ctypes.c_void_p(piece))
    with open("/proc/self/statm") as file:
        print(int(file.read().split()[1]) * resource.getpagesize())

said.run(main, keeps_memory=sys.argv[1] == "keeps")
"""


@pytest.mark.parametrize("keeps", [False, True])
def test_a_step_gives_memory_back_to_the_kernel_unless_it_is_to_keep_it(*, keeps: bool) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "keeps" if keeps else "gives"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert (int(done.stdout) > SIZE) == keeps

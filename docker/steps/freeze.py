"""Run the patched run_classifier.py, which freezes the graph, once TensorFlow is imported and the inputs are there."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

from said import run as run_program
from session import as_in_tensorflow_1

# Beside /step, where this program is, also where that isn't at the root.
SCRIPT = Path(__file__).parents[1] / "in/source/run_classifier.py"


def main() -> None:
    sys.path.insert(0, str(SCRIPT.parent))
    sys.argv[0] = str(SCRIPT)
    as_in_tensorflow_1(runpy.run_path)(str(SCRIPT), run_name="__main__")


if __name__ == "__main__":
    run_program(main, "numpy", "tensorflow.compat.v1")

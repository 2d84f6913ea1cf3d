"""What the targets share: valid files to begin with, and the loop."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import atheris

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def run(target: Callable[[bytes, Path], None], seeds: Callable[[Path], Iterable[bytes]]) -> None:
    """Fuzz with libFuzzer's options of the command line; a folder without files gets the seeds."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for argument in sys.argv[1:]:
            corpus = Path(argument)
            if not argument.startswith("-") and corpus.is_dir() and not any(corpus.iterdir()):
                for number, data in enumerate(seeds(folder)):
                    (corpus / f"seed-{number}").write_bytes(data)
        path = folder / "input"

        def once(data: bytes) -> None:
            path.write_bytes(data)
            target(data, path)

        atheris.Setup(sys.argv, once)
        atheris.Fuzz()  # ends the process

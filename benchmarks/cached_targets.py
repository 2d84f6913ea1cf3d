"""Realise one target again and again in one process, all of it in the store: `python -m benchmarks.cached_targets`.

It takes their number, the checkpoint and the folder to publish to; the store is BERTIR_STORE's.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from bertir import pipeline
from bertir.local_checkpoint import Options, find_checkpoint
from bertir.progress import SILENT
from bertir.report import Request
from bertir.session import Session, open_session

ROOT = Path(__file__).resolve().parents[1]


def realise_again(number: int, checkpoint: Path, output: Path) -> int:
    """Build so often; give how many steps had to be run."""
    opened = open_session(ROOT, os.environ)
    session = Session(layout=opened.layout, environment=opened.environment, progress=SILENT)
    ran = 0
    with session.builder() as builder:
        for _ in range(number):
            local = find_checkpoint(Options(path=checkpoint))
            build, _ = pipeline.build_ir(builder, Request(), output, local)
            ran += sum(not step.cached for step in build.steps)
    return ran


def main() -> None:
    number, checkpoint, output = sys.argv[1:]
    sys.exit(1 if realise_again(int(number), Path(checkpoint), Path(output)) else 0)


if __name__ == "__main__":
    main()

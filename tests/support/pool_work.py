"""Work for the pool of processes: small, and seen from outside by the files that it leaves in a folder.

As a program, `python pool_work.py FOLDER NUMBER JOBS`, it does so many pieces that wait to be ended.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from bertir.interruption import Interrupted, interruptions
from bertir.workers import Budget, do_all

PATIENCE = 60.0


@dataclass(frozen=True, kw_only=True)
class Piece:
    """One piece of work.

    Args:
        waits_for: another, which must have begun before this one ends.
    """

    folder: Path
    name: str
    memory: int = 1
    waits_for: str = ""


def beside(piece: Piece) -> list[str]:
    """Give the names of those that run when this one begins."""
    running = piece.folder / "running"
    running.mkdir(exist_ok=True)
    others = sorted(path.name for path in running.iterdir())
    (running / piece.name).touch()
    (piece.folder / f"{piece.name} has begun").touch()
    if piece.waits_for:
        _wait(piece.folder / f"{piece.waits_for} has begun")
    (running / piece.name).unlink()
    return others


def killed(piece: Piece) -> str:
    """When the one that it waits for has begun, end the process, if the piece is called so."""
    if piece.name == "beside":
        until_ended(piece)
    (piece.folder / f"{piece.name} has begun").touch()
    if piece.waits_for:
        _wait(piece.folder / f"{piece.waits_for} has begun")
    if piece.name == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    return piece.name


def failing(piece: Piece) -> None:
    """Raise when the other one has begun, which waits to be ended."""
    if piece.name == "beside":
        until_ended(piece)
    _wait(piece.folder / "beside has begun")
    raise ValueError(piece.name)


def told_to_end(piece: Piece) -> str:
    if piece.name == "told":
        os.kill(os.getpid(), signal.SIGTERM)
    return piece.name


def until_ended(piece: Piece) -> None:
    """Wait to be ended, and then clean up for as long as the folder has no file `enough`."""
    (piece.folder / f"{piece.name} has begun").touch()
    try:
        time.sleep(PATIENCE)
        (piece.folder / f"{piece.name} was not ended").touch()
    finally:
        (piece.folder / f"{piece.name} cleans up").touch()
        _wait(piece.folder / "enough")
        (piece.folder / f"{piece.name} is clean").touch()


def _wait(path: Path) -> None:
    until = time.monotonic() + PATIENCE
    while not path.exists():
        if time.monotonic() > until:
            raise TimeoutError(path)
        time.sleep(0.01)


def main() -> int:
    pieces = [Piece(folder=Path(sys.argv[1]), name=str(number)) for number in range(int(sys.argv[2]))]
    try:
        with interruptions():
            list(
                do_all(
                    until_ended, pieces, Budget(jobs=int(sys.argv[3]), memory=100), lambda piece: piece.memory
                )
            )
    except Interrupted as error:
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())

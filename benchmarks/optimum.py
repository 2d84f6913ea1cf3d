"""`optimum-cli export openvino`, in a virtualenv of its own that `requirements/optimum.lock` pins."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bertir.digest import Digest
from bertir.errors import FetchError
from bertir.host_lock import OPTIMUM_LOCK
from bertir.lock import read_lock
from bertir.requirements import parse_requirements

if TYPE_CHECKING:
    from bertir.progress import Progress
    from bertir.requirements import Requirement

SHOWN = 3


def pins(root: Path) -> tuple[Requirement, ...]:
    """Read the lock. Raises LockError."""
    path = root / "requirements" / OPTIMUM_LOCK
    return parse_requirements(read_lock(path), name=str(path)).pins


def virtualenv(root: Path, folder: Path, progress: Progress) -> Path:
    """Give the folder of programs of the virtualenv, made unless it is there and of this lock.

    Raises:
        FetchError: pip can't install it; what it says is in the message.
    """
    lock = root / "requirements" / OPTIMUM_LOCK
    pins(root)
    stamp = folder / "bench.stamp"
    wanted = str(
        Digest.of_json([sys.version, str(Path(sys.executable).resolve()), str(Digest.of_file(lock))])
    )
    if not stamp.is_file() or stamp.read_text(encoding="utf-8") != wanted:
        progress.say("optimum", f"making a virtualenv of {lock.name}, which takes some minutes and 1.6 GB")
        shutil.rmtree(folder, ignore_errors=True)
        _run(sys.executable, "-m", "venv", str(folder))
        # --no-deps: the lock is the whole of it, without torchvision, which nothing here needs.
        options = ("--quiet", "--no-deps", "--require-hashes", "--only-binary=:all:", f"--requirement={lock}")
        _run(str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install", *options)
        stamp.write_text(wanted, encoding="utf-8")
    return folder / "bin"


def export_command(programs: Path, model: Path, output: Path) -> list[str]:
    return [
        str(programs / "optimum-cli"),
        "export",
        "openvino",
        f"--model={model}",
        "--task=feature-extraction",
        "--weight-format=fp16",
        "--disable-convert-tokenizer",
        str(output),
    ]


def _run(*command: str) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        told = [
            line for line in done.stderr.splitlines() if line.strip() and not line.startswith("WARNING: ")
        ]
        raise FetchError(
            "can't make the virtualenv of optimum-cli: " + "; ".join(told[-SHOWN:]),
            advice="torch is pinned in its CPU build: pip must be configured for a place that has it.",
        )

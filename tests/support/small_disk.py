"""A disk of a few megabytes, to be filled: a tmpfs. Only root can mount one; CI does, so there it must."""

from __future__ import annotations

import contextlib
import os
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass(frozen=True)
class SmallDisk:
    path: Path

    def set(self, options: str) -> None:
        """Mount it anew with other options, as `size=8m` or `ro`; what is on it stays."""
        subprocess.run(["mount", "-o", f"remount,{options}", str(self.path)], check=True)

    @property
    def free(self) -> int:
        disk = os.statvfs(self.path)
        return disk.f_bavail * disk.f_frsize

    @contextlib.contextmanager
    def filled(self, left: int = 0) -> Iterator[None]:
        """Leave no more than so many bytes, as long as the block lasts."""
        filler = self.path / "filler"
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(1 << 12))
        os.truncate(filler, filler.stat().st_size - left)
        try:
            yield
        finally:
            filler.unlink()


@contextlib.contextmanager
def small_disk(path: Path, options: str) -> Iterator[SmallDisk]:
    """Mount one at the new folder `path`.

    Skips the test for who isn't root; in CI that is a failure.
    """
    if os.geteuid() != 0 and os.environ.get("CI") != "true":
        pytest.skip("only root can mount a small disk")
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "small-disk", str(path)], check=True)
    try:
        yield SmallDisk(path)
    finally:
        subprocess.run(["umount", str(path)], check=True)

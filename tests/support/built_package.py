"""The sdist and the wheel of a checkout, made by `build` with the locked backend, and a wheel laid out as pip lays it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Package:
    sdist: Path
    wheel: Path


def build_package(checkout: Path, output: Path, *options: str, **environment: str) -> Package:
    """Do what `make package` does, with the interpreter that runs the tests; no network."""
    epoch = re.search(
        r"^source_date_epoch = (\d+)$", (checkout / "docker" / "image.toml").read_text("utf-8"), re.MULTILINE
    )
    assert epoch
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(output), *options, "."],
        cwd=checkout,
        env={**os.environ, "SOURCE_DATE_EPOCH": epoch[1], **environment},
        check=False,
        capture_output=True,
        text=True,
        umask=int(environment.get("UMASK", "022"), 8),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    sdists, [wheel] = list(output.glob("*.tar.gz")), output.glob("*.whl")
    return Package(sdist=sdists[0] if sdists else wheel, wheel=wheel)


@dataclass(frozen=True, kw_only=True)
class Installed:
    """A wheel's files in a folder of their own; its dependencies are those of the tests."""

    site: Path

    @property
    def project(self) -> Path:
        return self.site / "bertir" / "project"

    def run(self, folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run `bertir` in a folder, as its console script does."""
        program = "import sys; sys.argv[0] = 'bertir'; from bertir.program import main; main()"
        return self.python(folder, program, *arguments, **environment)

    def python(
        self, folder: Path, program: str, *arguments: str, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        ended = subprocess.run(
            [sys.executable, "-c", program, *arguments],
            cwd=folder,
            env={
                **os.environ,
                "PYTHONPATH": str(self.site),
                "BERTIR_STORE": str(folder / "store"),
                **environment,
            },
            check=False,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        assert "Traceback" not in ended.stderr, ended.stderr
        return ended


def laid_out(wheel: Path, site: Path) -> Installed:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    return Installed(site=site)

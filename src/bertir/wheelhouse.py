"""Choose and fetch wheels: all use of uv (which resolves) and pip (which downloads) is here.

Which registry they ask is the machine's own configuration; nothing that is written names one.
"""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING

from bertir.authority import FOR_DOWNLOADS
from bertir.digest import Digest
from bertir.errors import DigestMismatchError, FetchError, LockError
from bertir.requirements import Requirement, parse_pins
from bertir.versions import normalised_name

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bertir.intent import PythonIntent

_LINES_OF_PIP_SHOWN = 6
_OLDEST_MANYLINUX_2 = 17  # PEP 600; what is older has names of its own, which pip derives from manylinux2014


def resolve_image_requirements(python: PythonIntent, folder: Path) -> tuple[Requirement, ...]:
    """Choose the newest versions for the image: wheels only, with the digests of all files of each version.

    Raises:
        LockError: uv is missing, or can't resolve (its message is in the error's).
    """
    options = [
        "--python-version",
        python.version,
        "--python-platform",
        f"{python.machine}-manylinux_{python.glibc.replace('.', '_')}",
        "--only-binary",
        ":all:",
    ]
    return _uv_compile(python.requirements, options, folder)


def resolve_host_requirements(
    requirements: Sequence[str], folder: Path, without: Sequence[str] = ()
) -> tuple[Requirement, ...]:
    """Choose the newest versions for a virtualenv of the host's, on any platform. Raises as above.

    What is in `without` counts as required by nothing.
    """
    options = ["--universal", "--python-version", "3.11"]
    if without:
        overrides = folder / "overrides.txt"  # of no Python that it resolves for
        overrides.write_text(
            "".join(f"{name} ; python_version < '3'\n" for name in without), encoding="utf-8"
        )
        options.append(f"--override={overrides}")
    return _uv_compile(requirements, options, folder)


def resolve_installation(requirements: Sequence[str], folder: Path) -> tuple[Requirement, ...]:
    """Choose what pip would install on this very machine, as it is configured: one file of each version; sorted.

    Unlike uv, pip looks wherever its configuration says, which is where a build of torch without CUDA may be.

    Raises:
        LockError: pip can't resolve (its message is in the error's).
    """
    source, report = folder / "requirements.in", folder / "report.json"
    source.write_text("".join(f"{line}\n" for line in requirements), encoding="utf-8")
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-input"]
    options = ["--dry-run", "--ignore-installed", "--only-binary=:all:", f"--report={report}"]
    run = subprocess.run(
        [*command, *options, f"--requirement={source}"], capture_output=True, text=True, check=False
    )
    if run.returncode != 0:
        raise LockError(f"pip can't resolve {', '.join(requirements)}:\n  " + "\n  ".join(_told(run.stderr)))
    found = [
        Requirement(
            name=normalised_name(item["metadata"]["name"]),
            version=item["metadata"]["version"],
            digests=(Digest(item["download_info"]["archive_info"]["hashes"]["sha256"]),),
        )
        for item in json.loads(report.read_text(encoding="utf-8"))["install"]
    ]
    return tuple(sorted(found, key=lambda pin: pin.name))


def _uv_compile(requirements: Sequence[str], options: Sequence[str], folder: Path) -> tuple[Requirement, ...]:
    if importlib.util.find_spec("uv") is None:
        raise LockError(
            "locking needs uv, which isn't in this virtualenv",
            advice="`make test` installs it; then: invoke lock",
        )
    source = folder / "requirements.in"
    source.write_text("".join(f"{line}\n" for line in requirements), encoding="utf-8")
    command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--generate-hashes", "--no-header"]
    run = subprocess.run(
        [*command, "--no-annotate", *options, str(source)], capture_output=True, text=True, check=False
    )
    if run.returncode != 0:
        raise LockError(f"uv can't resolve {', '.join(requirements)}:\n{run.stderr.strip()}")
    return parse_pins(run.stdout, name="uv's answer")


def pip_download(python: PythonIntent, requirements: Path, folder: Path, *, cache: bool = True) -> None:
    """Fetch the wheels of a requirements file into a folder, each checked against its sha256.

    Of several wheels whose digest is allowed, pip takes the one that fits the image's platform best.
    `cache=False` keeps it from what it has downloaded before.

    Raises:
        FetchError: pip fails (its message is in the error's).
        DigestMismatchError: the index has other files under these names.
        OSError: the disk of the folder is full.
    """
    command = [sys.executable, "-m", "pip", *download_arguments(python, requirements, folder)]
    command += [] if cache else ["--no-cache-dir"]
    # What pip unpacks lies beside what it downloads: on the store's disk, and gone with it even if pip is killed.
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="pip-") as scratch:
        environment = dict(os.environ) | {"TMPDIR": scratch}
        run = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if run.returncode != 0:
        raise _pip_failure(run.stderr)


def download_arguments(python: PythonIntent, requirements: Path, folder: Path) -> list[str]:
    """Give the arguments of `pip download` for the image's platform, whatever the host's is."""
    digits = python.version.replace(".", "")
    tags = [f"--abi={abi}" for abi in (f"cp{digits}", "abi3", "none")]
    newest = int(python.glibc.split(".")[1])
    # pip takes a platform literally: each older glibc that will do must be named.
    platforms = [f"manylinux_2_{minor}" for minor in range(newest, _OLDEST_MANYLINUX_2 - 1, -1)]
    tags += [f"--platform={platform}_{python.machine}" for platform in (*platforms, "manylinux2014", "linux")]
    return [
        "download",
        "--quiet",
        "--disable-pip-version-check",
        "--no-input",
        "--no-deps",
        "--require-hashes",
        "--only-binary=:all:",
        f"--python-version={python.version}",
        "--implementation=cp",
        *tags,
        f"--dest={folder}",
        f"--requirement={requirements}",
    ]


def _pip_failure(output: str) -> FetchError:
    for number in (errno.ENOSPC, errno.EDQUOT):
        if f"[Errno {number}]" in output:
            raise OSError(number, os.strerror(number))
    if "DO NOT MATCH THE HASHES" in output:
        lines = output.splitlines()
        told = [line.strip() for line in lines if " from " in line or "Expected" in line or "Got" in line]
        return DigestMismatchError(
            "the package index serves other bytes than the pinned ones:\n  " + "\n  ".join(told),
            advice="Nothing was kept. Ask whoever runs the index that pip is configured for (pip config list).",
        )
    advice = "Is pip's index reachable, and does it serve these files? See: pip config list"
    return FetchError(
        "pip can't get the pinned wheels:\n  " + "\n  ".join(_told(output)),
        advice=FOR_DOWNLOADS if "CERTIFICATE_VERIFY_FAILED" in output else advice,
    )


def _told(output: str) -> list[str]:
    """Give what pip says at its end, without the traceback that it has for a server in trouble."""
    before, _, traceback = output.partition("Traceback (most recent call last):")
    lines = [line for line in before.splitlines() if line.strip() and not line.startswith("ERROR: Exception")]
    said = [line for line in lines if not line.lstrip().startswith("WARNING: ")][-_LINES_OF_PIP_SHOWN:]
    # Of its warnings the last, which says why an index could not be read.
    said = [line for line in lines if line not in said][-1:] + said
    return said + traceback.strip().splitlines()[-1:]


def index_answers(name: str, seconds: float) -> None:
    """See that pip's index answers when it is asked for a package that it surely has.

    Raises:
        FetchError: it doesn't (pip's message is in the error's).
    """
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "index", "versions"]
    options = ["--retries=0", f"--timeout={seconds:g}"]
    run = subprocess.run([*command, *options, name], capture_output=True, text=True, check=False)
    if run.returncode != 0:
        raise FetchError(f"pip reaches no index: {_told(run.stderr)[-1]}")

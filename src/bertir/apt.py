"""Resolve and fetch Debian packages with the machine's own apt: it checks signatures and knows the dependencies.

apt is given a root of its own: an empty machine, one suite of one mirror, Debian's keys. Of the machine's
configuration it keeps how to reach the mirror (proxies, logins), and nothing that would choose other versions.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from bertir.digest import Digest
from bertir.errors import LockError
from bertir.lock import PACKAGE_FORMS, DebianPackage
from bertir.redact import shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bertir.intent import DebianIntent

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
# How to reach a mirror, as against what to take from it.
_TRANSPORT = re.compile(r"Acquire::(http|https|socks|tor|Retries|ForceIPv[46]|AllowRedirect)\b.*;")
_URI = re.compile(r"'(?P<uri>[^']+)' (?P<file>\S+) (?P<size>\d{1,15}) SHA256:(?P<sha256>[0-9a-f]{64})")


@dataclass(frozen=True, kw_only=True)
class ResolvedPackage:
    """A package with the file that apt fetched and checked."""

    package: DebianPackage
    path: Path


def resolve_packages(
    intent: DebianIntent, mirror: str, folder: Path, *, installed: str = ""
) -> tuple[ResolvedPackage, ...]:
    """Choose the newest versions in the suite of the packages and all that they depend on; fetch them into `folder`.

    Gives them sorted by name. `installed`: what is there already, as dpkg's status file has it; it isn't given.

    Raises:
        LockError: there is no apt, no keyring, or apt fails (its message is in the error's).
    """
    if shutil.which("apt-get") is None:
        raise LockError(
            "locking needs apt, and this machine has none",
            advice="Run `invoke lock` on a Debian or Ubuntu machine (a container will do).",
        )
    if not KEYRING.is_file():
        raise LockError(
            f"apt can't check Debian's signatures: there is no {KEYRING}",
            advice="Run: apt-get install debian-archive-keyring",
        )
    root = folder.absolute()
    _write_root(root, intent, mirror, installed)
    _apt(root, ["update", "--error-on=any"])  # apt calls an unreachable mirror a warning
    install = ["install", "--yes", *sorted(intent.packages)]
    listed = _apt(root, [*install, "--print-uris"])
    packages = parse_uris(listed, mirror)
    _apt(root, [*install, "--download-only"])
    archives = root / "cache" / "archives"
    return tuple(
        ResolvedPackage(package=package, path=archives / name) for name, package in sorted(packages.items())
    )


def parse_uris(listed: str, mirror: str) -> dict[str, DebianPackage]:
    """Read `apt-get --print-uris`: packages by the name of the file that apt fetches each into.

    Raises:
        LockError: a package comes from elsewhere, or without a sha256.
    """
    packages = {}
    for line in listed.splitlines():
        if not line.startswith("'"):
            continue
        found = _URI.fullmatch(line.strip())
        # name_version_architecture.deb, with the colon of an epoch escaped
        parts = unquote(found["file"]).removesuffix(".deb").split("_") if found else []
        pool_path = unquote(found["uri"].removeprefix(f"{mirror}/")) if found else ""
        forms = zip((*parts, pool_path), PACKAGE_FORMS.values(), strict=False)
        if not found or len(parts) != 3 or not all(re.fullmatch(form, text) for text, form in forms):  # noqa: PLR2004
            raise LockError(f"apt names a package that can't be pinned: {shown(line)[1:-1]}")
        name, version, architecture = parts
        packages[found["file"]] = DebianPackage(
            name=name,
            version=version,
            architecture=architecture,
            pool_path=pool_path,
            size=int(found["size"]),
            digest=Digest(found["sha256"]),
        )
    if not packages:
        raise LockError(f"apt resolved to no package at all:\n{listed.strip()}")
    return packages


def _write_root(root: Path, intent: DebianIntent, mirror: str, installed: str) -> None:
    for name in ("lists/partial", "cache/archives/partial", "etc"):
        (root / name).mkdir(parents=True)
    (root / "status").write_text(installed)
    (root / "etc" / "sources.list").write_text(
        f"deb [arch={intent.architecture} signed-by={KEYRING}] {mirror} {intent.suite} {intent.component}\n"
    )
    settings = [
        f'Dir::State "{root}";',
        f'Dir::State::lists "{root}/lists";',
        f'Dir::State::status "{root}/status";',
        f'Dir::Cache "{root}/cache";',
        f'Dir::Etc::sourcelist "{root}/etc/sources.list";',
        'Dir::Etc::sourceparts "/dev/null";',
        'Dir::Etc::preferences "/dev/null";',
        'Dir::Etc::preferencesparts "/dev/null";',
        'Dir::Etc::main "/dev/null";',
        'Dir::Etc::parts "/dev/null";',
        f'APT::Architecture "{intent.architecture}";',
        f'APT::Architectures {{ "{intent.architecture}"; }};',
        'APT::Install-Recommends "false";',
        'APT::Install-Suggests "false";',
        'APT::Sandbox::User "";',  # the folder may be one that only this user can read
        'Acquire::ForceHash "SHA256";',
        'Acquire::Languages "none";',
        'Acquire::AllowInsecureRepositories "false";',
        'APT::Get::AllowUnauthenticated "false";',
        'Debug::NoLocking "true";',  # the root is ours alone
        *transport_settings(_run(["apt-config", "dump"], os.environ)),
    ]
    (root / "apt.conf").write_text("\n".join(settings) + "\n")


def transport_settings(dump: str) -> list[str]:
    """Pick what `apt-config dump` says about reaching a mirror, leaving out what it says about choosing from it."""
    return [line for line in dump.splitlines() if _TRANSPORT.fullmatch(line)]


def _apt(root: Path, arguments: Sequence[str]) -> str:
    environment = {**os.environ, "APT_CONFIG": str(root / "apt.conf"), "LC_ALL": "C"}
    return _run(["apt-get", "--quiet=2", *arguments], environment)


def _run(command: Sequence[str], environment: dict[str, str] | os._Environ[str]) -> str:
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if run.returncode != 0:
        raise LockError(
            f"`{' '.join(command)}` failed with exit status {run.returncode}:"
            f"\n{run.stderr.strip() or run.stdout.strip()}",
            advice="Is the mirror reachable? BERTIR_DEBIAN_MIRROR chooses another one.",
        )
    return run.stdout

"""pip-audit, the Python Packaging Authority's own tool, asked about the locks: what a service knows of them today."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from packaging.utils import canonicalize_name

from bertir.audit import ADVISORIES, LOCKS, load_advisories
from bertir.errors import ConfigurationError, FetchError, VerificationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from bertir.audit import Advisory

SECONDS = 600


def ask(root: Path, service: str) -> dict[str, dict[str, list[str]]]:
    """Ask about every lock, and give the ids by place and package.

    Args:
        root: the checkout.
        service: URL of a service with OSV's interface; if empty, pip-audit's own choice.

    Raises:
        ConfigurationError: pip-audit isn't installed.
        FetchError: the service can't be asked, so nothing is known.
        VerificationError: it names an advisory that has no answer.
    """
    advisories = load_advisories(root)
    found: dict[str, dict[str, list[str]]] = {}
    unanswered = []
    for place, lock in LOCKS.items():
        for dependency in _pip_audit(root / lock, service):
            name, version = canonicalize_name(dependency["name"]), dependency["version"]
            for one in dependency["vulns"]:
                found.setdefault(place, {}).setdefault(name, []).append(one["id"])
                if not _answered(one, name, version, advisories):
                    unanswered.append(f"{one['id']} is about {name} {version} of the {place}")
    if unanswered:
        raise VerificationError(
            "\n".join(["advisories without an answer:", *unanswered]), advice=f"Answer them in {ADVISORIES}."
        )
    return found


def _answered(one: Mapping[str, Any], name: str, version: str, advisories: tuple[Advisory, ...]) -> bool:
    ids = {one["id"], *one["aliases"]}
    return any(
        advisory.affects(name, version) and ids & {advisory.id, *advisory.aliases} for advisory in advisories
    )


def _pip_audit(lock: Path, service: str) -> Iterator[Mapping[str, Any]]:
    command = [
        sys.executable,
        "-m",
        "pip_audit",
        "--requirement",
        str(lock),
        "--require-hashes",
        "--disable-pip",
    ]
    command += ["--format", "json", "--progress-spinner", "off", "--vulnerability-service", "osv"]
    if service:
        command += ["--osv-url", service]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=SECONDS, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired as error:
        raise FetchError(f"pip-audit gave no answer about {lock} in {SECONDS} s") from error
    if "No module named pip_audit" in done.stderr:
        raise ConfigurationError(
            "pip-audit isn't installed", advice="Make the development environment: make dev"
        )
    try:
        dependencies = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError) as error:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise FetchError(
            f"pip-audit can't ask about {lock}, so nothing is known of today: {last}",
            advice="`invoke audit` tells what was known on the day of its record.",
        ) from error
    return (one for one in dependencies if "skip_reason" not in one)

"""pip-audit, the Python Packaging Authority's own tool, asked about the locks: what a service knows of them today."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

from bertir.audit import ADVISORIES, LOCKS, load_advisories, load_pins
from bertir.errors import ConfigurationError, FetchError, VerificationError
from bertir.redact import printable
from bertir.versions import normalised_name

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bertir.audit import Advisory

SECONDS = 600


def ask(root: Path, service: str) -> dict[str, dict[str, list[str]]]:
    """Ask about every lock, and give the answered ids by place and package.

    Args:
        root: the checkout.
        service: URL of a service with OSV's interface; if empty, pip-audit's own choice.

    Raises:
        ConfigurationError: pip-audit isn't installed.
        FetchError: the service can't be asked about all of them, so nothing is known.
        VerificationError: it names an advisory that has no answer.
    """
    advisories, places = load_advisories(root), load_pins(root)
    found: dict[str, dict[str, list[str]]] = {}
    unanswered = []
    for place, pins in places.items():
        named = _pip_audit(root / LOCKS[place], service)
        for pin in pins.items():
            name, version = pin
            if pin not in named:
                continue  # for another machine, by its marker
            for ids in named[pin]:
                answer = next((one.id for one in advisories if _is_answer(one, pin, ids)), None)
                if answer is None:
                    unanswered.append(f"{printable(', '.join(ids))} is about {name} {version} of the {place}")
                else:
                    found.setdefault(place, {}).setdefault(name, []).append(answer)
    if unanswered:
        raise VerificationError(
            "\n".join(["advisories without an answer:", *unanswered]), advice=f"Answer them in {ADVISORIES}."
        )
    return found


def _is_answer(advisory: Advisory, pin: tuple[str, str], ids: Sequence[str]) -> bool:
    return advisory.affects(*pin) and not {advisory.id, *advisory.aliases}.isdisjoint(ids)


def _pip_audit(lock: Path, service: str) -> dict[tuple[str, str], list[list[str]]]:
    """Give what was asked about, by name and version, with the ids of each advisory, which has several."""
    command = [sys.executable, "-m", "pip_audit", "--require-hashes", "--disable-pip", "--format", "json"]
    command += ["--progress-spinner", "off", "--vulnerability-service", "osv"]
    command += ["--requirement", str(lock)]
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
        return {
            (normalised_name(one["name"]), one["version"]): [
                [vulnerability["id"], *vulnerability["aliases"]] for vulnerability in one["vulns"]
            ]
            for one in json.loads(done.stdout)["dependencies"]
            if "skip_reason" not in one
        }
    except (ValueError, KeyError, TypeError) as error:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise FetchError(
            f"pip-audit can't ask about {lock}, so nothing is known of today: {printable(last[:300])}",
            advice="`invoke audit` tells what was known on the day of its record.",
        ) from error

"""A checkout of an advisory database whose records are in OSV's form: which of them say that a pinned version is affected.

github.com/pypa/advisory-database and its forks have YAML, github.com/github/advisory-database has JSON. Only
records of PyPI's packages are looked at, and no withdrawn ones.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bertir.errors import ConfigurationError
from bertir.versions import is_between, normalised_name

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from pathlib import Path

SECONDS = 60
_NAME = re.compile(r"""["']?name["']?: *["']?([A-Za-z0-9._-]+)""")


@dataclass(frozen=True, kw_only=True)
class Database:
    """A checkout of advisories as it was read.

    Args:
        commit: its HEAD, and `date` that commit's own: what came later isn't known.
        records: how many there are in it of PyPI's packages that were asked for.
        affected: package, version, ids of the records that name that version.
    """

    name: str
    commit: str
    date: str
    records: int
    affected: Mapping[tuple[str, str], tuple[str, ...]]


def read_database(folder: Path, pins: Collection[tuple[str, str]]) -> Database:
    """Hold pins (name, version) against a checkout.

    Raises:
        ConfigurationError: it is no Git checkout, has no record about any of these packages, or one can't be read.
    """
    commit, date = _head(folder)
    names = {name for name, _ in pins}
    found: dict[tuple[str, str], set[str]] = {}
    records = 0
    for record in _records(folder, names):
        records += 1
        for name, version in pins:
            if is_affected(record, name, version):
                found.setdefault((name, version), set()).add(str(record["id"]))
    if not records:
        raise ConfigurationError(
            f"{folder} has no advisory about any of the pinned packages",
            advice="Name a checkout of a database in OSV's form: docs/security.md says which.",
        )
    return Database(
        name=folder.resolve().name,
        commit=commit,
        date=date,
        records=records,
        affected={pin: tuple(sorted(ids)) for pin, ids in sorted(found.items())},
    )


def is_affected(record: Mapping[str, Any], name: str, version: str) -> bool:
    """Say whether an OSV record names this version: among its `versions`, or by a range of its ecosystem."""
    return any(
        version in affected.get("versions", ())
        or any(is_between(scope["events"], version) for scope in _ranges(affected))
        for affected in record.get("affected", ())
        if _package(affected) == name
    )


def _package(affected: Mapping[str, Any]) -> str | None:
    package = affected.get("package", {})
    return normalised_name(package["name"]) if package.get("ecosystem") == "PyPI" else None


def _ranges(affected: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    return (scope for scope in affected.get("ranges", ()) if scope["type"] == "ECOSYSTEM")


def _records(folder: Path, names: Collection[str]) -> Iterator[Mapping[str, Any]]:
    for path in sorted(folder.rglob("*")):
        if path.suffix not in {".json", ".yaml"} or path.is_symlink() or not path.is_file():
            continue
        try:
            text = path.read_text(encoding="utf-8")
            if not any(normalised_name(name) in names for name in _NAME.findall(text)):
                continue
            record = _parsed(text, path.suffix)
            if record.get("withdrawn") or not any(
                _package(one) in names for one in record.get("affected", ())
            ):
                continue
            for affected in record["affected"]:
                for scope in _ranges(affected):
                    is_between(scope["events"], "0")
            str(record["id"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigurationError(f"{path} is no advisory in OSV's form: {error!r}") from error
        yield record


def _parsed(text: str, suffix: str) -> dict[str, Any]:
    if suffix == ".json":
        record = json.loads(text)
    else:
        try:
            import yaml  # noqa: PLC0415 - of the development environment; a build needs none
        except ImportError as error:
            raise ConfigurationError(
                "records in YAML need PyYAML, which is part of the development environment",
                advice="Make it: make dev",
            ) from error
        try:
            record = yaml.safe_load(text)
        except yaml.YAMLError as error:
            message = f"no YAML: {error}"
            raise ValueError(message) from error
    if not isinstance(record, dict):
        message = "not a mapping"
        raise TypeError(message)
    return record


def _head(folder: Path) -> tuple[str, str]:
    # A folder's own configuration may have git fetch what the folder lacks, by a program that it names.
    command = ["git", "-c", "protocol.allow=never", "-C", str(folder), "--no-pager", "log", "-1"]
    command += ["--no-show-signature", "--no-mailmap", "--format=%H %cs"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=True,
            timeout=SECONDS,
            stdin=subprocess.DEVNULL,
            env={**environment, "GIT_NO_LAZY_FETCH": "1", "GIT_TERMINAL_PROMPT": "0"},
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"{folder} is no Git checkout, so nobody can say of what day its advisories are",
            advice="Clone the database; docs/security.md says which.",
        ) from error
    commit, _, date = done.stdout.strip().partition(" ")
    return commit, date

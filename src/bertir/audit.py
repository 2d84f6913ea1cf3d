"""Known advisories about what is pinned, each with an answer. They are known as of a day, and that day is always said.

`security/advisories.toml` has the answers, by hand. `security/examined.json` says which pins were held against which
database, of which day, and what that named; `invoke audit --database` writes it. No build and no test asks a service.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bertir.errors import ConfigurationError, VerificationError
from bertir.lock import read_lock
from bertir.redact import printable
from bertir.requirements import parse_requirements
from bertir.small_file import read_small
from bertir.toml_text import read_toml
from bertir.versions import is_in, normalised_name, specifier
from bertir.whole_file import whole_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from bertir.osv import Database

LOCKS: Mapping[str, str] = {
    "image": "docker/requirements.lock",
    "host": "requirements/build.lock",
    "development": "requirements/dev.lock",
    "serving": "requirements/serving.lock",
}
ADVISORIES = "security/advisories.toml"
EXAMINED = "security/examined.json"
EXAMINE = "Hold them against a database: invoke audit --database DIR (docs/security.md says how to get one)"
# not-reached: no step calls the code in question. contained: a step may, and the container is what holds.
VERDICTS = ("not-reached", "contained")

Pins = dict[str, dict[str, str]]


@dataclass(frozen=True, kw_only=True)
class Advisory:
    """One entry of `security/advisories.toml`: what is known, in our words, and whether it matters here.

    Args:
        affected: version specifiers; a version is affected if it is in any of them.
        recorded: whether the database has it; otherwise it was found by hand, elsewhere.
    """

    id: str
    aliases: tuple[str, ...]
    package: str
    affected: tuple[str, ...]
    what: str
    verdict: str
    answer: str
    recorded: bool

    def affects(self, name: str, version: str) -> bool:
        return name == self.package and is_in(self.affected, version)


@dataclass(frozen=True, kw_only=True)
class Examined:
    """Which pins were held against which database, and the ids that it named, by place and package."""

    name: str
    commit: str
    date: str
    records: int
    pins: Pins
    found: dict[str, dict[str, list[str]]]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A pinned package that an advisory is about."""

    place: str
    package: str
    version: str
    advisory: Advisory


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What is known of the pins, and how old that knowledge is."""

    examined: Examined
    findings: tuple[Finding, ...]


def audit(root: Path) -> Audit:
    """Compare the locks with what was examined, and that with the answers.

    Raises:
        VerificationError: a pin wasn't examined, an advisory isn't answered, or an answer is about nothing.
        ConfigurationError, LockError: one of the files can't be read.
    """
    pins, examined, advisories = load_pins(root), load_examined(root), load_advisories(root)
    wrong = [*_not_examined(pins, examined), *_not_answered(examined, advisories), *_idle(pins, advisories)]
    if wrong:
        raise VerificationError(
            "\n".join(["the audit is not complete:", *map(printable, wrong)]), advice=EXAMINE
        )
    return Audit(examined=examined, findings=tuple(_findings(pins, advisories)))


def examine(root: Path, database: Database) -> None:
    """Write `security/examined.json` from what a database says of the pins.

    Raises:
        ConfigurationError: it can't be written.
    """
    pins = load_pins(root)
    found = {
        place: {
            name: list(database.affected[name, version])
            for name, version in versions.items()
            if (name, version) in database.affected
        }
        for place, versions in pins.items()
    }
    text = json.dumps(
        {
            "//": "Written by `invoke audit --database DIR`; don't edit.",
            "database": {
                "name": database.name,
                "commit": database.commit,
                "date": database.date,
                "records": database.records,
            },
            "pins": pins,
            "found": found,
        },
        indent=1,
        sort_keys=True,
    )
    with whole_file(root / EXAMINED, ConfigurationError) as file:
        file.write(text.encode() + b"\n")


def load_pins(root: Path) -> Pins:
    return {
        place: {
            normalised_name(pin.name): pin.version
            for pin in parse_requirements(read_lock(root / lock), name=str(root / lock)).pins
        }
        for place, lock in LOCKS.items()
    }


def load_examined(root: Path) -> Examined:
    """Read `security/examined.json`.

    Raises:
        ConfigurationError: it is missing or no such file.
    """
    path = root / EXAMINED
    try:
        data = json.loads(read_small(path))
        database = data["database"]
        return Examined(
            name=str(database["name"]),
            commit=str(database["commit"]),
            date=str(database["date"]),
            records=int(database["records"]),
            pins={str(place): dict(pins) for place, pins in data["pins"].items()},
            found={
                str(place): {str(name): [str(one) for one in ids] for name, ids in names.items()}
                for place, names in data["found"].items()
            },
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigurationError(f"can't read {path}: {error!r}", advice=EXAMINE) from error


def load_advisories(root: Path) -> tuple[Advisory, ...]:
    """Read `security/advisories.toml`.

    Raises:
        ConfigurationError: it is missing, no TOML, an entry lacks something or has more, or an id is there twice.
    """
    path = root / ADVISORIES
    try:
        entries = read_toml(path)["advisory"]
        advisories = tuple(_advisory(entry) for entry in entries)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigurationError(f"can't read {path}: {error!r}") from error
    names = [name for advisory in advisories for name in (advisory.id, *advisory.aliases)]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigurationError(f"{path} has {', '.join(twice)} twice")
    return advisories


def _advisory(entry: Mapping[str, Any]) -> Advisory:
    affected = tuple(specifier(text) for text in entry["affected"])
    known = {"id", "aliases", "package", "affected", "what", "verdict", "answer", "recorded"}
    if entry.keys() != known or entry["verdict"] not in VERDICTS or not affected:
        message = f"{entry.get('id')}: needs exactly {', '.join(sorted(known))}; verdict is one of {VERDICTS}"
        raise ValueError(message)
    return Advisory(
        id=entry["id"],
        aliases=tuple(entry["aliases"]),
        package=normalised_name(entry["package"]),
        affected=affected,
        what=" ".join(entry["what"].split()),
        verdict=entry["verdict"],
        answer=" ".join(entry["answer"].split()),
        recorded=bool(entry["recorded"]),
    )


def _not_examined(pins: Pins, examined: Examined) -> Iterator[str]:
    for place, versions in pins.items():
        known = examined.pins.get(place, {})
        for name, version in versions.items():
            if known.get(name) != version:
                yield f"{LOCKS[place]}: {name} {version} was not held against any advisory"
        for name in sorted(known.keys() - versions.keys()):
            yield f"{EXAMINED}: {name} is no longer in {LOCKS[place]}"


def _not_answered(examined: Examined, advisories: tuple[Advisory, ...]) -> Iterator[str]:
    recorded = {advisory.id for advisory in advisories if advisory.recorded}
    named = set()
    for place, names in examined.found.items():
        for name, ids in names.items():
            named |= set(ids)
            for one in ids:
                answer = next((advisory for advisory in advisories if advisory.id == one), None)
                version = examined.pins[place][name]
                if answer is None:
                    yield f"{one} is about {name} {version} of the {place}, and {ADVISORIES} has no answer"
                elif not answer.affects(name, version):
                    yield f"{ADVISORIES}: {one} doesn't say that {name} {version} is affected, and the database does"
    for one in sorted(recorded - named):
        yield f"{ADVISORIES}: the database names {one} for nothing that is pinned"


def _idle(pins: Pins, advisories: tuple[Advisory, ...]) -> Iterator[str]:
    used = {finding.advisory.id for finding in _findings(pins, advisories)}
    for advisory in advisories:
        if advisory.id not in used:
            yield f"{ADVISORIES}: {advisory.id} is about no pinned version of {advisory.package} any more"


def _findings(pins: Pins, advisories: tuple[Advisory, ...]) -> Iterator[Finding]:
    for place, versions in pins.items():
        for advisory in advisories:
            version = versions.get(advisory.package)
            if version is not None and advisory.affects(advisory.package, version):
                yield Finding(place=place, package=advisory.package, version=version, advisory=advisory)

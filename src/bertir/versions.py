"""Python versions as the packaging standards compare them: by specifiers, and by the events of OSV's ranges."""

from __future__ import annotations

from typing import TYPE_CHECKING

from packaging.markers import Marker
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def normalised_name(name: str) -> str:
    """Give a distribution's name as all its spellings are compared."""
    return str(canonicalize_name(name))


def specifier(text: str) -> str:
    """Give a specifier such as `>=3.13.0,<3.15.0` as it is; raises `ValueError` for anything else."""
    SpecifierSet(text)
    return text


def is_in(specifiers: Iterable[str], version: str) -> bool:
    """Say whether a version is in any of some specifiers; releases before a release count like any other."""
    return any(SpecifierSet(one).contains(version, prereleases=True) for one in specifiers)


def holds(marker: str, environment: Mapping[str, str]) -> bool:
    """Say whether a marker such as `sys_platform == 'win32'` holds in an environment, which must name all of it."""
    return Marker(marker).evaluate(dict(environment))


def is_between(events: Iterable[Mapping[str, str]], version: str) -> bool:
    """Evaluate an OSV range as its specification has it: sorted by version, and the last event before decides.

    Raises:
        ValueError: an event's version is none.
    """
    wanted = Version(version)
    inside = False
    for at, begins, kind in sorted(
        (_at(text), kind == "introduced", kind) for event in events for kind, text in event.items()
    ):
        if begins and wanted >= at:
            inside = True
        elif (kind == "fixed" and wanted >= at) or (kind == "last_affected" and wanted > at):
            inside = False
    return inside


def _at(text: str) -> Version:
    return Version("0.dev0" if text == "0" else text)  # "0" is before all that there is

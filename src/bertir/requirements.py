r"""Requirements files as pip takes them, each pin with its sha256, and the digest of what they were made from.

    # Written by `invoke lock`; don't edit. Made from: sha256:<64 hex digits>
    # Digest of what follows: sha256:<64 hex digits>
    name==version ; marker \
        --hash=sha256:<64 hex digits>

No index, no option, no URL: which registry serves the files is the machine's own configuration.
"""

from __future__ import annotations

import re

from bertir.digest import Digest
from bertir.errors import LockError
from bertir.frozen import dataclass
from bertir.redact import shown

_HEADER = "# Written by `invoke lock`; don't edit. Made from: "
_PINS = "# Digest of what follows: "
_MADE_FROM = re.compile(
    re.escape(_HEADER) + r"(sha256:[0-9a-f]{64})\n" + re.escape(_PINS) + r"(sha256:[0-9a-f]{64})\n"
)
# As PEP 508 has them; so neither can be an option of pip's, nor begin a line of its own.
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_VERSION = re.compile(r"[A-Za-z0-9.!+_-]+")
_PIN = re.compile(rf"({_NAME.pattern})==({_VERSION.pattern})(?: ?; ([^\\]+?))?")
_HASH = re.compile(r"--hash=(sha256:[0-9a-f]{64})")
_ADVICE = "Restore it (git checkout), or write it anew: invoke lock"


@dataclass(frozen=True, kw_only=True)
class Requirement:
    """A distribution at one version, for some machines if there is a marker, and the files that are accepted."""

    name: str
    version: str
    marker: str = ""
    digests: tuple[Digest, ...]


@dataclass(frozen=True, kw_only=True)
class Requirements:
    """A lock in pip's format. `parse_requirements(dump_requirements(x)) == x`."""

    made_from: Digest
    pins: tuple[Requirement, ...]

    @property
    def digest(self) -> Digest:
        """Digest of the pins, which the lock's second line has."""
        return _digest(self.pins)


def dump_requirements(requirements: Requirements) -> str:
    lines = []
    for pin in requirements.pins:
        marker = f" ; {pin.marker}" if pin.marker else ""
        lines.append(f"{pin.name}=={pin.version}{marker} \\")
        lines += [f"    --hash={digest} \\" for digest in pin.digests[:-1]]
        lines.append(f"    --hash={pin.digests[-1]}")
    return (
        f"{_HEADER}{requirements.made_from}\n{_PINS}{_digest(requirements.pins)}\n" + "\n".join(lines) + "\n"
    )


def _digest(pins: tuple[Requirement, ...]) -> Digest:
    return Digest.of_json(
        [[pin.name, pin.version, pin.marker, [str(digest) for digest in pin.digests]] for pin in pins]
    )


def parse_requirements(text: str, *, name: str) -> Requirements:
    """Read what `dump_requirements` wrote; `name` is for messages.

    Raises:
        LockError: a line is anything else, a pin has no sha256, or the first lines don't say what it was
            made from, or it was edited since.
    """
    made_from = _MADE_FROM.match(text)
    if not made_from:
        raise LockError(f"{name} doesn't begin with `{_HEADER}sha256:…`", advice=_ADVICE)
    pins = parse_pins(text, name=name)
    if Digest.from_str(made_from[2]) != _digest(pins):
        raise LockError(f"{name} was edited: it isn't what `invoke lock` wrote", advice=_ADVICE)
    return Requirements(made_from=Digest.from_str(made_from[1]), pins=pins)


def distribution_name(value: object) -> str:
    """Give a distribution's name as it is; raises `ValueError` for anything else."""
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        message = f"not a distribution's name: {shown(value)}"
        raise ValueError(message)
    return value


def distribution_version(value: object) -> str:
    """Give a version as it is; raises `ValueError` for anything else."""
    if not isinstance(value, str) or not _VERSION.fullmatch(value):
        message = f"not a version: {shown(value)}"
        raise ValueError(message)
    return value


def parse_pins(text: str, *, name: str) -> tuple[Requirement, ...]:
    """Read pins as uv and pip-tools write them. Raises as `parse_requirements` does."""
    pins = []
    for line in _logical_lines(text):
        specifier, *options = re.split(r"\s+(?=--)", line)
        pin = _PIN.fullmatch(specifier)
        hashes = [_HASH.fullmatch(option) for option in options]
        if not pin or not all(hashes):
            raise LockError(
                f"{name}: not a pin of the form name==version --hash=sha256:…: {shown(line)[1:-1]}",
                advice=_ADVICE,
            )
        if not hashes:
            raise LockError(f"{name}: {pin[1]}=={pin[2]} has no sha256", advice=_ADVICE)
        digests = tuple(Digest.from_str(found[1]) for found in hashes if found)
        pins.append(Requirement(name=pin[1], version=pin[2], marker=pin[3] or "", digests=digests))
    keys = [(pin.name, pin.marker) for pin in pins]
    if len(set(keys)) != len(keys):
        raise LockError(f"{name} pins something twice", advice=_ADVICE)
    return tuple(pins)


def _logical_lines(text: str) -> list[str]:
    joined = re.sub(r"\\\n", " ", text)
    lines = (line.strip() for line in joined.split("\n"))
    return [line for line in lines if line and not line.startswith("#")]

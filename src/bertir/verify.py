"""Verification of a published folder: are these the files that its checksums, its statement and its signature mean?

Nothing here needs an engine or the store. What is found is told all at once, each thing by its name.
"""

from __future__ import annotations

import base64
import errno
import json
import os
import re
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bertir import __version__
from bertir.digest import Digest
from bertir.errors import ConfigurationError, VerificationError
from bertir.provenance import BUILD_TYPE, PREDICATE_TYPE, STATEMENT_TYPE, provenance
from bertir.publish import LISTED, PAGE, PROVENANCE, REPORT, SIGNATURES, SUMS, VOLATILE
from bertir.redact import line, shown
from bertir.report import FORMAT
from bertir.small_file import read_small

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

# Of files that are read whole; ours are some 100 kB.
MOST_BYTES = 64 << 20
# Of the one that isn't small. What is larger isn't hashed: an hour's work for a file without a byte on the disk.
MOST_BYTES_OF_WEIGHTS = 16 << 30
MOST_LINES = 40  # of a message: a stranger's folder may have a million files
_MOST_SUMS_BYTES = 1 << 16
_LINE = re.compile(r"([0-9a-f]{64})  ([A-Za-z0-9_][A-Za-z0-9._-]*)")
# What `externalParameters` may hold; SLSA has verifiers refuse any other.
PARAMETERS = frozenset(
    {"model", "checkpoint", "recipe", "precision", "head", "batch", "seq_len", "task_data"}
)
# What each build has, whatever the recipe.
REQUIRED = frozenset({"recipe", "precision", "head"})


@dataclass(frozen=True, kw_only=True)
class Verified:
    """A published folder with which nothing is wrong.

    Args:
        subject: the digest of its SHA256SUMS, which is the digest of the whole.
        files: digest by name, of what SHA256SUMS lists.
        stated: the provenance, as it was read.
        statement: the same as JSON values.
        report: the report, as it was read.
        signed_by: the id of the key, if one was asked for.
    """

    folder: Path
    subject: Digest
    files: Mapping[str, Digest]
    stated: bytes
    statement: Mapping[str, Any]
    report: bytes
    signed_by: str | None

    @property
    def external_parameters(self) -> Mapping[str, Any]:
        parameters: Mapping[str, Any] = self.statement["predicate"]["buildDefinition"]["externalParameters"]
        return parameters


def verify_folder(folder: Path, key: Path | None = None, *, called: str = "") -> Verified:
    """See that every file is the one that SHA256SUMS lists, and that statement, report and sums fit each other.

    Args:
        folder: as `invoke build-ir` published it, wherever it lies now.
        key: a public key that must have signed the statement.
        called: what messages call it, if it isn't by its path.

    Raises:
        VerificationError: something is off; the message names each file and what is wrong with it.
        ConfigurationError: there is no such folder, or the key can't be read.
    """
    try:
        names = sorted(item.name for item in folder.iterdir())
    except OSError as error:
        raise ConfigurationError(f"can't read the folder {folder}: {error.strerror}") from error
    wrong: list[str] = [f"{name}: {what}" for name in names if (what := _not_a_file(folder / name))]
    readable = [name for name in names if not _not_a_file(folder / name)]
    if SUMS not in readable:
        wrong.append(f"{SUMS}: missing" if SUMS not in names else f"{SUMS}: not read")
        raise _refused(called or str(folder), wrong)
    sums = read(folder / SUMS, _MOST_SUMS_BYTES)
    listed = _parse_sums(sums, wrong)
    wrong += _unlisted(names, listed)
    wrong += _changed(folder, readable, listed)
    statement: dict[str, Any] = {}
    stated = report = b""
    if {REPORT, PROVENANCE} <= {*readable}:
        stated = read(folder / PROVENANCE)
        report = read(folder / REPORT)
        try:
            statement = _check_statement(stated, report, sums, wrong)
            wrong += _contradictions(report, listed)
            if PAGE in readable and not wrong:  # of what isn't bertir's report there is no page
                wrong += _other_page(report, read(folder / PAGE))
        except RecursionError:  # it was read, and then couldn't be told of
            wrong.append(f"{PROVENANCE} or {REPORT}: nested deeper than bertir writes")
    if SIGNATURES in readable:
        wrong += _envelope_faults(read(folder / SIGNATURES), stated)
    signed_by = None
    if key is not None:
        signed_by = _check_signature(folder, readable, stated, key, wrong)
    if wrong:
        raise _refused(called or str(folder), wrong)
    return Verified(
        folder=folder,
        subject=Digest.of_bytes(sums),
        files=listed,
        stated=stated,
        statement=statement,
        report=report,
        signed_by=signed_by,
    )


def _refused(folder: str, wrong: list[str]) -> VerificationError:
    told = [*map(line, wrong[:MOST_LINES])]
    if rest := len(wrong) - len(told):
        told.append(f"… and {rest} more")
    return VerificationError(
        f"{folder} isn't what was published there:\n  " + "\n  ".join(told),
        advice="Don't use it. Get it anew from where it came, or build it again: invoke build-ir",
    )


def _not_a_file(path: Path) -> str:
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        return f"a link to {os.readlink(path)}; bertir publishes files"  # noqa: PTH115 - told as it is
    if not stat.S_ISREG(mode):
        return "not a file"
    return ""


def read(path: Path, most: int = MOST_BYTES) -> bytes:
    """Give the bytes of a file that is small if it is bertir's.

    Raises:
        VerificationError: it is larger.
        ConfigurationError: it can't be read.
    """
    try:
        return read_small(path, most)
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise VerificationError(f"{path} is larger than any that bertir writes") from error
        raise ConfigurationError(f"can't read {path}: {error.strerror}") from error


def _parse_sums(sums: bytes, wrong: list[str]) -> dict[str, Digest]:
    listed: dict[str, Digest] = {}
    lines = sums.decode("utf-8", errors="replace").split("\n")
    for number, text in enumerate(lines[:-1], start=1):
        match = _LINE.fullmatch(text)
        if not match or match[2] in listed or match[2] in {SUMS, SIGNATURES, *VOLATILE}:
            wrong.append(f"{SUMS}: line {number} isn't one that bertir writes: {shown(text[:120])}")
        else:
            listed[match[2]] = Digest(match[1])
    if lines[-1] or list(listed) != sorted(listed):
        wrong.append(f"{SUMS}: its lines aren't whole and sorted, as bertir writes them")
    wrong += [f"{SUMS}: doesn't list {name}" for name in LISTED if name not in listed]
    wrong += [f"{SUMS}: lists {name}, which bertir doesn't publish" for name in listed if name not in LISTED]
    return listed


def _unlisted(names: list[str], listed: Mapping[str, Digest]) -> Iterator[str]:
    known = {*listed, SUMS, REPORT, PROVENANCE}
    yield from (f"{name}: missing" for name in sorted(known.difference(names)))
    yield from (
        f"{name}: not one of the published files" for name in names if name not in {*known, PAGE, SIGNATURES}
    )


def _changed(folder: Path, readable: list[str], listed: Mapping[str, Digest]) -> Iterator[str]:
    for name, expected in listed.items():
        if name not in readable:
            continue
        most = MOST_BYTES_OF_WEIGHTS if name == "model.bin" else MOST_BYTES
        try:
            if (folder / name).stat().st_size > most:
                yield f"{name}: larger than any that bertir publishes"
                continue
            found = Digest.of_file(folder / name)
        except OSError as error:
            yield f"{name}: can't be read: {error.strerror}"
            continue
        if found != expected:
            yield f"{name}: expected {expected}, found {found}"


def _check_statement(stated: bytes, report: bytes, sums: bytes, wrong: list[str]) -> dict[str, Any]:
    """Compare the statement with what it should say, as far as anybody without a key can."""
    try:
        statement = json.loads(stated)
        definition = statement["predicate"]["buildDefinition"]
        parameters = {*dict(definition["externalParameters"])}
        subject = statement["subject"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        wrong.append(f"{PROVENANCE}: not an in-toto statement with SLSA provenance ({_told(error)})")
        return {}
    for what, found, expected in (
        ("_type", statement.get("_type"), STATEMENT_TYPE),
        ("predicateType", statement.get("predicateType"), PREDICATE_TYPE),
        ("buildType", definition.get("buildType"), BUILD_TYPE),
    ):
        if found != expected:
            wrong.append(f"{PROVENANCE}: {what} is {shown(found)}, and expected is {shown(expected)}")
    if missing := sorted(REQUIRED - parameters):
        wrong.append(f"{PROVENANCE}: externalParameters lack {', '.join(missing)}")
    if unknown := sorted(parameters - PARAMETERS):
        wrong.append(f"{PROVENANCE}: unknown externalParameters: {', '.join(unknown)}")
    root = Digest.of_bytes(sums)
    if subject != [{"name": SUMS, "digest": {"sha256": root.hex}}]:
        wrong.append(f"{PROVENANCE}: its subject isn't this {SUMS}, {root}")
    wrong += _misfits(statement, stated, report, sums)
    return statement if isinstance(statement, dict) else {}


def _contradictions(report: bytes, listed: Mapping[str, Digest]) -> Iterator[str]:
    """Compare the files with those that the report tells the making of."""
    try:
        build = json.loads(report)
        told = {name: str(build[origin][name]) for name, origin in LISTED.items()}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        yield f"{REPORT}: not a report of bertir's ({_told(error)})"
        return
    for name, digest in told.items():
        if name in listed and digest != str(listed[name]):
            yield f"{name}: {REPORT} tells of the making of another one, {digest}"


def _other_page(report: bytes, shown: bytes) -> Iterator[str]:
    """Say whether the page shows another report; only the version of bertir that wrote one knows how it looked."""
    from bertir.page import page

    told = json.loads(report)
    if told.get("bertir") != __version__:
        return
    try:
        expected = page(told)
    except (LookupError, ValueError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        yield f"{REPORT}: not a report of bertir's ({_told(error)})"
        return
    if shown != expected:
        yield f"{PAGE}: not the page of {REPORT}"


def _envelope_faults(envelope: bytes, stated: bytes) -> Iterator[str]:
    """Say what is wrong with the signatures' file that anybody sees, without a key."""
    try:
        value = json.loads(envelope)
        payload = base64.b64decode(value["payload"], validate=True)
        signatures = [base64.b64decode(signature["sig"], validate=True) for signature in value["signatures"]]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        yield f"{SIGNATURES}: not a DSSE envelope ({_told(error)})"
        return
    if payload != stated:
        yield f"{SIGNATURES}: what was signed is another statement than the one beside it"
    if not signatures:
        yield f"{SIGNATURES}: nobody's signature is in it"


def _misfits(statement: Mapping[str, Any], stated: bytes, report: bytes, sums: bytes) -> Iterator[str]:
    try:
        format_, version = (value := json.loads(report))["format"], value["bertir"]
        if format_ != FORMAT:
            yield (
                f"{REPORT}: of format {shown(format_)}, and this bertir reads {FORMAT}:"
                f" verify it with the one that wrote it, {version}"
            )
            return
        expected = provenance(report, sums)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        yield f"{REPORT}: not a report of bertir's ({_told(error)})"
        return
    if stated == expected:
        return
    # The subject, and parameters that nobody knows, were told already; everything else is told here.
    for place, found, wanted in differences(statement, json.loads(expected), ""):
        yield f"{PROVENANCE}: {place[:300]} is {found}, and {REPORT} gives {wanted}"
        return
    yield f"{PROVENANCE}: not written as bertir writes it"


def differences(found: Any, wanted: Any, place: str) -> Iterator[tuple[str, str, str]]:  # noqa: ANN401 - JSON
    if isinstance(found, dict) and isinstance(wanted, dict):
        for name in sorted({*found, *wanted}):
            below = f"{place}.{name}".removeprefix(".")
            if name not in found:
                yield below, "missing", _short(wanted[name])
            elif name not in wanted:
                yield below, _short(found[name]), "nothing"
            else:
                yield from differences(found[name], wanted[name], below)
    elif isinstance(found, list) and isinstance(wanted, list) and len(found) == len(wanted):
        for position, (one, other) in enumerate(zip(found, wanted, strict=True)):
            yield from differences(one, other, f"{place}[{position}]")
    elif isinstance(found, list) and isinstance(wanted, list):
        yield place, f"{len(found)} entries", str(len(wanted))
    elif found != wanted or type(found) is not type(wanted):
        yield place, _short(found), _short(wanted)


def _check_signature(
    folder: Path, readable: list[str], stated: bytes, key: Path, wrong: list[str]
) -> str | None:
    from bertir.signature import SignatureError, load_public_key, signed_by

    public = load_public_key(key)
    if SIGNATURES not in readable:
        wrong.append(f"{SIGNATURES}: missing; nobody signed this build")
        return None
    try:
        return signed_by(read(folder / SIGNATURES), stated, public)
    except SignatureError as error:
        wrong.append(f"{SIGNATURES}: {error}")
        return None


def _short(value: Any) -> str:  # noqa: ANN401 - any JSON value
    text = json.dumps(value)
    return text if len(text) <= 100 else f"{text[:100]}…"  # noqa: PLR2004 - of a message


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:200]

"""What a package says of its licence, taken down and never guessed.

An SPDX id is given only where the words leave no choice; everything else keeps the name that its author gave, or is
known by the file that its text is in. What is read is what was declared: no text is compared with any licence.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

from debian.copyright import Copyright, Error
from debian.copyright import License as Stanza
from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

# python-debian remarks on small faults of a file that it reads all the same; nobody here can mend them.
logging.getLogger("debian").addHandler(logging.NullHandler())

LONGEST_NAME = 120  # beyond it, or over several lines, it is a text and not the name of one
_LONGEST_EXPRESSION = 2000
_UNSAID = frozenset({"", "unknown", "none", "n/a"})

# Debian's copyright-format 1.0 defines these names, and one SPDX id is the same licence. Left out, as they are not
# certain: MIT and X11 (many texts are called so), BSD-4-clause (SPDX knows two), Artistic and Perl, Python, W3C,
# public-domain, and any name without a version that needs one.
_DEBIAN = {
    "apache-1.0": "Apache-1.0",
    "apache-1.1": "Apache-1.1",
    "apache-2.0": "Apache-2.0",
    "apache-2": "Apache-2.0",  # the format says that a trailing dot-zero doesn't count
    "artistic-2.0": "Artistic-2.0",
    "artistic-2": "Artistic-2.0",
    "bsd-2-clause": "BSD-2-Clause",
    "bsd-3-clause": "BSD-3-Clause",
    "cc-by-3.0": "CC-BY-3.0",
    "cc-by-sa-3.0": "CC-BY-SA-3.0",
    "cc0-1.0": "CC0-1.0",
    "cddl-1.0": "CDDL-1.0",
    "expat": "MIT",
    "isc": "ISC",
    "mpl-1.1": "MPL-1.1",
    "mpl-2.0": "MPL-2.0",
    "zlib": "Zlib",
}
_GNU = re.compile(r"(AGPL|GPL|LGPL|GFDL-NIV)-([0-9](?:\.[0-9])?)(\+?)", re.IGNORECASE)
_GNU_VERSIONS = {
    "GPL": {"1.0", "2.0", "3.0"},
    "LGPL": {"2.0", "2.1", "3.0"},
    "AGPL": {"3.0"},
    "GFDL-NIV": {"1.1", "1.2", "1.3"},
}

# The field `License` is free text. Spelt like this it names one licence in one version.
_SPELT = {
    "apache 2.0": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache license, version 2.0": "Apache-2.0",
    "apache software license 2.0": "Apache-2.0",
    "2-clause bsd": "BSD-2-Clause",
    "2-clause bsd license": "BSD-2-Clause",
    "bsd 2-clause": "BSD-2-Clause",
    "bsd 2-clause license": "BSD-2-Clause",
    "3-clause bsd": "BSD-3-Clause",
    "3-clause bsd license": "BSD-3-Clause",
    "bsd 3-clause": "BSD-3-Clause",
    "bsd 3-clause license": "BSD-3-Clause",
    "isc license": "ISC",
    "mit license": "MIT",
    "the mit license": "MIT",
}
# So do ids of SPDX, but for words that say other things too (Intel, Fair, Ruby: no version in them), and for GPL-2.0
# and its like, which SPDX gave up because it doesn't say whether later versions are meant.
_WORDS = frozenset({"MIT", "ISC", "Zlib", "Unlicense"})
_GIVEN_UP = re.compile(r"(?:AGPL|GPL|LGPL|GFDL)-[0-9.]+\+?", re.IGNORECASE)

# Of the classifiers that PEP 639 lets a tool infer from: those that a wheel of ours may well have.
_CLASSIFIERS = {
    "License :: OSI Approved :: ISC License (ISCL)": "ISC",
    "License :: OSI Approved :: MIT License": "MIT",
    "License :: OSI Approved :: MIT No Attribution License (MIT-0)": "MIT-0",
    "License :: OSI Approved :: Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "License :: OSI Approved :: The Unlicense (Unlicense)": "Unlicense",
}

Kind = Literal["id", "expression", "name", "file"]


@dataclass(frozen=True, kw_only=True, order=True)
class Licence:
    """One licence.

    Args:
        kind: how it is known: by its SPDX id, by an SPDX expression (which then stands alone), by the name that
            the package gives it, or by nothing but the file or field that holds its text.
        value: that id, expression, name or place.
    """

    kind: Kind
    value: str


@dataclass(frozen=True, kw_only=True)
class Declared:
    """All licences that a package declares, and where it does; none if it says nothing."""

    licences: tuple[Licence, ...]
    source: str


# Debian


def of_copyright(text: str, path: str) -> Declared:
    """Read a package's copyright file: by Debian's machine-readable format, or else the file stands for itself.

    It speaks of the whole source package, so that a licence of a test or a script is among them. `path` is where
    the image has it.
    """
    unread = Declared(licences=(Licence(kind="file", value=f"/{path}"),), source=path)
    try:
        file = Copyright(text.splitlines(keepends=True), strict=False)
        stanzas = [file.header.license, *(paragraph.license for paragraph in file.all_files_paragraphs())]
    except (Error, ValueError, TypeError, KeyError, AttributeError):
        # It isn't in that format, or nearly: then it is for people. (The parser's errors are of many kinds.)
        return unread
    names = _synopses(cast("list[Stanza | None]", stanzas))
    if not file.header.known_format() or not names:
        return unread
    return Declared(licences=_combined(names), source=path)


def _synopses(stanzas: Iterable[Stanza | None]) -> list[str]:
    found = {" ".join(stanza.synopsis.split()): None for stanza in stanzas if stanza is not None}
    return [name for name in found if name.casefold() not in _UNSAID]


def _combined(names: Sequence[str]) -> tuple[Licence, ...]:
    """Each name's licence; one expression over all of them where some offer a choice and all are certain."""
    parts = [part for name in names for part in _conjuncts(name)]
    read = {part: _debian_expression(part) for part in parts}
    expressions = sorted({text for text in read.values() if text is not None})
    if len(expressions) > 0 and None not in read.values() and any(" " in text for text in expressions):
        bracketed = [f"({text})" if " OR " in text and len(expressions) > 1 else text for text in expressions]
        return (Licence(kind="expression", value=" AND ".join(bracketed)),)
    found = {
        Licence(kind="name", value=part) if text is None or " " in text else Licence(kind="id", value=text)
        for part, text in read.items()
    }
    return tuple(sorted(found))


def _conjuncts(name: str) -> list[str]:
    """Split `A and B`; whatever has `or`, a comma or an exception in it stays whole."""
    if re.search(r",|\b(?:or|with)\b", name, re.IGNORECASE):
        return [name]
    return [part for part in re.split(r"\s+and\s+", name, flags=re.IGNORECASE) if part]


def _debian_expression(name: str) -> str | None:
    parts = [_debian_id(part) for part in re.split(r"\s+or\s+", name, flags=re.IGNORECASE)]
    certain = [part for part in parts if part is not None]
    return " OR ".join(sorted(set(certain))) if len(certain) == len(parts) else None


def _debian_id(name: str) -> str | None:
    if (match := _GNU.fullmatch(name)) is None:
        return _DEBIAN.get(name.casefold())
    family, version, later = match[1].upper(), match[2], match[3]
    version = version if "." in version else f"{version}.0"
    if version not in _GNU_VERSIONS[family]:
        return None
    ending = "or-later" if later else "only"
    if family == "GFDL-NIV":
        return f"GFDL-{version}-no-invariants-{ending}"
    return f"{family}-{version}-{ending}"


# wheels


def of_metadata(metadata: Mapping[str, object], files: Sequence[str] = ()) -> Declared:
    """Read what a wheel's METADATA declares: License-Expression, else License, else the classifiers, else its files.

    Args:
        metadata: by the names of `packaging.metadata.RawMetadata`.
        files: licence files that the wheel has.
    """
    expression = str(metadata.get("license_expression") or "").strip()
    text = str(metadata.get("license") or "").strip()
    listed = metadata.get("classifiers")
    classifiers = [str(item).strip() for item in listed] if isinstance(listed, list) else []
    found: tuple[Licence, ...]
    if (known := _spdx(expression)) is not None or _is_name(expression):
        found = (known or Licence(kind="name", value=expression),)
        source = "License-Expression"
    elif _is_name(text):
        found, source = (_of_field(text),), "License"
    elif found := _of_classifiers(classifiers):
        source = "Classifier"
    elif text.casefold() not in _UNSAID:
        found, source = (Licence(kind="file", value="METADATA, field License"),), "License"
    else:
        found = tuple(Licence(kind="file", value=name) for name in sorted(files))
        source = "License-File" if found else ""
    return Declared(licences=found, source=source)


def _of_classifiers(classifiers: Iterable[str]) -> tuple[Licence, ...]:
    named = {item for item in classifiers if item.startswith("License :: ")} - {"License :: OSI Approved"}
    # Of several nobody knows whether all hold, or any: PEP 639 forbids to infer.
    if len(named) == 1 and (known := _CLASSIFIERS.get(min(named))) is not None:
        return (Licence(kind="id", value=known),)
    names = {item.rpartition(" :: ")[2] for item in named}
    return tuple(Licence(kind="name", value=name) for name in sorted(names) if _is_name(name))


def _is_name(text: str) -> bool:
    short = len(text) <= LONGEST_NAME and text.isprintable()
    return short and text.casefold() not in _UNSAID


def _of_field(text: str) -> Licence:
    if (spelt := _SPELT.get(" ".join(text.split()).casefold())) is not None:
        return Licence(kind="id", value=spelt)
    words = [word for word in re.split(r"[\s()]+", text) if word and word not in ("AND", "OR", "WITH")]
    sure = all(
        (word in _WORDS or re.search(r"[0-9]", word)) and not _GIVEN_UP.fullmatch(word) for word in words
    )
    # Written as SPDX writes it, or it is somebody's own word: `Bsd-3-clause OR MIT` is, `mit` isn't.
    found = _spdx(text) if sure else None
    return found if found is not None and found.value == text else Licence(kind="name", value=text)


def _spdx(text: str) -> Licence | None:
    if len(text) > _LONGEST_EXPRESSION:
        return None
    try:
        canonical = str(canonicalize_license_expression(text))
    except (InvalidLicenseExpression, ValueError, MemoryError, RecursionError):
        return None
    plain = re.fullmatch(r"(?!LicenseRef-)[A-Za-z0-9.-]+", canonical)
    return Licence(kind="id" if plain else "expression", value=canonical)

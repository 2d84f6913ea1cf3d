"""The fields that docs/reference/file-formats.md lists of each file, and those that a file has."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from checkout import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PAGE = ROOT / "docs" / "reference" / "file-formats.md"
_CODE = re.compile(r"`([^`]+)`")


def listed(heading: str) -> list[str]:
    """Give the fields below a heading of the page: what stands as code in the first column of its table.

    Raises:
        KeyError: there is no such heading.
    """
    text = PAGE.read_text(encoding="utf-8")
    found = re.search(rf"^##+ {re.escape(heading)}\n(.*?)(?=^##|\Z)", text, re.MULTILINE | re.DOTALL)
    if found is None:
        raise KeyError(heading)
    rows = [line.split(" | ")[0] for line in found[1].splitlines() if line.startswith("| `")]
    return [name for row in rows for name in _CODE.findall(row)]


def fields(value: Any, above: str = "") -> Iterator[str]:
    """Give the fields of a document, as the page writes them; one that is empty has none below it."""
    if isinstance(value, dict):
        for name, below in value.items():
            yield from fields(below, f"{above}.{name}" if above else str(name))
    elif isinstance(value, list):
        for below in value:
            yield from fields(below, f"{above}[]")
    else:
        yield above


def compare(heading: str, documents: Iterable[Any]) -> tuple[set[str], set[str]]:
    """Give the fields that the page lacks, and those that none of the documents has."""
    names = listed(heading)
    patterns = {name: re.compile(".+".join(re.escape(part) for part in name.split("…"))) for name in names}
    there = {field for document in documents for field in fields(document)}
    lacking = {field for field in there if not any(one.fullmatch(field) for one in patterns.values())}
    unseen = {name for name, one in patterns.items() if not any(one.fullmatch(field) for field in there)}
    return lacking, unseen

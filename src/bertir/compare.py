"""Where two builds differ first: the stage, the file, the byte.

Nothing in a file is interpreted here but JSON that bertir wrote itself; what a byte belongs to is looked up in the
container (place.py).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bertir.digest import Digest
from bertir.publish import PAGE, PROVENANCE, REPORT
from bertir.report import REFERENCE, VERIFY

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

PUBLISHED = "published"
CHUNK = 1 << 20

# The one list of what two equal builds may say otherwise, by file of the published directory; `*` is every key or item.
# Times and logs are of the run. The figures of parity are measured: how TensorFlow and OpenVINO round depends on the
# processor that they run on, and says nothing of the bits that were built (and that are compared themselves).
VOLATILE: Mapping[str, tuple[str, ...]] = {
    REPORT: (
        "steps.*.facts",
        "steps.reference.outputs",
        "steps.verify.derivation",  # one of its inputs is what the step before it measured
        "steps.verify.key",
        "steps.verify.outputs",
        "parity.max_abs_difference",
        "parity.max_abs_difference_rounded",
        "parity.discrimination",
        "parity.shapes.*.max_abs_difference",
        "parity.shapes.*.max_abs_difference_rounded",
        "parity.shapes.*.mean_abs_difference",
        "parity.shapes.*.min_cosine",
    ),
    # Who ran it, when, and what came of it by the way; everything that was built is told above, or in the sums.
    PROVENANCE: ("predicate.runDetails",),
}
# What these steps give is measured, not built: it is listed, and not compared.
MEASURED = frozenset({REFERENCE, VERIFY})


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What one stage gave.

    Args:
        cached: it was in the store, and didn't run.
        files: by name; a file's object is in the rebuild's store.
    """

    name: str
    cached: bool
    files: Mapping[str, Digest]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """What differs first.

    Args:
        offset: of the first byte; None where one of the two isn't there.
        place: what that byte belongs to, such as a node of a graph or a layer of an IR, if that was found out.
    """

    stage: str
    file: str
    expected: Digest | None
    found: Digest | None
    offset: int | None = None
    place: str = ""

    def to_json(self) -> dict[str, Any]:
        return {
            "stage": self.stage,
            "file": self.file,
            "expected": str(self.expected) if self.expected else None,
            "found": str(self.found) if self.found else None,
            "offset": self.offset,
            "place": self.place or None,
        }

    def __str__(self) -> str:
        if self.expected is None:
            return f"{self.stage}: {self.file} is new"
        if self.found is None:
            return f"{self.stage}: {self.file} is not there"
        where = f" at byte {self.offset}" if self.offset is not None else ""
        return f"{self.stage}: {self.file} differs{where}{f', {self.place}' if self.place else ''}"


def first_difference(expected: Stage, found: Stage) -> Difference | None:
    """Give the first file, by name, of which only one is there, or whose digests differ."""
    if expected.name in MEASURED:
        return None
    for name in sorted({*expected.files, *found.files}):
        left, right = expected.files.get(name), found.files.get(name)
        if left != right:
            return Difference(stage=expected.name, file=name, expected=left, found=right)
    return None


def first_offset(left: Path, right: Path) -> int | None:
    """Give the offset of the first byte that differs, or that only one of them has; None if they are equal."""
    begin = 0
    with left.open("rb") as one, right.open("rb") as other:
        while True:
            first, second = one.read(CHUNK), other.read(CHUNK)
            if first != second:
                shared = min(len(first), len(second))
                return begin + next(
                    (index for index in range(shared) if first[index] != second[index]), shared
                )
            if not first:
                return None
            begin += len(first)


def published_stage(folder: Path) -> Stage:
    """Give the published directory as a stage: of a file that holds something volatile, without it."""
    files = {}
    for path in sorted(folder.iterdir()):
        if path.name == PAGE:  # says what the report says
            continue
        if path.name in VOLATILE:
            files[path.name] = Digest.of_bytes(settled(path.name, path.read_bytes()))
        else:
            files[path.name] = Digest.of_file(path)
    return Stage(name=PUBLISHED, cached=False, files=files)


def settled(name: str, data: bytes) -> bytes:
    """Give a JSON file of the published directory without what is volatile in it, a line an item."""
    value: Any = json.loads(data)
    for path in VOLATILE[name]:
        _remove(value, path.split("."))
    return json.dumps(value, indent=1, sort_keys=True).encode() + b"\n"


def _remove(value: Any, path: Sequence[str]) -> None:  # noqa: ANN401 - any JSON value
    head, *rest = path
    for key, item in _matching(value, head):
        if rest:
            _remove(item, rest)
        else:
            del value[key]


def _matching(value: Any, key: str) -> list[tuple[Any, Any]]:  # noqa: ANN401 - any JSON value
    """Give the keys and items that one part of a path means. In a list, a name is that of an item (`steps.verify`)."""
    if isinstance(value, dict):
        return list(value.items()) if key == "*" else [(key, value[key])] if key in value else []
    if isinstance(value, list):
        named = [
            item for item in enumerate(value) if isinstance(item[1], dict) and item[1].get("name") == key
        ]
        return list(enumerate(value)) if key == "*" else named
    return []

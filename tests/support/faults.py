"""Copies of the checkout with a fault planted in a step, as somebody might make it: each leaves the build unrepeatable."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bertir.digest import Digest
from bertir.source import patched
from bertir.upstream import SOURCE_LOCK, SourceLock, dump_source_lock, load_source_lock, load_upstream

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from checkout import Checkout

PATCH = "0099-fault.patch"


@dataclass(frozen=True, kw_only=True)
class Edit:
    """One replacement of a text that is there once."""

    old: str
    new: str

    def of(self, text: str) -> str:
        assert text.count(self.old) == 1, self.old
        return text.replace(self.old, self.new)


def edit_step(checkout: Checkout, name: str, edit: Edit) -> None:
    """Change a step's program."""
    path = checkout.root / "docker" / "steps" / name
    path.write_text(edit.of(path.read_text(encoding="utf-8")), encoding="utf-8")


def add_patch(
    checkout: Checkout, pristine: Mapping[str, bytes], name: str, edits: list[Edit], scratch: Path
) -> None:
    """Add a patch of one file to the series, and lock the source anew, as `invoke lock --only source` does."""
    folder = checkout.root / "patches"
    lock = load_source_lock(folder, load_upstream(folder))
    _, files = patched(pristine, load_upstream(folder).series, scratch / "before")
    before = files[name].decode()
    after = before
    for edit in edits:
        after = edit.of(after)
    (folder / PATCH).write_text(
        f"Subject: a fault\n---\n{_diff(name, before, after, scratch)}", encoding="utf-8"
    )
    with (folder / "series").open("a", encoding="utf-8") as series:
        series.write(f"{PATCH}\n")
    upstream = load_upstream(folder)
    tree, files = patched(pristine, upstream.series, scratch / "after")
    relocked = SourceLock(
        intent=upstream.intent,
        commit=upstream.commit,
        tree=tree,
        pristine=lock.pristine,
        patched={file: Digest.of_bytes(data) for file, data in files.items()},
        patches=tuple((patch.name, patch.digest) for patch in upstream.series),
    )
    (folder / SOURCE_LOCK).write_bytes(dump_source_lock(relocked))


def _diff(name: str, before: str, after: str, scratch: Path) -> str:
    for side, text in (("a", before), ("b", after)):
        path = scratch / side / name
        path.parent.mkdir()
        path.write_text(text, encoding="utf-8")
    # Status 1 is a difference.
    return subprocess.run(
        ["git", "diff", "--no-index", "--no-prefix", "--full-index", f"a/{name}", f"b/{name}"],
        cwd=scratch,
        check=False,
        capture_output=True,
        text=True,
    ).stdout

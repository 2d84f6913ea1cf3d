"""What the job image has over the step image, as two layers: Debian's tools, and bertir's own virtualenv."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bertir.deb import package_entries
from bertir.digest import canonical_json
from bertir.job_intent import MARKER, STAMP, VIRTUALENV
from bertir.layer import compiled_modules, own_entries, store_layer
from bertir.tree import Entry, LinkEntry, PathFilter, bytes_entry, text_entry

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bertir.digest import Digest
    from bertir.intent import ImageIntent
    from bertir.job_intent import JobIntent
    from bertir.lock import DebianPackage
    from bertir.store import Blob, Store


def tools_layer(
    store: Store,
    step: ImageIntent,
    job: JobIntent,
    packages: Sequence[tuple[DebianPackage, Path]],
    step_packages: Sequence[tuple[DebianPackage, Path]],
    *,
    expected: Digest | None = None,
) -> Blob:
    """Lay out the job's Debian packages, what it wants back of the step image's, and its own files, folders and links.

    Raises:
        ImageError: a package can't be read, or two of them disagree on a file.
        DigestMismatchError: the layer isn't the `expected` one.
    """
    paths = PathFilter(exclude=job.exclude, keep=job.keep)
    left_out = PathFilter(exclude=step.debian.exclude, keep=step.debian.keep)
    wanted = PathFilter(exclude=job.restore)
    found: list[Entry] = [LinkEntry(path=link.path, target=link.target) for link in job.links]
    for package, path in packages:
        found += [entry for entry in package_entries(package, path) if not paths.drops(entry.path)]
    for package, path in step_packages:
        found += [
            entry
            for entry in package_entries(package, path)
            if left_out.drops(entry.path) and wanted.drops(entry.path)
        ]
    intent = job.over(step)
    return store_layer(store, intent, own_entries(intent, found), what="the layer tools", expected=expected)


def host_layer(
    store: Store,
    step: ImageIntent,
    job: JobIntent,
    entries: Sequence[Entry],
    pyc_tar: Path,
    *,
    step_image: Digest,
    host_lock: Digest,
    expected: Digest | None = None,
) -> Blob:
    """Lay out the virtualenv with its modules compiled, and say which step image lies below, and whose wheels these are.

    Raises: as `tools_layer`.
    """
    intent = job.over(step)
    own: list[Entry] = [
        # What `python -m venv` would write, without the paths of the machine that it ran on.
        text_entry(
            f"{VIRTUALENV}/pyvenv.cfg",
            f"home = /usr/bin\ninclude-system-site-packages = false\nversion = {step.python.version}\n",
        ),
        LinkEntry(path=f"{VIRTUALENV}/bin/python", target=step.python.interpreter),
        LinkEntry(path=f"{VIRTUALENV}/bin/python3", target="python"),
        bytes_entry(MARKER, canonical_json({"image": str(step_image)}), executable=False),
        text_entry(STAMP, f"{host_lock}\n"),
    ]
    with compiled_modules(pyc_tar, intent) as compiled:
        found: list[Entry] = [*entries, *compiled, *own]
        return store_layer(store, intent, found, what="the layer host", expected=expected)

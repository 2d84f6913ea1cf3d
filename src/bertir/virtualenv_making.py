"""Make a virtualenv of the locked wheels (virtualenv.py): laid out as in the image, and compiled.

It is made under a temporary name in the store, and renamed when it is whole; several processes share it. That it is used
is said by its time, as of an object: `invoke gc` takes what wasn't for long.

Not pip lays the wheels out but what lays them out in the image (layer.py), from the same files by the same digests. pip doesn't
know which of two wheels wins for a file, nor what is to be left out.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import venv
from typing import TYPE_CHECKING

from bertir.derivation import MOMENT
from bertir.errors import ImageError
from bertir.layer import wheel_entries
from bertir.progress import State
from bertir.tree import FileEntry, FolderEntry
from bertir.virtualenv import python_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bertir.fetch import Fetcher
    from bertir.intent import PythonIntent
    from bertir.progress import Progress
    from bertir.store import Store
    from bertir.tree import Entry
    from bertir.virtualenv import Virtualenv


def provide(store: Store, wanted: Virtualenv, fetcher: Fetcher, progress: Progress) -> Path:
    """Give the folder of a virtualenv, making it if need be.

    Raises:
        FetchError: a wheel can't be had. ImageError: one isn't what it says. StoreError: no room, say.
    """
    if found := wanted.find(store):
        return found

    def waiting() -> None:
        progress.say("virtualenv", "waiting for another process that makes it", State.WAITING)

    place = wanted.place(store)
    with store.lock(f"virtualenv-{place.name}", waiting=waiting, after=MOMENT):
        if found := wanted.find(store):
            return found
        wheels = fetcher.wheels(wanted.lock.wheels, wanted.intent.python)
        progress.say("virtualenv", f"making it of {len(wheels)} locked wheels, once", State.RUNNING)
        with (
            store.writing("make the virtualenv"),
            store.temporary_folder() as scratch,
            wheel_entries(wanted.intent, wheels) as entries,
        ):
            folder = scratch / "virtualenv"
            _make(folder, place, entries, wanted.intent.python)
            os.sync()  # of 10,000 files, once: what has its name is whole, also after a power cut
            folder.rename(place)
        progress.say("virtualenv", "made", State.DONE)
        return place


def _make(folder: Path, place: Path, entries: Sequence[Entry], python: PythonIntent) -> None:
    venv.create(folder, symlinks=True, with_pip=False)
    inside = f"lib/python{python.version}/site-packages"
    for entry in entries:
        if not entry.path.startswith(f"{python.site}/"):  # commands, headers, examples: no step's
            continue
        target = folder / inside / entry.path.removeprefix(f"{python.site}/")
        if isinstance(entry, FolderEntry):
            target.mkdir(mode=0o755)
        elif isinstance(entry, FileEntry):
            # Read to its end, where it is compared with what the wheel says of it.
            with entry.open() as source, target.open("xb") as file:
                shutil.copyfileobj(source, file)
            target.chmod(0o555 if entry.executable else 0o444)
        else:
            raise ImageError(f"a wheel holds a link: {entry.path}")
    # Before it is renamed, with the final path; what can't be compiled is a template, or of an older Python.
    compiled = ["-m", "compileall", "-q", "-j", str(len(os.sched_getaffinity(0)))]
    paths = ["-s", str(folder / inside), "-p", str(place / inside), str(folder / inside)]
    mode = ["--invalidation-mode", "unchecked-hash"]
    subprocess.run(
        [str(python_of(folder)), "-I", *compiled, *mode, *paths],
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
    )

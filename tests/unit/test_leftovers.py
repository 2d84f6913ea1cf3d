"""What killed processes leave in the store, and what of it the next one removes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from bertir.errors import ConfigurationError
from bertir.store import FOLDERS, SECONDS_TO_TAKE_LOCK, TAG, Store

if TYPE_CHECKING:
    from pathlib import Path


def backdate(folder: Path) -> None:
    past = time.time() - 2 * SECONDS_TO_TAKE_LOCK
    os.utime(folder, (past, past))


def test_the_temporary_folder_of_a_killed_process_is_removed_by_the_next_one(tmp_path: Path) -> None:
    root = tmp_path / "store"
    program = (
        "import os, pathlib, signal, sys\n"
        "from bertir.store import Store\n"
        "store = Store(pathlib.Path(sys.argv[1]))\n"
        "with store.temporary_folder() as folder:\n"
        "    (folder / 'half').write_text('written')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(root)], check=False)
    assert killed.returncode < 0
    [left] = (root / "tmp").iterdir()
    Store(root)
    assert left.exists()  # too young: its owner might be about to lock it
    backdate(left)
    Store(root)
    assert not left.exists()


def test_a_temporary_folder_in_use_is_left_alone_however_old(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    with store.temporary_folder() as folder:
        backdate(folder)
        Store(store.root)
        assert folder.exists()
        assert not store.is_abandoned(folder)
    assert store.is_abandoned(folder)


def test_a_folder_with_something_else_in_it_does_not_become_the_store(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="holds something else"):
        Store(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_clearing_removes_what_is_the_stores_and_nothing_else(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    store.add_bytes(b"an object")
    note = store.root / "note"
    note.write_text("put here by somebody", encoding="utf-8")
    store.clear()
    assert [path.name for path in store.root.iterdir()] == ["note"]
    note.unlink()
    store.root.rmdir()
    other = Store(tmp_path / "store")
    assert {path.name for path in other.root.iterdir()} == {*FOLDERS, TAG}
    other.clear()
    assert not other.root.exists()


def test_a_temporary_folder_of_any_depth_is_removed(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    with store.temporary_folder() as folder:
        here = os.open(folder, os.O_RDONLY)
        for _ in range(1500):  # shutil.rmtree ends at a thousand, by a RecursionError
            os.mkdir("d", dir_fd=here)
            below = os.open("d", os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = below
        os.close(here)
    assert not list((store.root / "tmp").iterdir())

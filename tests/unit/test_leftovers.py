"""What killed processes leave behind, and what of it the next one removes; what lies there that isn't ours."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from bertir.errors import ConfigurationError
from bertir.staging import MARK, abandoned, is_abandoned, staged_file, staged_folder, sweep
from bertir.store import FOLDERS, Store, StoreError
from bertir.store_folder import IDENTITY, TAG, identities

if TYPE_CHECKING:
    from pathlib import Path

KILLED = """
import os, pathlib, signal, sys
from bertir.staging import staged_file, staged_folder
from bertir.store import Store
place = pathlib.Path(sys.argv[2])
def die():
    os.kill(os.getpid(), signal.SIGKILL)
store = Store(pathlib.Path(sys.argv[1]))
"""


def run_killed(root: Path, program: str, place: Path) -> None:
    killed = subprocess.run(
        [sys.executable, "-c", KILLED + program, str(root), str(place)], check=False, capture_output=True
    )
    assert killed.returncode == -9, killed.stderr


def test_the_temporary_folder_of_a_killed_process_is_removed_by_the_next_one_at_once(tmp_path: Path) -> None:
    root = tmp_path / "store"
    run_killed(
        root, "with store.temporary_folder() as folder:\n (folder / 'half').touch()\n die()\n", tmp_path
    )
    store = Store(root)
    assert len(store.abandoned()) == 1
    store.sweep()
    assert list((root / "tmp").iterdir()) == []


def test_the_lease_and_the_locks_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    root = tmp_path / "store"
    run_killed(root, "with store.in_use(), store.lock('one'), store.lock('other'):\n die()\n", tmp_path)
    assert len(list((root / "locks").iterdir())) == 2
    store = Store(root)
    assert store.users() == []
    store.sweep()
    assert [*(root / "tmp").iterdir(), *(root / "locks").iterdir()] == []


def test_a_lock_that_is_held_is_not_swept(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    with store.lock("it"):
        store.sweep()
        assert [path.name for path in (store.root / "locks").iterdir()] == ["it"]
    assert list((store.root / "locks").iterdir()) == []


def test_a_temporary_folder_in_use_is_left_alone_however_old(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    with store.temporary_folder() as folder:
        os.utime(folder, (0, 0))
        store.sweep()
        assert folder.exists()
        assert not store.is_abandoned(folder)
    assert store.is_abandoned(folder)


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_a_killed_process_staged_beside_a_users_files_is_swept_and_nothing_else(
    tmp_path: Path, kind: str
) -> None:
    place = tmp_path / "place"
    place.mkdir()
    for name in ("model.tar", ".model.tar.bertir", ".other.bertir-1", ".model.tar.bertir-my-backup"):
        (place / name).touch()
    users = sorted(place.iterdir())
    prefix = f".model.tar{MARK}"
    run_killed(tmp_path / "store", f"with staged_{kind}(place, {prefix!r}) as staged:\n die()\n", place)
    [left] = abandoned(place, prefix)
    assert is_abandoned(left)
    sweep(place, prefix)
    assert sorted(place.iterdir()) == users


def test_what_a_living_process_stages_is_not_swept(tmp_path: Path) -> None:
    with staged_folder(tmp_path, ".a") as folder, staged_file(tmp_path, ".a") as (file, _):
        sweep(tmp_path, ".a")
        assert (folder.exists(), file.exists()) == (True, True)
        assert (folder.stat().st_mode & 0o777, file.stat().st_mode & 0o777) == (0o700, 0o600)
    assert list(tmp_path.iterdir()) == []


def test_a_staged_folder_goes_even_if_folders_in_it_forbid_it(tmp_path: Path) -> None:
    # Root may do anything: what only a user is forbidden is tried as one.
    place = tmp_path / "place"
    place.mkdir()
    if os.geteuid() == 0:
        os.chown(place, 65534, 65534)
        for folder in (tmp_path, *tmp_path.parents):
            if folder.stat().st_mode & 0o001 == 0:
                folder.chmod(folder.stat().st_mode | 0o001)  # to be passed through
    program = (
        "import os, sys, pathlib\n"
        "from bertir.staging import staged_folder\n"
        "if os.geteuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "with staged_folder(pathlib.Path(sys.argv[1]), 'x') as folder:\n"
        "    (folder / 'a' / 'b').mkdir(parents=True); (folder / 'a' / 'b' / 'c').touch()\n"
        "    (folder / 'a' / 'b').chmod(0); (folder / 'a').chmod(0o500)\n"
    )
    subprocess.run([sys.executable, "-c", program, str(place)], check=True)
    assert list(place.iterdir()) == []


def test_a_link_in_a_staged_folder_is_removed_and_what_it_leads_to_is_left_as_it_is(tmp_path: Path) -> None:
    users = tmp_path / "users"
    users.mkdir(mode=0o755)
    (users / "thesis").touch()
    with staged_folder(tmp_path, "x") as folder:
        (folder / "closed").mkdir()
        (folder / "closed" / "link").symlink_to(users)
        (folder / "link").symlink_to(users)
        (folder / "closed").chmod(0)  # so that it must be opened up
    assert (users / "thesis").exists()
    assert users.stat().st_mode & 0o777 == 0o755


def test_sweeping_never_follows_a_link(tmp_path: Path) -> None:
    (tmp_path / "users").mkdir()
    (tmp_path / "users" / "thesis").touch()
    place = tmp_path / "place"
    place.mkdir()
    (place / ".x.bertir-abcdefgh").symlink_to(tmp_path / "users")
    sweep(place, ".x.bertir-")
    assert (tmp_path / "users" / "thesis").exists()


def test_a_folder_with_something_else_in_it_does_not_become_the_store(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="holds something else"):
        Store(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    ("names", "tag"),
    [
        (["tmp", "downloads"], None),
        (["tmp", "logs", "target"], "Signature: 8a477f597d28d172789f06886806bc55\n# cargo's\n"),
        (["objects"], ""),
    ],
    ids=["folders of such names", "another program's cache", "an empty tag"],
)
def test_another_programs_folder_does_not_become_the_store_whatever_its_folders_are_called(
    tmp_path: Path, names: list[str], tag: str | None
) -> None:
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "precious").touch()
    if tag is not None:
        (tmp_path / TAG).write_text(tag, encoding="ascii")
    with pytest.raises(ConfigurationError, match="holds something else"):
        Store(tmp_path)
    assert all((tmp_path / name / "precious").exists() for name in names)


def test_a_store_whose_maker_was_killed_before_it_was_tagged_is_made_by_the_next(tmp_path: Path) -> None:
    (tmp_path / TAG).touch()
    Store(tmp_path).add_bytes(b"x")
    assert (tmp_path / TAG).stat().st_size


def test_what_somebody_else_put_into_the_stores_folders_is_not_swept(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    (store.root / "tmp" / "precious").mkdir()
    (store.root / "tmp" / "work-in-progress.txt").touch()
    store.sweep()
    assert len(list((store.root / "tmp").iterdir())) == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_what_another_user_staged_is_not_roots_to_remove(tmp_path: Path) -> None:
    theirs = tmp_path / ".x.bertir-abcdefgh"
    theirs.mkdir()
    os.chown(theirs, 12345, -1)
    sweep(tmp_path, ".x.bertir-")
    assert theirs.exists()


def test_a_store_has_a_name_of_its_own_and_knows_those_around_it(tmp_path: Path) -> None:
    one, other = Store(tmp_path / "one"), Store(tmp_path / "other")
    inner = Store(one.root / "tmp" / "work-x" / "store")
    [name] = identities(one.root)
    assert identities(Store(one.root).root) == {name: one.root}
    assert name not in identities(other.root)
    assert list(identities(inner.root).values()) == [inner.root, one.root]
    assert name in identities(inner.root)


def test_a_store_of_links_to_elsewhere_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    (tmp_path / "elsewhere").mkdir()
    (store.root / "objects").rmdir()
    (store.root / "objects").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigurationError, match="objects is a link"):
        Store(store.root)


def test_a_store_in_which_a_rebuild_runs_is_not_cleared(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    with store.in_use(), store.temporary_folder() as folder:
        with pytest.raises(StoreError, match="in use by 1"):
            Store(store.root).clear()
        assert folder.exists()


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
    assert {path.name for path in other.root.iterdir()} == {*FOLDERS, TAG, IDENTITY}
    other.clear()
    assert not other.root.exists()


def test_a_store_that_a_build_uses_is_not_cleared(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    blob = store.add_bytes(b"an object")
    with Store(store.root).in_use():
        with pytest.raises(StoreError, match="in use by 1 other process") as caught:
            store.clear()
        assert "Wait" in caught.value.advice
    assert store.find(blob.digest) == blob


# who may write to it


@pytest.mark.parametrize("name", ["", "objects", "records", "tmp", "locks"])
def test_a_store_that_everybody_may_write_to_is_refused(tmp_path: Path, name: str) -> None:
    store = Store(tmp_path / "store")
    (store.root / name).chmod(0o777)
    with pytest.raises(ConfigurationError, match="everybody may write") as caught:
        Store(store.root)
    assert "chmod o-w" in caught.value.advice
    (store.root / name).chmod(0o775)  # a group's is a choice
    Store(store.root)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize("name", ["", "objects", "records"])
def test_a_store_of_another_user_is_refused(tmp_path: Path, name: str) -> None:
    store = Store(tmp_path / "store")
    os.chown(store.root / name, 12345, -1)
    with pytest.raises(ConfigurationError, match="belongs to the user 12345, and this is the user 0"):
        Store(store.root)


def test_a_new_store_is_for_its_user_alone_and_an_older_one_stays_as_it_is(tmp_path: Path) -> None:
    assert Store(tmp_path / "new").root.stat().st_mode & 0o777 == 0o700
    (tmp_path / "older").mkdir(mode=0o755)
    assert Store(tmp_path / "older").root.stat().st_mode & 0o777 == 0o755


def test_a_new_store_is_not_open_to_all_even_without_an_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        store = Store(tmp_path / "store")
        store.add_bytes(b"x")
        with store.temporary_folder(), store.lock("it"):
            Store(store.root)
            for path in (store.root, *store.root.rglob("*")):
                if path.is_dir() or path.parent.name == "objects":
                    assert not path.stat().st_mode & 0o002, path
    finally:
        os.umask(before)


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

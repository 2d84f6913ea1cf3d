from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bertir import publish as publish_module
from bertir.errors import BertirError, ConfigurationError
from bertir.mark import Mark
from bertir.provenance import BUILD_TYPE
from bertir.publish import LISTED, SUMS, VOLATILE, checksums, is_ours, publish
from bertir.store import Artifact, Store, StoreError

if TYPE_CHECKING:
    from collections.abc import Mapping

BOTH = {"bert_config.json": b"{}\n", "vocab.txt": b"[PAD]\n", "report.json": b'{"bertir": "0.1.0"}\n'}
STATED = json.dumps({"predicate": {"buildDefinition": {"buildType": BUILD_TYPE}}}).encode()
OLD = {"model.xml": b"<old/>", "model.bin": b"old" * 1000} | BOTH  # by a bertir that stated no provenance yet
NEW = {
    "model.xml": b"<new/>",
    "model.bin": b"new" * 1000,
    "provenance.json": STATED,
    "report.html": b"<html>",
} | BOTH


def artifact(store: Store, contents: Mapping[str, bytes]) -> Artifact:
    return Artifact(files={name: store.add_bytes(data) for name, data in contents.items()})


def contents(folder: Path) -> dict[str, bytes]:
    return {item.name: item.read_bytes() for item in folder.iterdir() if item.name != SUMS}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "dist" / "tiny" / "reshapable-fp16"


def alone(folder: Path) -> bool:
    """Whether nothing half-made lies beside it."""
    return [item.name for item in folder.parent.iterdir()] == [folder.name]


def test_what_is_published_is_what_is_stored(store: Store, folder: Path) -> None:
    published = publish(store, artifact(store, NEW), folder)
    assert (published.folder, published.unchanged) == (folder, False)
    assert contents(folder) == NEW
    assert alone(folder)


def test_the_checksums_are_those_that_sha256sum_reads(store: Store, folder: Path) -> None:
    publish(store, artifact(store, NEW), folder)
    command = ["sha256sum", "--check", "--strict", SUMS]
    run = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True)
    assert run.returncode == 0
    assert run.stdout.splitlines() == [f"{name}: OK" for name in sorted(NEW) if name not in VOLATILE]


def test_the_same_build_again_changes_nothing(store: Store, folder: Path) -> None:
    built = artifact(store, NEW)
    publish(store, built, folder)
    before = {item: item.stat() for item in (folder, *folder.iterdir())}
    assert publish(store, built, folder).unchanged
    assert {item: item.stat().st_mtime_ns for item in before} == {
        item: known.st_mtime_ns for item, known in before.items()
    }


def test_another_build_takes_the_place_of_the_old_one(store: Store, folder: Path) -> None:
    publish(store, artifact(store, NEW), folder)
    assert not publish(store, artifact(store, OLD), folder).unchanged
    assert contents(folder) == OLD  # provenance.json is gone with the build that had it
    assert alone(folder)


@pytest.mark.parametrize("damage", ["changed", "missing", "link", "sums"])
def test_a_damaged_build_is_published_anew(store: Store, folder: Path, tmp_path: Path, damage: str) -> None:
    built = artifact(store, NEW)
    publish(store, built, folder)
    model = folder / "model.bin"
    if damage == "changed":
        model.write_bytes(b"x" * model.stat().st_size)
    elif damage == "missing":
        model.unlink()
    elif damage == "link":
        model.rename(tmp_path / "elsewhere")
        model.symlink_to(tmp_path / "elsewhere")
    else:
        sums = (folder / SUMS).read_bytes()
        (folder / SUMS).write_bytes(b"0" * 64 + sums[64:])
    assert not publish(store, built, folder).unchanged
    assert contents(folder) == NEW
    assert not model.is_symlink()


def test_an_interrupted_publish_leaves_the_old_build(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(store, artifact(store, OLD), folder)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(publish_module, "_put_in_place", interrupted)
    with pytest.raises(KeyboardInterrupt):
        publish(store, artifact(store, NEW), folder)
    assert contents(folder) == OLD
    assert alone(folder)


def test_a_damaged_object_is_not_published_and_the_old_build_stays(store: Store, folder: Path) -> None:
    publish(store, artifact(store, OLD), folder)
    built = artifact(store, NEW)
    path = store.path(built["vocab.txt"].digest)
    path.chmod(0o644)
    path.write_bytes(b"[BAD]\n")
    with pytest.raises(StoreError, match=r"held other bytes for vocab\.txt"):
        publish(store, built, folder)
    assert contents(folder) == OLD
    assert alone(folder)


def test_a_first_publish_that_fails_leaves_no_folder(store: Store, folder: Path) -> None:
    built = artifact(store, NEW)
    store.path(built["model.bin"].digest).unlink()
    with pytest.raises(StoreError, match=r"no longer holds model\.bin"):
        publish(store, built, folder)
    assert list(folder.parent.iterdir()) == []


def test_without_renameat2_the_old_build_is_replaced_all_the_same(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish_module, "_exchange", lambda *_: False)
    publish(store, artifact(store, OLD), folder)
    publish(store, artifact(store, NEW), folder)
    assert contents(folder) == NEW
    assert alone(folder)


def test_at_every_moment_there_is_a_whole_build(store: Store, folder: Path) -> None:
    """A reader that opens files by name all the while sees the old one or the new one, and never neither."""
    old, new = artifact(store, OLD), artifact(store, NEW)
    publish(store, old, folder)
    program = (
        "import sys; from pathlib import Path\n"
        "folder = Path(sys.argv[1]); seen = set(); print('ready', flush=True)\n"
        "while seen != {b'<old/>', b'<new/>'} or not (folder.parent / 'stop').exists():\n"
        "    seen.add((folder / 'model.xml').read_bytes())\n"
    )
    with subprocess.Popen(
        ["python3", "-c", program, str(folder)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as reader:
        assert reader.stdout is not None
        reader.stdout.readline()
        for _ in range(30):
            publish(store, new, folder)
            publish(store, old, folder)
        publish(store, new, folder)
        (folder.parent / "stop").touch()
        _, errors = reader.communicate(timeout=20)
    assert (reader.returncode, errors) == (0, "")


# what isn't bertir's


def test_a_folder_of_the_users_own_is_left_alone(store: Store, folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "thesis.tex").write_bytes(b"years of work")
    with pytest.raises(ConfigurationError, match="bertir did not publish") as raised:
        publish(store, artifact(store, NEW), folder)
    assert "--output" in raised.value.advice
    assert contents(folder) == {"thesis.tex": b"years of work"}
    assert alone(folder)


def test_a_folder_of_someone_elses_checksums_is_left_alone(store: Store, folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "debian.iso").write_bytes(b"not bertir's")
    (folder / SUMS).write_bytes(b"0" * 64 + b"  debian.iso\n")
    with pytest.raises(ConfigurationError):
        publish(store, artifact(store, NEW), folder)
    assert contents(folder) == {"debian.iso": b"not bertir's"}


@pytest.mark.parametrize("name", ["thesis", "model.xml"])
def test_checksums_that_list_a_users_own_do_not_make_it_bertirs(
    store: Store, folder: Path, name: str
) -> None:
    publish(store, artifact(store, OLD), folder)
    (folder / name).unlink(missing_ok=True)
    (folder / name).mkdir()
    (folder / name / "chapter").touch()
    with (folder / SUMS).open("a", encoding="utf-8") as sums:
        sums.write(f"{'0' * 64}  {name}\n")
    with pytest.raises(ConfigurationError, match="did not publish"):
        publish(store, artifact(store, NEW), folder)
    assert (folder / name / "chapter").exists()


def test_a_file_that_the_user_put_beside_the_model_is_not_lost(store: Store, folder: Path) -> None:
    publish(store, artifact(store, OLD), folder)
    (folder / "notes.txt").write_bytes(b"which customer uses it")
    with pytest.raises(ConfigurationError):
        publish(store, artifact(store, NEW), folder)
    assert (folder / "notes.txt").read_bytes() == b"which customer uses it"


@pytest.mark.parametrize("kind", ["file", "link", "dangling link", "fifo"])
def test_what_is_no_folder_is_left_alone(store: Store, folder: Path, tmp_path: Path, kind: str) -> None:
    folder.parent.mkdir(parents=True)
    if kind == "file":
        folder.write_bytes(b"mine")
    elif kind == "fifo":
        os.mkfifo(folder)
    else:
        if kind == "link":
            publish(store, artifact(store, OLD), tmp_path / "real")
        folder.symlink_to(tmp_path / "real")
    before = Mark.of(folder.lstat())  # without the time at which it was looked at
    with pytest.raises(ConfigurationError):
        publish(store, artifact(store, NEW), folder)
    assert Mark.of(folder.lstat()) == before
    if kind == "link":
        assert contents(tmp_path / "real") == OLD


def test_an_empty_folder_is_taken(store: Store, folder: Path) -> None:
    folder.mkdir(parents=True)
    publish(store, artifact(store, NEW), folder)
    assert contents(folder) == NEW


def test_a_place_that_can_not_be_written_is_one_error(store: Store, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BertirError, match="could not publish to") as raised:
        publish(store, artifact(store, NEW), tmp_path / "file" / "tiny" / "reshapable-fp16")
    assert "--output" in raised.value.advice


def test_what_is_published_can_be_read_as_the_umask_says(store: Store, folder: Path) -> None:
    before = os.umask(0o027)
    try:
        publish(store, artifact(store, NEW), folder)
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)
    assert folder.stat().st_mode & 0o777 == 0o750
    assert {item.stat().st_mode & 0o777 for item in folder.iterdir()} == {0o640}


def test_checksums_are_sorted_by_name(store: Store) -> None:
    built = artifact(store, dict(sorted(NEW.items(), reverse=True)))
    assert [line.split(b"  ")[1] for line in checksums(built).splitlines()] == [
        name.encode() for name in sorted(NEW) if name not in VOLATILE
    ]


@pytest.mark.parametrize("moment", [1, 2])
def test_a_build_that_another_process_publishes_there_meanwhile_is_replaced(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    # The folder comes into being while it is looked at whether it may be replaced.
    looked, look = [], os.listdir

    def listdir(path: Path) -> list[str]:
        if path == folder:
            looked.append(path)
            if len(looked) == moment:
                publish(store, artifact(store, OLD), folder)
        return look(path)

    monkeypatch.setattr(os, "listdir", listdir)
    publish(store, artifact(store, NEW), folder)
    assert contents(folder) == NEW
    assert alone(folder)


def test_many_that_publish_to_one_new_folder_at_once_all_succeed(store: Store, tmp_path: Path) -> None:
    # Whoever looks whether the folder may be replaced sees it come from nothing, under their eyes.
    several = [artifact(store, NEW | {"vocab.txt": b"%d" % number}) for number in range(6)]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(max_workers=len(several)) as pool:
            for number in range(60):
                folder = tmp_path / str(number) / "variant"
                for published in [pool.submit(publish, store, built, folder) for built in several]:
                    published.result()
                assert is_ours(folder)
                assert alone(folder)
    finally:
        sys.setswitchinterval(before)


# what comes or goes meanwhile


@pytest.mark.parametrize("renameat2", [True, False])
@pytest.mark.parametrize("added", ["notes.txt", "chapter/thesis.tex"])
def test_a_file_that_the_user_puts_there_while_bertir_publishes_is_not_lost(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch, *, renameat2: bool, added: str
) -> None:
    publish(store, artifact(store, OLD), folder)
    put_in_place = publish_module._put_in_place

    def late(staged: Path, folder: Path) -> None:
        (folder / added).parent.mkdir(exist_ok=True)
        (folder / added).write_bytes(b"years of work")
        put_in_place(staged, folder)

    monkeypatch.setattr(publish_module, "_put_in_place", late)
    if not renameat2:
        monkeypatch.setattr(publish_module, "_exchange", lambda *_: False)
    with pytest.raises(ConfigurationError, match="bertir did not publish"):
        publish(store, artifact(store, NEW), folder)
    assert (folder / added).read_bytes() == b"years of work"
    assert {name: (folder / name).read_bytes() for name in OLD} == OLD
    assert alone(folder)


def test_without_renameat2_what_can_not_be_replaced_is_there_again(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(store, artifact(store, OLD), folder)
    rename = Path.rename

    def failing(path: Path, target: Path) -> Path:
        if target == folder and path.name == folder.name and not folder.exists():
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return rename(path, target)

    monkeypatch.setattr(publish_module, "_exchange", lambda *_: False)
    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(BertirError, match="could not publish"):
        publish(store, artifact(store, NEW), folder)
    assert contents(folder) == OLD
    assert alone(folder)


KILLED_BETWEEN = """
import os, pathlib, signal, sys
from bertir import publish
from bertir.store import Artifact, Store
rename = pathlib.Path.rename
def killing(path, target):
    done = rename(path, target)
    if target.name == "old":
        os.kill(os.getpid(), signal.SIGKILL)
    return done
pathlib.Path.rename = killing
publish._exchange = lambda *_: False
store = Store(pathlib.Path(sys.argv[1]))
names = ("model.xml", "model.bin", "vocab.txt", "bert_config.json", "report.json")
files = {name: store.add_bytes(b"killed") for name in names}
publish.publish(store, Artifact(files=files), pathlib.Path(sys.argv[2]))
"""


def kill_between_the_renames(store: Store, folder: Path) -> None:
    command = [sys.executable, "-c", KILLED_BETWEEN, str(store.root), str(folder)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert not folder.exists()


def test_a_process_killed_between_two_renames_loses_no_build(store: Store, folder: Path) -> None:
    publish(store, artifact(store, OLD), folder)
    kill_between_the_renames(store, folder)
    broken = artifact(store, NEW)
    store.path(broken["model.bin"].digest).unlink()
    with pytest.raises(StoreError):  # the next one fails, and all the same the old build is there again
        publish(store, broken, folder)
    assert contents(folder) == OLD
    assert alone(folder)


def test_what_was_published_since_stays_when_a_killed_process_left_an_old_build(
    store: Store, folder: Path
) -> None:
    publish(store, artifact(store, OLD), folder)
    kill_between_the_renames(store, folder)
    folder.mkdir()
    publish(store, artifact(store, NEW), folder)
    assert contents(folder) == NEW
    assert alone(folder)


def test_an_old_build_that_was_being_removed_is_not_put_back(store: Store, folder: Path) -> None:
    publish(store, artifact(store, OLD), folder)
    kill_between_the_renames(store, folder)
    [around] = folder.parent.iterdir()
    (around / folder.name).rename(folder)  # as the second rename does
    (around / "old" / SUMS).unlink()
    shutil.rmtree(folder)
    publish(store, artifact(store, NEW), folder)
    assert contents(folder) == NEW
    assert alone(folder)


# whose it is


@pytest.mark.parametrize(
    "others",
    [
        {},
        {"report.json": b"{}"},
        {"report.json": b"[]", "provenance.json": b"[" * 100_000},
        {"provenance.json": STATED.replace(b"bertir", b"elsewhere")},
        {"provenance.json": b'{"predicate": []}', "report.json": b'{"bertir": 1}'},
    ],
)
def test_someone_elses_ir_with_checksums_of_it_is_left_alone(
    store: Store, folder: Path, others: Mapping[str, bytes]
) -> None:
    theirs = {**dict.fromkeys(LISTED, b"theirs"), **others}
    folder.mkdir(parents=True)
    for name, data in theirs.items():
        (folder / name).write_bytes(data)
    (folder / SUMS).write_bytes(checksums(artifact(store, theirs)))
    assert not is_ours(folder)
    with pytest.raises(ConfigurationError, match="did not publish"):
        publish(store, artifact(store, NEW), folder)
    assert contents(folder) == theirs


def test_checksums_of_a_model_alone_are_not_bertirs(store: Store, folder: Path) -> None:
    publish(store, artifact(store, NEW), folder)
    for name in ("bert_config.json", "vocab.txt"):
        (folder / name).unlink()
    assert is_ours(folder)
    (folder / SUMS).write_text(f"{'0' * 64}  model.bin\n{'0' * 64}  model.xml\n")
    assert not is_ours(folder)


@pytest.mark.parametrize("name", [*LISTED, *VOLATILE])
@pytest.mark.parametrize("damage", ["missing", "empty"])
def test_a_build_of_which_one_file_is_gone_or_empty_is_bertirs_still(
    store: Store, folder: Path, name: str, damage: str
) -> None:
    built = artifact(store, NEW)
    publish(store, built, folder)
    (folder / name).unlink()
    if damage == "empty":
        (folder / name).touch()
    assert is_ours(folder)
    assert not publish(store, built, folder).unchanged
    assert contents(folder) == NEW


HANGING = """
import pathlib, sys
from bertir.errors import ConfigurationError
from bertir.publish import is_ours, publish
from bertir.store import Artifact, Store
store, folder = Store(pathlib.Path(sys.argv[1])), pathlib.Path(sys.argv[2])
files = {path.name: store.add_bytes(b"x") for path in folder.iterdir() if path.name != "SHA256SUMS"}
print(is_ours(folder))
try:
    publish(store, Artifact(files=files), folder)
except ConfigurationError:
    print("refused")
else:
    print("published")
"""


@pytest.mark.parametrize("kind", ["fifo", "/dev/zero", "large"])
@pytest.mark.parametrize("name", [SUMS, "model.bin", "provenance.json"])
def test_what_is_no_file_is_neither_waited_for_nor_read_without_end(
    store: Store, folder: Path, kind: str, name: str
) -> None:
    publish(store, artifact(store, NEW), folder)
    (folder / name).unlink()
    if kind == "fifo":
        os.mkfifo(folder / name)
    elif kind == "large":
        with (folder / name).open("wb") as file:
            file.truncate(32 << 30 if name != "model.bin" else 1 << 20)
    else:
        (folder / name).symlink_to(kind)
    command = [sys.executable, "-c", HANGING, str(store.root), str(folder)]
    limited = ["prlimit", f"--as={1 << 30}", *command]
    run = subprocess.run(limited, timeout=20, capture_output=True, text=True, check=True)
    # A damaged model or provenance is published anew; whose a folder without checksums is, nobody can tell.
    assert run.stdout.split() == (["False", "refused"] if name == SUMS else ["True", "published"])

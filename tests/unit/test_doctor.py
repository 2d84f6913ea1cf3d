from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_disk import small_disk

from bertir.digest import Digest
from bertir.doctor import examine
from bertir.healing import healed
from bertir.progress import SILENT, Progress
from bertir.store import Artifact, LostObjectError, Record, Store, StoreError

if TYPE_CHECKING:
    from pathlib import Path

KEY = Digest.of_bytes(b"key")
CONTENTS = (b"a wheel", b"a layer" * 1000, b"{}")


@pytest.fixture
def full(store: Store) -> Store:
    files = {f"{number}": store.add_bytes(content) for number, content in enumerate(CONTENTS)}
    store.save_record("freeze", KEY, Record(artifact=Artifact(files=files), facts={"seconds": 1.5}))
    return store


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position % len(data)] ^= 1 << position % 8
    path.chmod(0o644)
    path.write_bytes(data)
    path.chmod(0o444)


def folder_instead(path: Path, content: dict[str, bytes]) -> None:
    path.unlink()
    path.mkdir()
    for name, data in content.items():
        (path / name).parent.mkdir()
        (path / name).write_bytes(data)


def fail_to_read(monkeypatch: pytest.MonkeyPatch, bad: Path, number: int) -> None:
    """As the disk does it: the error has a number, and the file's name only if it can't even be opened."""
    hashed = Digest.of_file

    def of_file(path: Path) -> Digest:
        if path == bad:
            raise OSError(number, os.strerror(number))
        return hashed(path)

    monkeypatch.setattr(Digest, "of_file", of_file)


def test_a_sound_store_is_said_to_be(full: Store) -> None:
    found = examine(full, SILENT)
    assert found.is_sound
    assert (found.objects, found.records, found.incomplete) == (3, 1, 0)
    assert found.bytes == sum(map(len, CONTENTS))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
@given(which=st.integers(0, 3), position=st.integers(0, 10_000))
def test_one_flipped_bit_anywhere_is_found_named_and_removed(full: Store, which: int, position: int) -> None:
    for content in CONTENTS:
        full.add_bytes(content)
    files = {f"{number}": full.add_bytes(content) for number, content in enumerate(CONTENTS)}
    full.save_record("freeze", KEY, Record(artifact=Artifact(files=files), facts={"seconds": 1.5}))
    record = full.root / "records" / "freeze" / f"{KEY.hex}.json"
    path = record if which == len(CONTENTS) else full.path(Digest.of_bytes(CONTENTS[which]))
    flip(path, position)
    found = examine(full, SILENT)
    assert [finding.path for finding in found.findings] == [str(path.relative_to(full.root))]
    assert not path.exists()
    assert examine(full, SILENT).is_sound


def test_a_flipped_record_is_not_believed(full: Store) -> None:
    """Not even where it is still JSON of the right form: a digit of its seconds, say."""
    path = full.root / "records" / "freeze" / f"{KEY.hex}.json"
    path.write_bytes(path.read_bytes().replace(b"1.5", b"2.5"))
    assert full.load_record("freeze", KEY) is None


def test_a_record_under_another_name_is_not_believed(full: Store) -> None:
    path = full.root / "records" / "freeze" / f"{KEY.hex}.json"
    other = Digest.of_bytes(b"another")
    path.rename(path.with_name(f"{other.hex}.json"))
    assert full.load_record("freeze", other) is None


def test_a_record_whose_objects_are_gone_is_counted_and_is_no_damage(full: Store) -> None:
    full.path(Digest.of_bytes(CONTENTS[0])).unlink()
    found = examine(full, SILENT)
    assert (found.incomplete, found.is_sound) == (1, True)


@pytest.mark.parametrize("kind", ["link", "folder-link", "fifo"])
def test_what_is_no_file_is_no_object(full: Store, tmp_path: Path, kind: str) -> None:
    path = full.path(Digest.of_bytes(CONTENTS[0]))
    path.unlink()
    if kind == "fifo":
        os.mkfifo(path)
    else:
        target = tmp_path / "target"
        target.mkdir() if kind == "folder-link" else target.write_bytes(CONTENTS[0])
        path.symlink_to(target)
    found = examine(full, SILENT)
    assert len(found.findings) == 1
    assert not path.is_symlink()
    assert not path.exists()


@pytest.mark.parametrize("content", [{}, {"deep/er": b"x"}], ids=["empty", "filled"])
def test_a_folder_in_an_objects_place_is_found_and_the_object_can_be_stored_again(
    full: Store, content: dict[str, bytes]
) -> None:
    path = full.path(Digest.of_bytes(CONTENTS[0]))
    folder_instead(path, content)
    [finding] = examine(full, SILENT).findings
    assert (finding.path, finding.done) == (str(path.relative_to(full.root)), "removed")
    assert not path.exists()
    full.add(iter([CONTENTS[0]]))
    assert examine(full, SILENT).is_sound


@pytest.mark.parametrize(
    "name", ["ab/tmp", "ab/" + "0" * 61, "ab/" + "F" * 62, "file", "folder/file", "AB/x"]
)
@pytest.mark.parametrize("is_folder", [True, False])
def test_what_lies_among_the_objects_and_is_none_is_removed(
    full: Store, name: str, *, is_folder: bool
) -> None:
    path = full.root / "objects" / name
    path.parent.mkdir(exist_ok=True)
    path.mkdir() if is_folder else path.touch()
    assert len(examine(full, SILENT).findings) == 1
    assert not path.exists()
    assert examine(full, SILENT).is_sound
    assert examine(full, SILENT).objects == len(CONTENTS)


def test_what_can_not_be_read_is_a_finding_and_the_rest_is_read(
    full: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = full.path(Digest.of_bytes(CONTENTS[0]))
    other = full.path(Digest.of_bytes(CONTENTS[1]))
    flip(other, 1)
    fail_to_read(monkeypatch, bad, errno.EIO)
    findings = {finding.path: finding for finding in examine(full, SILENT).findings}
    assert set(findings) == {str(path.relative_to(full.root)) for path in (bad, other)}
    assert findings[str(bad.relative_to(full.root))].wrong == "it can't be read: Input/output error"
    assert not bad.exists()


def test_a_record_that_can_not_be_read_is_a_finding(full: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    record = full.root / "records" / "freeze" / f"{KEY.hex}.json"

    def read_record(_path: Path) -> Record:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(full, "read_record", read_record)
    [finding] = examine(full, SILENT).findings
    assert finding.wrong == "it can't be read: Input/output error"
    assert not record.exists()


def test_an_examiner_without_descriptors_removes_nothing(
    full: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = full.path(Digest.of_bytes(CONTENTS[0]))
    fail_to_read(monkeypatch, path, errno.EMFILE)
    with pytest.raises(StoreError, match="could not examine the store"):
        examine(full, SILENT)
    assert path.exists()


def test_on_a_disk_that_can_only_be_read_all_that_is_damaged_is_named(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "size=4m,mode=755") as disk:
        store = Store(disk.path / "store")
        for content in CONTENTS[:2]:
            flip(store.path(store.add_bytes(content).digest), 1)
        disk.set("ro")
        findings = examine(store, SILENT).findings
        assert [finding.done for finding in findings] == ["could not be removed: Read-only file system"] * 2


def test_an_object_that_can_be_written_to_is_made_read_only_again(full: Store) -> None:
    path = full.path(Digest.of_bytes(CONTENTS[0]))
    path.chmod(0o666)
    [finding] = examine(full, SILENT).findings
    assert finding.done == "made read-only"
    assert path.stat().st_mode & 0o777 == 0o444


def test_to_examine_is_not_to_use(full: Store) -> None:
    paths = [path for path in full.root.rglob("*") if path.is_file()]
    for path in paths:
        os.utime(path, (1000, 1000))
    examine(full, SILENT)
    assert {path.stat().st_mtime for path in paths} == {1000}


# healing


def test_work_that_meets_a_damaged_object_is_begun_again_without_it(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    import sys

    blob = store.add_bytes(b"content")
    flip(store.path(blob.digest), 3)

    def work() -> bytes:
        found = store.find(blob.digest) or store.add_bytes(b"content")
        return store.checked(found, what="vocab.txt").read_bytes()

    assert healed(work, Progress(stream=sys.stderr)) == b"content"
    said = capsys.readouterr().err
    assert "held other bytes for vocab.txt" in said
    assert "making it anew" in said


def test_an_object_that_the_disk_does_not_give_is_made_anew(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    blob = store.add_bytes(b"content")
    with monkeypatch.context() as patched:
        fail_to_read(patched, store.path(blob.digest), errno.EIO)
        with pytest.raises(LostObjectError, match=r"vocab\.txt can't be read .*\(Input/output error\)"):
            store.checked(blob, what="vocab.txt")
    assert store.find(blob.digest) is None


@pytest.mark.parametrize("way", ["checked", "read", "found"])
@pytest.mark.parametrize("kind", ["folder", "fifo", "file above"])
def test_what_lies_in_an_objects_place_is_removed_and_the_object_made_anew(
    store: Store, way: str, kind: str
) -> None:
    blob = store.add_bytes(b"content")
    path = store.path(blob.digest)
    if kind == "folder":
        folder_instead(path, {"a/b": b"c"})
    else:
        path.unlink()
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "file above":
        path.parent.rmdir()
        path.parent.touch()
    if way == "checked":
        with pytest.raises(LostObjectError, match=r"vocab\.txt"):
            store.checked(blob, what="vocab.txt")
    elif way == "read":
        with pytest.raises(LostObjectError, match=r"vocab\.txt"):
            list(store.read(blob, what="vocab.txt"))
    assert store.find(blob.digest) is None
    assert store.add(iter([b"content"])) == blob
    assert store.checked(blob, what="vocab.txt").read_bytes() == b"content"


def test_a_process_without_descriptors_has_lost_no_object(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    blob = store.add_bytes(b"content")
    fail_to_read(monkeypatch, store.path(blob.digest), errno.EMFILE)
    with pytest.raises(StoreError, match=r"could not read vocab\.txt in the store: Too many open") as caught:
        store.checked(blob, what="vocab.txt")
    assert not isinstance(caught.value, LostObjectError)
    assert store.path(blob.digest).exists()


def test_a_damaged_object_that_can_not_be_removed_is_named(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "size=4m,mode=755") as disk:
        store = Store(disk.path / "store")
        blob = store.add_bytes(b"content")
        flip(store.path(blob.digest), 3)
        disk.set("ro")
        with pytest.raises(StoreError, match="could not be removed: Read-only file system") as caught:
            store.checked(blob, what="vocab.txt")
        assert not isinstance(caught.value, LostObjectError)
        assert str(store.path(blob.digest)) in str(caught.value)


def test_an_object_that_is_damaged_again_at_once_ends_the_work(store: Store) -> None:
    tries = []

    def work() -> None:
        tries.append(1)
        blob = store.add_bytes(b"content")
        flip(store.path(blob.digest), 3)
        store.checked(blob, what="vocab.txt")

    with pytest.raises(LostObjectError, match="again after it was made anew") as caught:
        healed(work, SILENT)
    assert len(tries) == 2
    assert "dmesg" in caught.value.advice

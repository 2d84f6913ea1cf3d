from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bertir.digest import Digest
from bertir.doctor import examine
from bertir.healing import healed
from bertir.progress import SILENT, Progress
from bertir.store import Artifact, LostObjectError, Record, Store

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

from __future__ import annotations

import errno
import json
import mmap
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertir.digest import CHUNK_BYTES, Digest
from bertir.errors import ConfigurationError, DigestMismatchError
from bertir.hint import LARGE_BYTES
from bertir.store import Artifact, Blob, Record, Store, StoreError
from bertir.store_folder import default_root

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

KEY = Digest.of_bytes(b"key")


def objects(store: Store) -> set[Path]:
    return {path for path in (store.root / "objects").rglob("*") if not path.is_dir()}


def in_progress(store: Store) -> list[Path]:
    return list((store.root / "tmp").iterdir())


def spoil(path: Path, data: bytes) -> None:
    path.chmod(0o644)
    path.write_bytes(data)


# objects


def test_an_object_lies_under_its_digest_read_only(store: Store) -> None:
    blob = store.add(iter([b"to", b"gether"]))
    assert blob == Blob(digest=Digest.of_bytes(b"together"), size=8)
    path = store.path(blob.digest)
    assert path == store.root / "objects" / blob.digest.hex[:2] / blob.digest.hex[2:]
    assert path.read_bytes() == b"together"
    assert path.stat().st_mode & 0o777 == 0o444
    assert in_progress(store) == []


def test_the_same_content_is_one_object(store: Store) -> None:
    assert store.add(iter([b"ab", b"c"])) == store.add(iter([b"a", b"bc"])) == store.add_bytes(b"abc")
    assert len(objects(store)) == 1


def test_a_wrong_digest_leaves_nothing_in_the_store(store: Store) -> None:
    expected = Digest.of_bytes(b"right")
    with pytest.raises(DigestMismatchError) as raised:
        store.add(iter([b"wrong"]), expected=expected, what="modeling.py")
    message = str(raised.value)
    assert "modeling.py" in message
    assert f"expected {expected}" in message
    assert f"found    {Digest.of_bytes(b'wrong')} (5 bytes)" in message
    assert (objects(store), in_progress(store)) == (set(), [])


def test_a_wrong_digest_is_refused_even_if_those_bytes_are_stored_already(store: Store) -> None:
    store.add_bytes(b"wrong")
    with pytest.raises(DigestMismatchError):
        store.add(iter([b"wrong"]), expected=Digest.of_bytes(b"right"))


def test_add_bytes_refuses_a_wrong_digest_even_if_those_bytes_are_stored_already(store: Store) -> None:
    store.add_bytes(b"wrong")
    with pytest.raises(DigestMismatchError):
        store.add_bytes(b"wrong", expected=Digest.of_bytes(b"right"))


@pytest.mark.parametrize("fault", [RuntimeError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_an_interrupted_write_leaves_nothing(store: Store, fault: type[BaseException]) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"x" * (2 * CHUNK_BYTES)
        raise fault

    with pytest.raises(fault):
        store.add(chunks())
    assert (objects(store), in_progress(store)) == (set(), [])


def test_a_full_disk_is_said_and_leaves_nothing(store: Store) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"x"
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(StoreError, match="is full") as raised:
        store.add(chunks(), what="model.bin")
    assert "model.bin" in str(raised.value)
    assert "BERTIR_STORE" in raised.value.advice
    assert (objects(store), in_progress(store)) == (set(), [])


def test_a_killed_writer_leaves_no_object(store: Store) -> None:
    program = (
        "import os, signal, sys; from pathlib import Path; from bertir.store import Store\n"
        "def chunks():\n"
        "    yield b'x' * 5000000\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "Store(Path(sys.argv[1])).add(chunks())\n"
    )
    run = subprocess.run([sys.executable, "-c", program, str(store.root)], check=False)
    assert run.returncode == -9
    assert objects(store) == set()


@pytest.fixture
def left(tmp_path: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """A file that a step left, and what bertir has opened of it."""
    path = tmp_path / "model.bin"
    path.write_bytes(b"left by a step")
    path.chmod(0o666)
    os.utime(path, (0, 0))
    with path.open("rb") as file:
        yield path, file


def test_what_is_taken_is_the_same_file_under_its_digest_read_only_and_used_now(
    store: Store, left: tuple[Path, BinaryIO]
) -> None:
    before = left[0].stat().st_ino
    blob = store.take(*left, what="model.bin")
    assert blob == Blob(digest=Digest.of_bytes(b"left by a step"), size=14)
    found = store.path(blob.digest).stat()
    assert (found.st_ino, found.st_uid, found.st_mode & 0o7777) == (before, os.geteuid(), 0o444)
    assert time.time() - found.st_mtime < 60
    assert not left[0].exists()
    assert in_progress(store) == []


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.EDQUOT])
def test_what_cannot_be_made_this_users_own_is_copied(
    store: Store, left: tuple[Path, BinaryIO], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fchown", refuse)
    before = left[0].stat().st_ino
    blob = store.take(*left, what="model.bin")
    path = store.path(blob.digest)
    assert path.read_bytes() == left[0].read_bytes() == b"left by a step"
    assert path.stat().st_ino != before
    assert left[0].stat().st_mode & 0o777 == 0o666


def to_be_written(path: Path, *, mapped: bool) -> BinaryIO | mmap.mmap:
    file = path.open("r+b", buffering=0)
    if not mapped:
        return file
    with file:
        return mmap.mmap(file.fileno(), 0)


@pytest.mark.parametrize("mapped", [False, True])
def test_what_somebody_has_open_to_write_into_is_copied_and_their_writing_changes_no_object(
    store: Store, left: tuple[Path, BinaryIO], *, mapped: bool
) -> None:
    """Another step of the same container, say; once it is this user's own, nobody else can open it so."""
    with to_be_written(left[0], mapped=mapped) as writing:
        blob = store.take(*left, what="model.bin")
        writing.write(b"gone")
    path = store.path(blob.digest)
    assert path.read_bytes() == b"left by a step"
    assert blob == Blob(digest=Digest.of_bytes(b"left by a step"), size=14)
    assert path.stat().st_mode & 0o7777 == 0o444
    assert in_progress(store) == []


def test_another_file_in_the_place_of_what_is_taken_is_refused(
    store: Store, left: tuple[Path, BinaryIO]
) -> None:
    left[0].unlink()
    left[0].write_bytes(b"put there meanwhile")
    with pytest.raises(StoreError, match=r"model\.bin was another file when it was to be stored"):
        store.take(*left, what="model.bin")
    assert objects(store) == set()
    assert in_progress(store) == []


def test_a_disk_that_fails_while_something_is_taken_is_said_and_nothing_is_stored(
    store: Store, left: tuple[Path, BinaryIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StoreError, match=r"could not store model\.bin in .*: Input/output error"):
        store.take(*left, what="model.bin")
    assert objects(store) == set()
    assert in_progress(store) == []


class Unwanted:
    """In the place of sha256."""

    def update(self, chunk: bytes) -> None:
        message = f"{len(chunk)} bytes are hashed"
        raise AssertionError(message)


def test_an_object_that_this_process_wrote_is_copied_out_without_being_hashed_again(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = bytes(LARGE_BYTES)
    blob = store.add_bytes(large)
    with store.folder_of_links() as (folder, linked):
        linked.append(blob)
        with store.linking([blob]):
            os.link(store.path(blob.digest), folder / "link")
    careful = Store(tmp_path / "careful", paranoid=True)
    careful.add_bytes(large)
    monkeypatch.setattr("bertir.store.hashlib.sha256", Unwanted)
    store.copy_out(blob, tmp_path / "whole", what="model")
    assert (tmp_path / "whole").read_bytes() == large
    with pytest.raises(AssertionError, match="bytes are hashed"):
        careful.copy_out(blob, tmp_path / "hashed", what="model")


def test_an_object_that_this_process_wrote_and_somebody_changed_is_not_copied_out(
    store: Store, tmp_path: Path
) -> None:
    large = bytes(LARGE_BYTES)
    blob = store.add_bytes(large)
    path = store.path(blob.digest)
    before = path.stat()
    spoil(path, b"\1" + large[1:])
    path.chmod(0o444)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # its time of change tells of it all the same
    with pytest.raises(StoreError, match="held other bytes for model"):
        store.copy_out(blob, tmp_path / "damaged", what="model")


@pytest.mark.parametrize("damaged", [False, True], ids=["used", "damaged"])
def test_an_object_that_changes_while_it_is_read_is_read_once_more(store: Store, *, damaged: bool) -> None:
    large = bytes(2 * LARGE_BYTES)
    blob = store.add_bytes(large)
    path = store.path(blob.digest)
    chunks = store.read(blob, what="model")
    next(chunks)
    if damaged:
        spoil(path, large[:-1] + b"\1")
        with pytest.raises(StoreError, match="held other bytes for model"):
            list(chunks)
    else:
        os.utime(path)  # by another process, for which it is used as well
        assert b"".join(chunks) == large[CHUNK_BYTES:]
        assert store.find(blob.digest) == blob


def test_has_wants_the_recorded_size(store: Store) -> None:
    blob = store.add_bytes(b"four")
    assert store.has(blob)
    assert not store.has(Blob(digest=blob.digest, size=5))
    assert not store.has(Blob(digest=Digest.of_bytes(b"absent"), size=4))


def test_find_gives_the_size_of_what_is_there(store: Store) -> None:
    blob = store.add_bytes(b"here")
    assert store.find(blob.digest) == blob
    assert store.find(Digest.of_bytes(b"absent")) is None


def test_size_of_counts_each_stored_object_once(store: Store) -> None:
    one, other = store.add_bytes(b"12345"), store.add_bytes(b"678")
    assert store.size_of([one.digest, one.digest, other.digest, Digest.of_bytes(b"absent")]) == 8


@pytest.mark.parametrize(
    "damaged", [b"trunc", b"truncated in placE", b""], ids=["truncated", "flipped", "empty"]
)
def test_a_damaged_object_is_found_and_removed(store: Store, damaged: bytes) -> None:
    blob = store.add_bytes(b"truncated in place")
    spoil(store.path(blob.digest), damaged)
    with pytest.raises(StoreError, match=r"held other bytes for vocab.txt") as raised:
        store.checked(blob, what="vocab.txt")
    assert str(blob.digest) in str(raised.value)
    assert store.find(blob.digest) is None
    assert store.checked(store.add_bytes(b"truncated in place"), what="vocab.txt").read_bytes()


@pytest.mark.parametrize(
    "damaged", [b"trunc", b"truncated in placE", b""], ids=["truncated", "flipped", "empty"]
)
def test_a_damaged_object_is_not_copied_out(store: Store, tmp_path: Path, damaged: bytes) -> None:
    blob = store.add_bytes(b"truncated in place")
    spoil(store.path(blob.digest), damaged)
    target = tmp_path / "model.bin"
    with pytest.raises(StoreError, match=r"held other bytes for model\.bin"):
        store.copy_out(blob, target, what="model.bin")
    assert not target.exists()
    assert store.find(blob.digest) is None


def test_copy_out_never_writes_over_a_file_or_through_a_link(store: Store, tmp_path: Path) -> None:
    blob = store.add_bytes(b"data")
    (tmp_path / "precious").write_bytes(b"precious")
    (tmp_path / "link").symlink_to("precious")
    for name in ("precious", "link"):
        with pytest.raises(FileExistsError):
            store.copy_out(blob, tmp_path / name, what="data")
    assert (tmp_path / "precious").read_bytes() == b"precious"
    store.copy_out(blob, tmp_path / "new", what="data")
    assert (tmp_path / "new").read_bytes() == b"data"


@given(st.binary(min_size=1, max_size=300), st.data())
def test_any_flipped_bit_is_found(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, choice: st.DataObject
) -> None:
    store = Store(tmp_path_factory.mktemp("store"))
    blob = store.add_bytes(data)
    spoilt = bytearray(data)
    spoilt[choice.draw(st.integers(0, len(data) - 1))] ^= 1 << choice.draw(st.integers(0, 7))
    spoil(store.path(blob.digest), bytes(spoilt))
    with pytest.raises(StoreError):
        store.checked(blob, what="it")


@pytest.mark.parametrize("kind", ["folder", "fifo", "link", "file above"])
def test_what_is_no_file_in_an_objects_or_a_records_place_gives_way(
    store: Store, tmp_path: Path, kind: str
) -> None:
    blob = Blob(digest=Digest.of_bytes(b"object"), size=6)
    record = store.root / "records" / "step" / f"{KEY.hex}.json"
    for path in (store.path(blob.digest), record):
        if kind == "file above":
            path.parent.touch()
            continue
        path.parent.mkdir()
        if kind == "folder":
            (path / "deep").mkdir(parents=True)
        elif kind == "fifo":
            os.mkfifo(path)
        else:
            path.symlink_to(tmp_path)
    assert store.load_record("step", KEY) is None
    assert store.add(iter([b"object"])) == blob
    store.save_record("step", KEY, Record(artifact=Artifact(files={"x": blob})))
    assert store.load_record("step", KEY)
    assert tmp_path.exists()


# records


def saved(store: Store) -> tuple[Record, Path]:
    artifact = Artifact(files={"a": store.add_bytes(b"1"), "b": store.add_bytes(b"22")})
    record = Record(artifact=artifact, derivation={"step": "freeze"}, facts={"seconds": 1.5})
    store.save_record("freeze", KEY, record)
    return record, store.root / "records" / "freeze" / f"{KEY.hex}.json"


def test_a_record_reads_back(store: Store) -> None:
    record, path = saved(store)
    assert path.is_file()
    assert store.load_record("freeze", KEY) == record
    assert store.load_record("convert", KEY) is None
    assert store.load_record("freeze", Digest.of_bytes(b"other")) is None
    assert in_progress(store) == []


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"\xff",
        b'{"files": []}',
        b'{"files": {}, "facts": {}}',
        b'{"files": {"a": 1}, "derivation": {}, "facts": {}}',
        b'{"files": {"a": {"digest": "sha256:0", "size": 1}}, "derivation": {}, "facts": {}}',
        b'{"files": {"a": {"digest": 0, "size": 1}}, "derivation": {}, "facts": {}}',
        b'{"files": {"a": {"digest": "' + b"0" * 64 + b'"}}, "derivation": {}, "facts": {}}',
    ],
)
def test_a_damaged_record_is_as_good_as_none(store: Store, damage: bytes) -> None:
    _, path = saved(store)
    path.write_bytes(damage)
    assert store.load_record("freeze", KEY) is None


@given(st.data())
def test_a_record_cut_anywhere_is_as_good_as_none(
    tmp_path_factory: pytest.TempPathFactory, choice: st.DataObject
) -> None:
    store = Store(tmp_path_factory.mktemp("store"))
    _, path = saved(store)
    data = path.read_bytes()
    path.write_bytes(data[: choice.draw(st.integers(0, len(data) - 3))])
    assert store.load_record("freeze", KEY) is None


def test_a_record_that_is_a_folder_is_as_good_as_none(store: Store) -> None:
    (store.root / "records" / "freeze" / f"{KEY.hex}.json").mkdir(parents=True)
    assert store.load_record("freeze", KEY) is None


def test_a_record_whose_object_is_gone_or_cut_is_as_good_as_none(store: Store) -> None:
    record, _ = saved(store)
    path = store.path(record.artifact["b"].digest)
    spoil(path, b"2")
    assert store.load_record("freeze", KEY) is None
    path.unlink()
    assert store.load_record("freeze", KEY) is None


def test_saving_a_record_again_replaces_it_in_one_step(store: Store) -> None:
    record, path = saved(store)
    before = path.stat().st_ino
    store.save_record("freeze", KEY, Record(artifact=record.artifact, facts={"seconds": 2}))
    assert json.loads(path.read_bytes())["facts"] == {"seconds": 2}
    assert path.stat().st_ino != before  # renamed into place, not written over


def test_a_record_that_is_no_json_leaves_the_old_one(store: Store) -> None:
    record, _ = saved(store)
    with pytest.raises(ValueError, match="JSON compliant"):
        store.save_record("freeze", KEY, Record(artifact=record.artifact, facts={"seconds": float("nan")}))
    assert store.load_record("freeze", KEY) == record
    assert in_progress(store) == []


def test_an_artifact_has_one_digest_over_names_and_contents(store: Store) -> None:
    one, other = store.add_bytes(b"1"), store.add_bytes(b"22")
    artifact = Artifact(files={"a": one, "b": other})
    assert artifact.digest == Artifact(files={"b": other, "a": one}).digest
    assert artifact.digest != Artifact(files={"a": other, "b": one}).digest
    assert artifact.size == 3
    assert store.has_all(artifact)
    assert not store.has_all(Artifact(files={"a": one, "c": Blob(digest=KEY, size=1)}))


# locks and folders


def test_a_lock_is_held_by_one_at_a_time_and_let_go_after_an_error(store: Store) -> None:
    order: list[str] = []
    entered, leave = threading.Event(), threading.Event()

    def second() -> None:
        entered.wait(5)
        with Store(store.root).lock("it"):
            order.append("second")

    thread = threading.Thread(target=second)
    thread.start()
    with pytest.raises(RuntimeError), store.lock("it"):  # noqa: PT012 - the lock is what raises through
        entered.set()
        leave.wait(0.1)
        order.append("first")
        raise RuntimeError
    thread.join(5)
    assert order == ["first", "second"]


def test_the_lock_of_a_killed_process_is_let_go(store: Store) -> None:
    program = (
        "import sys, time; from pathlib import Path; from bertir.store import Store\n"
        "with Store(Path(sys.argv[1])).lock('it'):\n"
        "    print('held', flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(store.root)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        holder.kill()
    with store.lock("it"):
        pass


def test_a_temporary_folder_is_private_and_goes_whatever_happens(store: Store) -> None:
    with pytest.raises(RuntimeError), store.temporary_folder() as folder:  # noqa: PT012
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "deep").mkdir()
        (folder / "deep" / "file").touch()
        raise RuntimeError
    assert in_progress(store) == []


def test_a_store_that_can_not_be_made_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        StoreError, match=r"could not open the store in .*file/store: Not a directory"
    ) as raised:
        Store(tmp_path / "file" / "store")
    assert "BERTIR_STORE" in raised.value.advice


def test_opening_a_store_again_keeps_what_is_in_it(store: Store) -> None:
    blob = store.add_bytes(b"kept")
    assert Store(store.root).find(blob.digest) == blob


def test_clear_removes_the_store_and_nothing_beside_it(store: Store) -> None:
    store.add_bytes(b"x")
    (store.root.parent / "neighbour").touch()
    store.clear()
    assert not store.root.exists()
    assert (store.root.parent / "neighbour").exists()


# where it is


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"BERTIR_STORE": "/a/b", "XDG_CACHE_HOME": "/x", "HOME": "/h"}, "/a/b"),
        ({"BERTIR_STORE": "", "XDG_CACHE_HOME": "/x", "HOME": "/h"}, "/x/bertir"),
        ({"XDG_CACHE_HOME": "relative", "HOME": "/h"}, "/h/.cache/bertir"),
        ({"HOME": "/h"}, "/h/.cache/bertir"),
    ],
)
def test_the_store_is_where_the_environment_says(environment: dict[str, str], expected: str) -> None:
    assert default_root(environment) == Path(expected)


@pytest.mark.parametrize("environment", [{"BERTIR_STORE": "a/b", "HOME": "/h"}, {"BERTIR_STORE": "~/s"}, {}])
def test_no_place_for_the_store_is_a_configuration_error(environment: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="BERTIR_STORE"):
        default_root(environment)


@pytest.mark.parametrize("variable", ["BERTIR_STORE", "XDG_CACHE_HOME", "HOME"])
def test_a_store_whose_name_is_not_utf8_is_refused(tmp_path: Path, variable: str) -> None:
    with pytest.raises(ConfigurationError, match=r"UTF-8, and is b'.*st\\xffore") as raised:
        default_root({variable: os.fsdecode(bytes(tmp_path) + b"/st\xffore")})
    assert raised.value.exit_status == 2
    (tmp_path / "link").symlink_to(os.fsdecode(b"st\xffore"))
    with pytest.raises(ConfigurationError, match="UTF-8"):
        default_root({variable: str(tmp_path / "link")})


def test_one_store_has_one_name(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "link").symlink_to("store")
    for name in ("store", "link", "link/../store"):
        assert default_root({"BERTIR_STORE": str(tmp_path / name)}) == (tmp_path / "store").resolve()


def test_a_store_that_is_a_link_to_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("link")
    with pytest.raises(ConfigurationError, match="a link that leads to itself"):
        default_root({"BERTIR_STORE": str(tmp_path / "link")})


def test_who_waits_for_a_moment_only_is_told_nothing(store: Store) -> None:
    told: list[str] = []
    held = threading.Event()

    def hold() -> None:
        with store.lock("it"):
            held.set()
            time.sleep(0.2)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(10)
    with store.lock("it", waiting=lambda: told.append("waiting"), after=30):
        assert told == []
    thread.join()


def test_who_has_to_wait_for_a_lock_is_told_once(store: Store) -> None:
    told: list[str] = []
    held, waits = threading.Event(), threading.Event()

    def hold() -> None:
        with store.lock("it"):
            held.set()
            waits.wait(10)

    def waiting() -> None:
        told.append("waiting")
        waits.set()

    with store.lock("it", waiting=waiting):
        assert told == []  # nobody else has it
    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(10)
    with store.lock("it", waiting=waiting):
        assert told == ["waiting"]
    thread.join()

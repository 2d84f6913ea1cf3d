"""Disks that are full, read-only, or out of inodes, for real: under the store, the output, and what the user names.

Each time: one message with what was needed and what there is, nothing half-written, nothing lost of what was finished,
and the next run, with room, goes on from there.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
from typing import TYPE_CHECKING, Any

import pytest
from file_server import serve_files
from google_zip import write_zip
from packages import laid_out, small_intent
from packages import make_wheel as make_small_wheel
from small_disk import SmallDisk, small_disk

from bertir.archive import take_files
from bertir.bundle import write_bundle
from bertir.derivation import Derivation, Outcome, realise
from bertir.digest import Digest
from bertir.download import Source, download
from bertir.errors import BertirError, ConfigurationError, FetchError, NoRoomError
from bertir.fetch import Fetcher
from bertir.image import archive_size, describe_image, write_archive
from bertir.intent import PythonIntent
from bertir.lock import LayerPin, WheelPin
from bertir.materials import write_task_data
from bertir.progress import SILENT
from bertir.publish import publish
from bertir.store import Artifact, Store, StoreError
from bertir.web import Patience
from bertir.whole_file import whole_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    MakeWheel = Callable[[Path, str, str, Mapping[str, bytes]], Path]

MB = 1_000_000
LARGE = hashlib.shake_128(b"what doesn't compress").digest(6 * MB)
NEEDED_AND_FREE = re.compile(r"is full \((over )?(\d+\.\d) MB needed, (\d+\.\d) MB free\)")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk", "size=4m,mode=755") as mounted:
        yield mounted


@pytest.fixture
def full(disk: SmallDisk) -> Store:
    """A store on a disk of 4 MiB."""
    return Store(disk.path / "store")


def assert_said(error: BertirError, *, needed: float | None = None) -> None:
    """One message, status 1, with figures that explain it."""
    assert error.exit_status == 1
    found = NEEDED_AND_FREE.search(str(error))
    assert found, str(error)
    assert float(found[2]) >= float(found[3]) if found[1] else float(found[2]) > float(found[3])
    if needed is not None:
        assert abs(float(found[2]) - needed) < 0.06
    assert error.advice


def assert_clean(store: Store) -> None:
    """Nothing that isn't whole."""
    assert list((store.root / "tmp").iterdir()) == []
    for path in (store.root / "objects").rglob("*"):
        if path.is_file():
            assert Digest.of_file(path).hex == path.parent.name + path.name


# the store


def test_an_object_that_does_not_fit_is_said_with_its_size_and_leaves_nothing(
    disk: SmallDisk, full: Store, tmp_path: Path
) -> None:
    (tmp_path / "model.bin").write_bytes(LARGE)
    small = full.add_bytes(b"small")
    ways: list[Callable[[], object]] = [
        lambda: full.add_file(tmp_path / "model.bin"),
        lambda: full.add_bytes(LARGE, what="model.bin"),
    ]
    for add in ways:
        with pytest.raises(StoreError, match=r"could not store model\.bin: the disk of") as raised:
            add()
        assert_said(raised.value, needed=6.0)
        assert "invoke gc" in raised.value.advice
        assert_clean(full)
    assert full.has(small)
    disk.set("size=12m")
    assert full.add_file(tmp_path / "model.bin").size == 6 * MB


def test_a_stream_of_unknown_length_needs_more_than_what_came(full: Store) -> None:
    with pytest.raises(StoreError, match=r"over 4\.\d MB needed") as raised:
        full.add((LARGE[at : at + 100_000] for at in range(0, len(LARGE), 100_000)), what="layer")
    assert_said(raised.value)
    assert_clean(full)


def test_a_download_keeps_what_came_and_goes_on_when_there_is_room(disk: SmallDisk, full: Store) -> None:
    with serve_files() as files:
        files.files["/a.zip"] = LARGE
        wanted = Source(
            url=f"{files.url}/a.zip",
            key=Digest.of_bytes(LARGE),
            most=6 * MB,
            what="a.zip",
            patience=Patience(),
        )
        with pytest.raises(StoreError, match=r"could not download a\.zip") as raised:
            download(full, wanted, SILENT, Digest.of_file)
        assert_said(raised.value, needed=6.0)
        [part] = (full.root / "downloads").glob("*.part")
        kept = part.stat().st_size
        assert kept > 3 * MB
        disk.set("size=9m")

        def use(path: Path) -> None:  # whole, and then there is no room to store it
            full.add_file(path, what="a.zip")

        with pytest.raises(StoreError, match=r"could not store a\.zip"):
            download(full, wanted, SILENT, use)
        assert files.ranges == [None, f"bytes={kept}-"]
        disk.set("size=16m")
        download(full, wanted, SILENT, use)
        assert len(files.asked) == 2
    assert full.find(Digest.of_bytes(LARGE))
    assert_clean(full)


def test_of_a_zip_what_was_taken_before_the_disk_was_full_is_not_taken_again(
    disk: SmallDisk, full: Store, tmp_path: Path
) -> None:
    contents = {"small": b"small" * 1000, "large": LARGE}
    zipped = write_zip(tmp_path / "a.zip", contents)
    wanted = {name: Digest.of_bytes(data) for name, data in contents.items()}
    with pytest.raises(StoreError) as raised:
        take_files(full, zipped, wanted, what="a.zip")
    assert_said(raised.value)
    assert [name for name, digest in wanted.items() if full.find(digest)] == ["small"]
    assert_clean(full)
    disk.set("size=12m")
    assert len(take_files(full, zipped, wanted, what="a.zip")) == 2


def test_a_layer_that_does_not_fit_leaves_nothing(disk: SmallDisk, full: Store, tmp_path: Path) -> None:
    wheel = make_small_wheel(tmp_path, {"small/data": LARGE})
    with pytest.raises(StoreError, match="the layer") as raised:
        laid_out(full, small_intent(), [wheel])
    assert_said(raised.value)
    assert_clean(full)
    disk.set("size=12m")
    assert laid_out(full, small_intent(), [wheel]).size > 6 * MB


def test_a_step_whose_record_does_not_fit_is_as_if_it_had_not_run(disk: SmallDisk, full: Store) -> None:
    derivation = Derivation(step="freeze", version=1)
    runs = []

    def run() -> Outcome:
        runs.append(1)
        blob = full.add_bytes(b"outcome" * 1000)
        if len(runs) == 1:
            stack.enter_context(disk.filled())
        return Outcome(artifact=Artifact(files={"out": blob}))

    with contextlib.ExitStack() as stack, pytest.raises(StoreError, match="record freeze") as raised:
        realise(full, derivation, run)
    assert raised.value.exit_status == 1
    assert full.load_record("freeze", derivation.key) is None
    assert_clean(full)
    assert not realise(full, derivation, run).cached
    assert realise(full, derivation, run).cached
    assert len(runs) == 2


def test_wheels_that_do_not_fit_are_no_fault_of_the_index(
    disk: SmallDisk, full: Store, tmp_path: Path, make_wheel: MakeWheel, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = make_wheel(tmp_path / "index", "large", "1.0", {"large/x": LARGE})
    for name, value in {"NO_INDEX": "1", "FIND_LINKS": str(wheel.parent), "CONFIG_FILE": "/dev/null"}.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    pin = WheelPin(name="large", version="1.0", digest=Digest.of_file(wheel))
    fetcher = Fetcher(store=full, environment={}, progress=SILENT)
    python = PythonIntent(version="3.11", glibc="2.36", machine="x86_64", requirements=())
    with pytest.raises(StoreError, match=r"could not download wheels: the disk of .* is full") as raised:
        fetcher.wheels([pin], python)
    assert raised.value.exit_status == 1
    assert_clean(full)
    disk.set("size=24m")
    [(_, path)] = fetcher.wheels([pin], python)
    assert Digest.of_file(path) == pin.digest


def test_a_store_that_is_out_of_inodes_says_so(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "size=4m,mode=755,nr_inodes=20") as disk:
        store = Store(disk.path / "store")

        def fill() -> None:
            for number in range(20):
                store.add_bytes(bytes([number]))

        with pytest.raises(StoreError, match=r"holds no more files \(\d of 20 left: df -i") as raised:
            fill()
        assert raised.value.exit_status == 1
        assert_clean(store)
        disk.set("nr_inodes=200")
        assert store.add_bytes(b"more").size == 4


@pytest.mark.parametrize("work", ["an object", "a record", "a lock", "the lease", "a download"])
def test_a_store_that_can_only_be_read_says_so(disk: SmallDisk, full: Store, work: str) -> None:
    def fetch() -> None:
        with serve_files() as files:
            files.files["/it"] = b"it"
            wanted = Source(url=f"{files.url}/it", key=Digest.of_bytes(b"it"), most=2, what="it")
            download(full, wanted, SILENT, Digest.of_file)

    def enter(context: Any) -> None:
        with context:
            pass

    deed: Callable[[], object] = {
        "an object": lambda: full.add_bytes(b"x"),
        "a record": lambda: realise(
            full, Derivation(step="s", version=1), lambda: Outcome(artifact=Artifact(files={}))
        ),
        "a lock": lambda: enter(full.lock("l")),
        "the lease": lambda: enter(full.in_use()),
        "a download": fetch,
    }[work]
    disk.set("ro")
    with pytest.raises(StoreError, match=r"could not .*: the disk of .* can only be read") as raised:
        deed()
    assert "BERTIR_STORE" in raised.value.advice
    assert "room" not in raised.value.advice
    disk.set("rw")
    assert_clean(full)


def test_in_a_store_that_can_only_be_read_things_are_found(disk: SmallDisk, full: Store) -> None:
    blob = full.add_bytes(b"x")
    disk.set("ro")
    assert Store(full.root).find(blob.digest) == blob
    assert full.checked(blob, what="x").read_bytes() == b"x"


def test_a_quota_that_is_used_up_says_so(store: Store) -> None:
    def chunks() -> Iterator[
        bytes
    ]:  # tmpfs of this kernel has no quotas: the error is the kernel's own number
        yield b"x" * MB
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    with pytest.raises(StoreError, match=r"this user's quota on the disk of .*over 1\.0 MB needed"):
        store.add(chunks(), what="it")
    assert_clean(store)


# the output


def an_artifact(store: Store, data: bytes) -> Artifact:
    contents = {
        "model.xml": b"<net/>",
        "model.bin": data,
        "bert_config.json": b"{}\n",
        "vocab.txt": b"[PAD]\n",
        "report.json": b'{"bertir": "0.1.0"}\n',
    }
    return Artifact(files={name: store.add_bytes(content) for name, content in contents.items()})


def test_of_what_can_not_be_published_nothing_is_left_and_the_old_build_stays(
    store: Store, disk: SmallDisk
) -> None:
    folder = disk.path / "dist" / "model" / "variant"
    old = an_artifact(store, b"old")
    publish(store, old, folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(NoRoomError, match="could not publish to") as raised:
        publish(store, an_artifact(store, LARGE), folder)
    assert_said(raised.value, needed=6.0)
    assert "The build is in the store" in raised.value.advice
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in folder.parent.iterdir()] == ["variant"]
    disk.set("size=12m")
    publish(store, an_artifact(store, LARGE), folder)
    assert (folder / "model.bin").read_bytes() == LARGE


def test_an_output_that_can_only_be_read_says_so(store: Store, disk: SmallDisk) -> None:
    disk.set("ro")
    with pytest.raises(NoRoomError, match=r"could not publish .*: the disk of .* can only be read") as raised:
        publish(store, an_artifact(store, b"new"), disk.path / "dist" / "variant")
    assert raised.value.exit_status == 1


def an_image(store: Store) -> Any:
    blob = store.add_bytes(LARGE)
    return describe_image(small_intent(), [LayerPin(name="debian", digest=blob.digest, size=blob.size)])


def test_an_archive_of_an_image_appears_whole_or_not_at_all(store: Store, disk: SmallDisk) -> None:
    image, path = an_image(store), disk.path / "image.tar"
    path.write_bytes(b"the one of before")
    with pytest.raises(NoRoomError, match=r"can't write .*image\.tar: the disk of") as raised:
        write_archive(store, image, path)
    assert_said(raised.value, needed=archive_size(image) / 1e6)
    assert [item.name for item in disk.path.iterdir()] == ["image.tar"]
    assert path.read_bytes() == b"the one of before"
    disk.set("size=12m")
    write_archive(store, image, path)
    assert path.stat().st_size == archive_size(image)


def test_a_bundle_appears_whole_or_not_at_all(store: Store, disk: SmallDisk) -> None:
    named = {"a": store.add_bytes(LARGE).digest, "b": store.add_bytes(b"b").digest}
    with pytest.raises(NoRoomError) as raised:
        write_bundle(store, named, disk.path / "b.tar", SILENT)
    assert_said(raised.value, needed=6.0)
    assert list(disk.path.iterdir()) == []
    disk.set("size=12m")
    assert write_bundle(store, named, disk.path / "b.tar", SILENT) > 6 * MB


@pytest.mark.parametrize("kind", [ConfigurationError, FetchError])
def test_any_other_file_of_the_users_appears_whole_or_not_at_all(
    disk: SmallDisk, kind: type[BertirError]
) -> None:
    path = disk.path / "sbom.json"

    def write() -> None:
        with whole_file(path, kind) as file:
            file.write(LARGE)

    with pytest.raises(NoRoomError) as raised:
        write()
    assert_said(raised.value)
    assert list(disk.path.iterdir()) == []
    disk.set("ro")
    with pytest.raises(NoRoomError, match="can only be read"):
        write()


def test_task_data_that_do_not_fit_leave_what_lay_there(store: Store, disk: SmallDisk) -> None:
    class Builder:
        pass

    builder: Any = Builder()
    builder.store = store
    split = Artifact(files={name: store.add_bytes(LARGE) for name in ("train.tsv", "dev.tsv")})
    (disk.path / "train.tsv").write_bytes(b"of before")
    with pytest.raises(NoRoomError, match=r"can't write .*train\.tsv") as raised:
        write_task_data(builder, split, disk.path)
    assert_said(raised.value, needed=6.0)
    assert {path.name: path.read_bytes() for path in disk.path.iterdir()} == {"train.tsv": b"of before"}
    disk.set("size=16m")
    write_task_data(builder, split, disk.path)
    assert (disk.path / "dev.tsv").read_bytes() == LARGE

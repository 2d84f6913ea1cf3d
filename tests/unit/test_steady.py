"""A checkpoint that is written to while it is read: another process does so, in the middle, whenever the test says."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bertir.digest import Digest
from bertir.errors import ConfigurationError
from bertir.hint import LARGE_BYTES
from bertir.local_checkpoint import Options, add_checkpoint, find_checkpoint
from bertir.small_file import read_small
from bertir.store import Store
from bertir.task_data import mrpc_dev_tsv, read_dev_tsv

if TYPE_CHECKING:
    from collections.abc import Callable


CONFIG = {"max_position_embeddings": 64, "num_hidden_layers": 3, "vocab_size": 8}
INDEX, DATA = "model.ckpt.index", "model.ckpt.data-00000-of-00001"
OLD = b"old" * 1_000_000
# Writes its first argument's file anew from the middle on, in place, or by another file; sets the time back if told so.
WRITER = """
import os, sys
path, how, byte = sys.argv[1:]
before = os.stat(path)
if how == "replaced":
    with open(path + ".new", "wb") as file:
        file.write(byte.encode() * before.st_size)
    os.rename(path + ".new", path)
elif how == "longer":
    with open(path, "ab") as file:
        file.write(b"more")
else:
    with open(path, "r+b") as file:
        file.seek(before.st_size // 2)
        file.write(byte.encode() * (before.st_size - before.st_size // 2))
if how == "time set back" or how == "replaced":
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "tuned"
    made.mkdir()
    (made / INDEX).write_bytes(b"index of old")
    (made / DATA).write_bytes(OLD)
    (made / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\ncat\n")
    (made / "bert_config.json").write_text(json.dumps(CONFIG))
    return made


def write(path: Path, how: str) -> None:
    """Let another process write to it."""
    subprocess.run([sys.executable, "-S", "-c", WRITER, str(path), how, "n"], check=True)


def objects(store: Store) -> list[bytes]:
    return [path.read_bytes() for path in (store.root / "objects").rglob("*") if path.is_file()]


class Reader(io.FileIO):
    """Calls back once its first bytes have been read."""

    def __init__(self, path: str, then: Callable[[], None]) -> None:
        super().__init__(path)
        self._then: Callable[[], None] | None = then

    def _tell(self) -> None:
        if self._then is not None:
            then, self._then = self._then, None
            then()

    def read(self, size: int | None = -1, /) -> bytes:
        data: bytes = super().read(min(1 << 20, size or 0))
        self._tell()
        return data

    def readinto(self, buffer: Any, /) -> int:
        count: int = super().readinto(memoryview(buffer)[: 1 << 20])
        self._tell()
        return count


def in_the_middle(
    monkeypatch: pytest.MonkeyPatch, of: Path, write_now: Callable[[], None], *, reading: int
) -> None:
    """Have `write_now` called when the first megabyte of `of` has come, at its first or second reading."""
    readings = 0
    opened = Path.open

    def open_(self: Path, *arguments: Any, **options: Any) -> Any:
        nonlocal readings
        if self != of or arguments != ("rb",):
            return opened(self, *arguments, **options)
        readings += 1
        return Reader(str(of), write_now if readings == reading else lambda: None)

    monkeypatch.setattr(Path, "open", open_)


@pytest.mark.parametrize("reading", [1, 2], ids=["when it is read first", "when it is read again"])
@pytest.mark.parametrize("how", ["in place", "time set back", "replaced", "longer"])
def test_a_checkpoint_that_is_written_while_it_is_read_is_one_message_and_nothing_of_it_is_kept(
    folder: Path, store: Store, monkeypatch: pytest.MonkeyPatch, how: str, reading: int
) -> None:
    found = find_checkpoint(Options(path=folder))
    other = bytes(len(OLD))
    if reading == 2:  # it is hashed first, as it might be this one
        store.add_bytes(other)
    in_the_middle(monkeypatch, folder / DATA, lambda: write(folder / DATA, how), reading=reading)
    with pytest.raises(ConfigurationError, match=f"{DATA} changed while it was read") as raised:
        add_checkpoint(store, found)
    assert "Is a training still running? Copy the checkpoint" in raised.value.advice
    assert raised.value.exit_status == 2
    assert all(kept in {OLD, b"index of old", other} for kept in objects(store))
    assert list((store.root / "tmp").iterdir()) == []


def test_an_index_of_one_saving_and_data_of_the_next_are_no_checkpoint(
    folder: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = find_checkpoint(Options(path=folder))

    def save_anew() -> None:
        write(folder / INDEX, "replaced")

    # Both files are read whole, each of them as it is at that moment; the index has been read before.
    assert next(iter(found.files.values())) == folder / INDEX
    in_the_middle(monkeypatch, folder / DATA, save_anew, reading=1)
    with pytest.raises(ConfigurationError, match=f"{INDEX} changed while it was read"):
        add_checkpoint(store, found)


def test_what_changes_while_the_last_file_is_stored_is_noticed_too(
    folder: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = find_checkpoint(Options(path=folder))
    add_bytes, last = Store.add_bytes, list(found.files)[-1]

    def added(self: Store, data: bytes, **options: Any) -> Any:
        blob = add_bytes(self, data, **options)
        if options["what"] == last:
            write(folder / INDEX, "longer")
        return blob

    monkeypatch.setattr(Store, "add_bytes", added)
    with pytest.raises(ConfigurationError, match=f"{INDEX} changed while it was read"):
        add_checkpoint(store, found)


@pytest.mark.parametrize("name", ["vocab.txt", "bert_config.json", INDEX, DATA])
@pytest.mark.parametrize("how", ["time set back", "replaced", "longer"])
def test_what_changes_between_being_looked_at_and_being_copied_is_noticed(
    folder: Path, store: Store, name: str, how: str
) -> None:
    found = find_checkpoint(Options(path=folder))
    write(folder / name, how)
    with pytest.raises(ConfigurationError, match=f"{name} changed while it was read"):
        add_checkpoint(store, found)
    assert objects(store) == []


def test_what_is_gone_meanwhile_is_said(folder: Path, store: Store) -> None:
    found = find_checkpoint(Options(path=folder))
    (folder / DATA).unlink()
    with pytest.raises(ConfigurationError, match=f"can't read .*{DATA}: No such file"):
        add_checkpoint(store, found)


def test_a_file_that_was_written_a_moment_before_is_no_change(folder: Path, store: Store) -> None:
    for number in range(20):
        (folder / DATA).write_bytes(OLD + bytes([number]))
        added = add_checkpoint(store, find_checkpoint(Options(path=folder)))
        assert added["bert_model.ckpt.data-00000-of-00001"].digest == Digest.of_bytes(OLD + bytes([number]))


def test_a_checkpoint_that_is_in_the_store_is_read_once_and_not_written(
    folder: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = add_checkpoint(store, find_checkpoint(Options(path=folder)))
    monkeypatch.setattr(Store, "add_written", None)
    assert add_checkpoint(store, find_checkpoint(Options(path=folder))) == first


def test_it_is_said_before_a_large_file_is_copied_and_not_said_of_what_is_stored(
    folder: Path, store: Store
) -> None:
    said: list[int] = []
    large = b"x" * LARGE_BYTES
    (folder / DATA).write_bytes(large)
    found = find_checkpoint(Options(path=folder))
    add_checkpoint(store, found, lambda: said.append(len(objects(store))))
    assert len(said) == 1
    assert said[0] < len(objects(store))  # its own object isn't there yet
    # Another one of this size is read before anything is said: it might be the one that is there.
    (folder / DATA).write_bytes(large[:-1] + b"!")
    add_checkpoint(store, find_checkpoint(Options(path=folder)), lambda: said.append(0))
    assert len(said) == 2
    (folder / DATA).write_bytes(large)
    found = find_checkpoint(Options(path=folder))
    add_checkpoint(store, found, lambda: said.append(0))
    assert len(said) == 2


def test_rows_that_are_written_while_they_are_read_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "dev.tsv"
    path.write_bytes(mrpc_dev_tsv())
    assert read_dev_tsv(tmp_path) == mrpc_dev_tsv()

    def slowly(place: Path, most: int) -> bytes:
        data = read_small(place, most)
        assert place == path
        write(path, "longer")
        return data

    monkeypatch.setattr("bertir.task_data.read_small", slowly)
    with pytest.raises(ConfigurationError, match=r"dev\.tsv changed while it was read") as raised:
        read_dev_tsv(tmp_path)
    assert "still being written" in raised.value.advice


def test_links_and_names_are_no_change_but_another_file_under_the_link_is(
    folder: Path, store: Store, tmp_path: Path
) -> None:
    (folder / DATA).rename(tmp_path / "elsewhere")
    (folder / DATA).symlink_to(tmp_path / "elsewhere")
    found = find_checkpoint(Options(path=folder))
    add_checkpoint(store, found)
    (tmp_path / "other").write_bytes(OLD)
    (folder / DATA).unlink()
    (folder / DATA).symlink_to(tmp_path / "other")
    with pytest.raises(ConfigurationError, match="changed while it was read"):
        add_checkpoint(store, found)

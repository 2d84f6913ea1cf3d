"""Remembered digests: what is read again and what isn't, and that no hint can make anything but "nothing to do"."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from asking import AskedError, Asking
from damage import LIE, flip, lie
from done_build import LARGE, ROOT, done_builder, tuned
from small_disk import small_disk

from bertir import commands, evidence, mark
from bertir.builder import Layout
from bertir.collect import Rules, collect
from bertir.digest import Digest
from bertir.errors import ConfigurationError, VerificationError
from bertir.hint import LARGE_BYTES, SAMPLE_BYTES, SAMPLES, Hints
from bertir.local_checkpoint import Options, add_checkpoint, find_checkpoint
from bertir.mark import GRAIN_NS, Mark
from bertir.pipeline import build_ir
from bertir.progress import SILENT
from bertir.report import Request
from bertir.session import Session
from bertir.store import Artifact, LostObjectError, Record, Store
from bertir.wanted import Given, Wanted

if TYPE_CHECKING:
    from collections.abc import Callable

    from done_build import Tuned

    from bertir.publish import Published

REQUEST = Request(model="all-minilm-l6-v2")
KEY = Digest.of_bytes(b"key")
FETCH: dict[str, Any] = {"model": "", "mirror": "", "task_data": "", "output": "", "as_json": True}
CHECK: dict[str, Any] = {"checkpoint": None, "mirror": "", "wanted": Wanted(), "as_json": True}
LOOKED = SAMPLES * SAMPLE_BYTES + 20_000  # bytes: of a file that isn't read as a whole
NO_OTHER_SOURCE: dict[str, Any] = {"bundle": "", "mirror": "", "as_json": True}
TICK = 0.03  # seconds, in which the times of files move for sure


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files settle within a tick, not in seconds."""
    monkeypatch.setattr(mark, "GRAIN_NS", int(TICK * 1e9))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A large file, settled."""
    path = tmp_path / "model.bin"
    path.write_bytes(LARGE)
    time.sleep(2 * TICK)
    return path


def bytes_read(work: Callable[[], object]) -> int:
    """Count what this process reads meanwhile, from disks and memory."""

    def so_far() -> int:
        return int(Path("/proc/self/io").read_text(encoding="ascii").split()[1])

    before = so_far()
    work()
    return so_far() - before


def hints(store: Store) -> list[Path]:
    return sorted((store.root / "hints").iterdir())


# what is read


@pytest.mark.usefixtures("soon")
def test_a_large_file_is_read_once_and_not_again_by_other_processes(store: Store, file: Path) -> None:
    assert bytes_read(lambda: store.hints.digest(file)) >= len(LARGE)
    for one in (store, Store(store.root)):
        found: list[Digest] = []
        assert bytes_read(lambda one=one, found=found: found.append(one.hints.digest(file))) < LOOKED  # type: ignore[misc]
        assert found == [Digest.of_bytes(LARGE)]
    assert [path.stat().st_mode & 0o777 for path in hints(store)] == [0o600]


@pytest.mark.usefixtures("soon")
def test_a_small_file_is_always_read(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "vocab.txt"
    path.write_bytes(b"x" * (LARGE_BYTES - 1))
    time.sleep(2 * TICK)
    store.hints.digest(path)
    assert bytes_read(lambda: store.hints.digest(path)) >= LARGE_BYTES - 1
    assert hints(store) == []


def test_a_file_that_changed_a_moment_ago_is_not_remembered(store: Store, file: Path) -> None:
    assert time.time_ns() - file.stat().st_ctime_ns < GRAIN_NS
    store.hints.digest(file)
    assert hints(store) == []
    assert bytes_read(lambda: store.hints.digest(file)) >= len(LARGE)


@pytest.mark.usefixtures("soon")
def test_a_file_whose_time_lies_ahead_is_not_remembered(store: Store, file: Path) -> None:
    os.utime(file, (time.time() + 3600, time.time() + 3600))
    time.sleep(2 * TICK)
    store.hints.digest(file)
    assert hints(store) == []


@pytest.mark.usefixtures("soon")
def test_a_file_that_is_written_to_while_it_is_read_is_not_remembered(
    store: Store, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = hashlib.file_digest

    def slowly(*given: Any) -> Any:
        found = read(*given)
        with file.open("ab") as more:
            more.write(b"more")
        return found

    monkeypatch.setattr(hashlib, "file_digest", slowly)
    store.hints.digest(file)
    assert hints(store) == []


def in_place(path: Path) -> None:
    status = path.stat()
    with path.open("r+b") as file:
        file.write(b"!")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def replaced(path: Path) -> None:
    status = path.stat()
    other = path.with_suffix(".new")
    other.write_bytes(b"!" + LARGE[1:])
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.rename(path)


def mapped(path: Path) -> None:
    import mmap

    status = path.stat()
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        memory[0:1] = b"!"
        memory.flush()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("change", [in_place, replaced, mapped])
def test_a_change_is_seen_though_size_and_modification_time_are_the_same(
    store: Store, file: Path, change: Callable[[Path], None]
) -> None:
    store.hints.digest(file)
    change(file)
    for one in (store, Store(store.root)):
        assert one.hints.digest(file) == Digest.of_bytes(b"!" + LARGE[1:])


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("field", ["device", "inode", "size", "modified_ns", "changed_ns"])
def test_a_hint_of_another_mark_is_none(store: Store, file: Path, field: str) -> None:
    lie(store, file, **{field: getattr(Mark.of(file.stat()), field) + 1})
    assert store.hints.digest(file) == Digest.of_bytes(LARGE)


def remounted(store: Store, path: Path, data: bytes) -> None:
    """Have another file there, with the number and the times of the one that was: as on a file system that makes them up."""
    [place] = hints(store)
    noted = json.loads(place.read_bytes())
    path.write_bytes(data)
    noted["digest_of"] = asdict(Mark.of(path.stat()))
    del noted["sha256"]
    place.write_text(json.dumps(noted | {"sha256": Digest.of_json(noted).hex}), encoding="ascii")


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("where", ["throughout", "at the begin", "in the middle", "at the end"])
def test_another_checkpoint_with_the_mark_of_the_one_before_is_read(
    store: Store, file: Path, where: str
) -> None:
    store.hints.digest(file)
    data = bytearray(LARGE)
    if where == "throughout":
        data.reverse()
    else:
        data[{"at the begin": 0, "in the middle": len(data) * 8 // 15, "at the end": -1}[where]] ^= 1
    remounted(store, file, bytes(data))
    assert Store(store.root).hints.digest(file) == Digest.of_bytes(bytes(data))


@pytest.mark.usefixtures("soon")
def test_of_a_file_whose_mark_is_the_same_no_more_is_read_than_samples(store: Store, file: Path) -> None:
    store.hints.digest(file)
    remounted(store, file, LARGE)
    assert bytes_read(lambda: Store(store.root).hints.digest(file)) < LOOKED


# what lies in the store


DAMAGED = {
    "empty": b"",
    "no JSON": b"{",
    "another value": b"[]",
    "nothing in it": b"{}",
    "nested": b"[" * 3000,
    "long": b" " * 5000,
    "zeros": bytes(300),
    "not UTF-8": b"\xff\xfe",
}


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_hint_is_none_and_is_written_anew(store: Store, file: Path, damage: str) -> None:
    place = lie(store, file)
    place.write_bytes(DAMAGED[damage])
    assert store.hints.digest(file) == Digest.of_bytes(LARGE)
    assert bytes_read(lambda: Store(store.root).hints.digest(file)) < LOOKED


@pytest.mark.usefixtures("soon")
def test_a_hint_cut_anywhere_or_with_any_bit_flipped_is_never_believed(store: Store, file: Path) -> None:
    place = lie(store, file)
    whole = place.read_bytes()
    for number in range(len(whole)):
        for data in (whole[:number], whole[:number] + bytes([whole[number] ^ 1]) + whole[number + 1 :]):
            place.write_bytes(data)
            assert Store(store.root).hints.digest(file) == Digest.of_bytes(LARGE), data


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("what", ["folder", "pipe", "link to nothing"])
def test_what_is_no_file_in_a_hints_place_costs_a_reading_and_no_more(
    store: Store, file: Path, what: str
) -> None:
    place = lie(store, file)
    place.unlink()
    if what == "folder":
        place.mkdir()
    elif what == "pipe":
        os.mkfifo(place)
    else:
        place.symlink_to("nowhere")
    assert store.hints.digest(file) == Digest.of_bytes(LARGE)


@pytest.mark.usefixtures("soon")
def test_a_store_that_takes_no_hint_gives_the_digest_all_the_same(file: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "size=4m,mode=755") as disk:
        full = Store(disk.path / "store")
        disk.set("ro")
        assert full.hints.digest(file) == Digest.of_bytes(LARGE)
        assert hints(full) == []


@pytest.mark.usefixtures("soon")
def test_processes_that_note_the_same_file_at_once_leave_one_whole_hint(store: Store, file: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from bertir import mark; from bertir.store import Store\n"
        "mark.GRAIN_NS = 0; store = Store(Path(sys.argv[1]), paranoid=True)\n"
        "for _ in range(20): print(store.hints.digest(Path(sys.argv[2])))\n"
    )
    command = [sys.executable, "-c", program, str(store.root), str(file)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    told = {line for process in running for line in process.communicate()[0].split()}
    assert told == {str(Digest.of_bytes(LARGE))}
    assert len(hints(store)) == 1
    assert list((store.root / "tmp").iterdir()) == []
    assert bytes_read(lambda: store.hints.digest(file)) < LOOKED


@pytest.mark.usefixtures("soon")
def test_the_collector_takes_old_hints_and_a_store_that_is_removed_takes_all(
    store: Store, file: Path
) -> None:
    store.hints.digest(file)
    [place] = hints(store)
    os.utime(place, (1e9, 1e9))
    collect(store, Rules(older_than=3600))
    assert hints(store) == []
    store.hints.digest(file)
    store.clear()
    assert not store.root.exists()


# paranoid


@pytest.mark.usefixtures("soon")
def test_who_is_paranoid_believes_no_hint_and_puts_a_wrong_one_right(store: Store, file: Path) -> None:
    lie(store, file)
    assert store.hints.digest(file) == LIE
    assert Store(store.root, paranoid=True).hints.digest(file) == Digest.of_bytes(LARGE)
    assert Store(store.root).hints.digest(file) == Digest.of_bytes(LARGE)


@pytest.mark.usefixtures("soon")
def test_who_is_paranoid_reads_each_time(store: Store, file: Path) -> None:
    careful = Store(store.root, paranoid=True)
    for _ in range(2):
        assert bytes_read(lambda: careful.hints.digest(file)) >= len(LARGE)


# nothing is made on the word of a hint


@pytest.fixture
def checkpoint(tmp_path: Path) -> Tuned:
    made = tuned(tmp_path / "tuned")
    time.sleep(2 * TICK)
    return made


def build(store: Store, checkpoint: Tuned, output: Path, precision: str = "fp16") -> tuple[int, Published]:
    """Build; give how many steps ran, and what was published."""
    local = find_checkpoint(Options(path=checkpoint.folder))
    with done_builder(store) as builder:
        _, published = build_ir(builder, Request(model="", precision=precision), output, local)
    return builder.ran, published


@pytest.mark.usefixtures("soon")
def test_a_build_with_nothing_to_do_reads_neither_the_checkpoint_nor_the_model_again(
    store: Store, checkpoint: Tuned, tmp_path: Path
) -> None:
    ran, published = build(store, checkpoint, tmp_path / "dist")
    assert ran
    assert not published.unchanged
    again: list[tuple[int, Published]] = []
    fresh = Store(store.root)
    assert bytes_read(lambda: again.append(build(fresh, checkpoint, tmp_path / "dist"))) < len(LARGE)
    [(ran, published)] = again
    assert ran == 0
    assert published.unchanged


@pytest.mark.usefixtures("soon")
def test_before_a_step_runs_what_a_hint_was_believed_of_is_read(
    store: Store, checkpoint: Tuned, tmp_path: Path
) -> None:
    build(store, checkpoint, tmp_path / "dist")
    fresh = Store(store.root)
    read = bytes_read(lambda: build(fresh, checkpoint, tmp_path / "dist", "fp32"))
    assert read >= 2 * len(LARGE)  # the checkpoint, and the model that is published


@pytest.mark.usefixtures("soon")
def test_a_checkpoint_whose_bytes_changed_and_no_time_with_them_is_built_from_by_nothing(
    store: Store, checkpoint: Tuned, tmp_path: Path
) -> None:
    build(store, checkpoint, tmp_path / "dist")
    stored = Digest.of_bytes(LARGE[::-1])
    flip(checkpoint.data)
    time.sleep(2 * TICK)
    lie(store, checkpoint.data, stored)  # as if no time had changed
    fresh = Store(store.root)
    ran, published = build(fresh, checkpoint, tmp_path / "dist")
    assert (ran, published.unchanged) == (0, True)  # this is what is given up
    places = (tmp_path / "dist", store.root / "records")
    before = [sorted(place.rglob("*")) for place in places]
    with pytest.raises(ConfigurationError, match="holds other bytes than when it was read last") as raised:
        build(fresh, checkpoint, tmp_path / "dist", "fp32")
    assert str(stored) in str(raised.value)
    assert [sorted(place.rglob("*")) for place in places] == before  # no step ran
    ran, _ = build(Store(store.root), checkpoint, tmp_path / "dist", "fp32")
    assert ran  # from what lies there now, as its hint is gone


def test_a_hint_that_was_found_wrong_is_not_believed_again(store: Store, file: Path) -> None:
    lie(store, file)
    assert store.hints.digest(file, built_from=True) == LIE
    with pytest.raises(ConfigurationError, match=r"holds other bytes .* and its size and times are the same"):
        store.hints.confirm()
    assert Store(store.root).hints.digest(file) == Digest.of_bytes(LARGE)


@pytest.mark.usefixtures("soon")
def test_a_checkpoint_that_is_written_to_before_the_first_step_is_said_to_be(
    store: Store, file: Path
) -> None:
    store.hints.digest(file)
    fresh = Store(store.root)
    fresh.hints.digest(file, built_from=True)
    in_place(file)
    with pytest.raises(ConfigurationError, match="and was written to since this build began"):
        fresh.hints.confirm()


@pytest.mark.usefixtures("soon")
def test_what_was_confirmed_is_not_read_once_more(store: Store, file: Path) -> None:
    store.hints.digest(file)
    fresh = Store(store.root)
    fresh.hints.digest(file, built_from=True)
    assert bytes_read(fresh.hints.confirm) >= len(LARGE)
    fresh.hints.digest(file, built_from=True)
    assert bytes_read(fresh.hints.confirm) < LOOKED


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("same_size", [True, False])
def test_a_wrong_hint_of_what_the_store_no_longer_has_stops_no_build(
    store: Store, checkpoint: Tuned, tmp_path: Path, *, same_size: bool
) -> None:
    lie(store, checkpoint.data)  # as of bytes that were collected
    if same_size:
        store.add_bytes(b"!" + LARGE[1:])
    for ran in (True, False):
        assert bool(build(Store(store.root), checkpoint, tmp_path / "dist")[0]) == ran
    assert store.find(Digest.of_bytes(LARGE[::-1])) is not None


@pytest.mark.usefixtures("soon")
def test_a_wrong_hint_of_what_the_store_no_longer_has_is_put_right(store: Store, checkpoint: Tuned) -> None:
    lie(store, checkpoint.data)
    store.add_bytes(b"!" + LARGE[1:])
    add_checkpoint(store, find_checkpoint(Options(path=checkpoint.folder)))
    assert Store(store.root).hints.digest(checkpoint.data) == Digest.of_bytes(LARGE[::-1])


@pytest.mark.usefixtures("soon")
def test_nothing_is_published_from_a_checkpoint_that_was_only_believed(
    store: Store, checkpoint: Tuned, tmp_path: Path
) -> None:
    build(store, checkpoint, tmp_path / "dist")
    flip(checkpoint.data)
    time.sleep(2 * TICK)
    lie(store, checkpoint.data, Digest.of_bytes(LARGE[::-1]))
    with pytest.raises(ConfigurationError, match="holds other bytes"):
        build(Store(store.root), checkpoint, tmp_path / "elsewhere")
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.usefixtures("soon")
def test_a_paranoid_build_sees_what_a_hint_hides(store: Store, checkpoint: Tuned, tmp_path: Path) -> None:
    _, published = build(store, checkpoint, tmp_path / "dist")
    model = published.folder / "model.bin"
    flip(model)
    time.sleep(2 * TICK)
    lie(store, model, Digest.of_bytes(LARGE))
    assert build(Store(store.root), checkpoint, tmp_path / "dist")[1].unchanged
    _, anew = build(Store(store.root, paranoid=True), checkpoint, tmp_path / "dist")
    assert not anew.unchanged
    assert model.read_bytes() == LARGE


@pytest.mark.usefixtures("soon")
def test_a_published_file_that_is_damaged_in_place_is_published_anew(
    store: Store, checkpoint: Tuned, tmp_path: Path
) -> None:
    _, published = build(store, checkpoint, tmp_path / "dist")
    time.sleep(2 * TICK)
    build(store, checkpoint, tmp_path / "dist")
    flip(published.folder / "model.bin")
    ran, anew = build(Store(store.root), checkpoint, tmp_path / "dist")
    assert (ran, anew.unchanged) == (0, False)
    assert (anew.folder / "model.bin").read_bytes() == LARGE


# what was just published


@pytest.fixture
def staged(tmp_path: Path) -> Path:
    """A folder with a large file and a small one, complete for a tick."""
    folder = tmp_path / "staged"
    folder.mkdir()
    (folder / "model.bin").write_bytes(LARGE)
    (folder / "model.xml").write_bytes(b"<net/>")
    time.sleep(2 * TICK)
    return folder


FILES = {"model.bin": Digest.of_bytes(LARGE), "model.xml": Digest.of_bytes(b"<net/>")}


def test_what_was_published_is_remembered_at_once(store: Store, staged: Path) -> None:
    written = store.hints.written(staged, FILES)
    placed = staged.rename(staged.with_name("dist"))
    store.hints.published(placed, written)
    found: list[Digest] = []
    other = Store(store.root)
    assert bytes_read(lambda: found.append(other.hints.digest(placed / "model.bin"))) < LOOKED
    assert found == [Digest.of_bytes(LARGE)]
    assert len(hints(store)) == 1


def by_flipping(folder: Path) -> None:
    flip(folder / "model.bin")


def by_renaming(folder: Path) -> None:
    (folder / "new").write_bytes(LARGE[:-1] + b"!")
    (folder / "new").replace(folder / "model.bin")


def by_another_folder(folder: Path) -> None:
    folder.rename(folder.with_name("old"))
    folder.mkdir()
    (folder / "model.bin").write_bytes(LARGE[:-1] + b"!")


@pytest.mark.parametrize("change", [by_flipping, by_renaming, by_another_folder])
@pytest.mark.parametrize("noted", [False, True])
def test_what_others_do_to_it_once_it_has_its_place_is_seen(
    store: Store, staged: Path, change: Callable[[Path], None], *, noted: bool
) -> None:
    written = store.hints.written(staged, FILES)
    placed = staged.rename(staged.with_name("dist"))
    if noted:
        store.hints.published(placed, written)
    before = (placed / "model.bin").stat()
    change(placed)
    os.utime(placed / "model.bin", ns=(before.st_atime_ns, before.st_mtime_ns))
    time.sleep(2 * TICK)
    (placed / "provenance.intoto.jsonl").touch()  # the folder's own times say nothing
    if not noted:
        store.hints.published(placed, written)
        assert hints(store) == []
    found = Store(store.root).hints.digest(placed / "model.bin")
    assert found == Digest.of_bytes((placed / "model.bin").read_bytes()) != FILES["model.bin"]


def test_what_is_written_while_the_clock_stands_still_is_not_remembered(
    store: Store, staged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What touching the folder gives, where the clock stands still: the time of the file's last change.
    changed = Mark.of((staged / "model.bin").stat()).changed_ns
    stat = Path.stat

    def standing(path: Path, **how: Any) -> object:
        found = stat(path, **how)
        return SimpleNamespace(st_ctime_ns=changed) if path == staged else found

    monkeypatch.setattr(Path, "stat", standing)
    assert store.hints.written(staged, FILES) == {}
    changed += 1
    assert store.hints.written(staged, FILES).keys() == {"model.bin"}


def test_what_is_gone_by_then_is_not_remembered(store: Store, staged: Path) -> None:
    written = store.hints.written(staged, FILES)
    assert written.keys() == {"model.bin"}
    store.hints.published(staged / "gone", written)
    assert store.hints.written(staged / "gone", FILES) == {}
    assert store.hints.written(staged, {"other.bin": FILES["model.bin"]}) == {}
    assert hints(store) == []


def test_a_checkpoint_that_changed_a_moment_before_it_was_copied_is_not_remembered(
    store: Store, checkpoint: Tuned
) -> None:
    add_checkpoint(store, find_checkpoint(Options(path=checkpoint.folder)))
    assert hints(store) == []


@pytest.mark.usefixtures("soon")
def test_a_checkpoint_that_was_copied_is_remembered_as_it_was_copied(
    store: Store, checkpoint: Tuned, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Hints.read
    asked: list[Path] = []

    def late(own: Hints, path: Path, *given: Any) -> None:
        asked.append(path)
        flip(path)
        read(own, path, *given)

    with monkeypatch.context() as patched:
        patched.setattr(Hints, "read", late)
        with pytest.raises(ConfigurationError, match="changed while it was read"):
            add_checkpoint(store, find_checkpoint(Options(path=checkpoint.folder)))
    assert asked
    assert hints(store) == []
    time.sleep(2 * TICK)
    add_checkpoint(store, find_checkpoint(Options(path=checkpoint.folder)))
    assert len(hints(store)) == 1


def verify(session: Session, folder: Path, **given: Any) -> str:
    return evidence.verify(
        session, str(folder), **{"key": "", "rebuild": False, "given": Given(), **given}, **NO_OTHER_SOURCE
    )


def test_verify_believes_no_hint_of_the_users_store(store: Store, checkpoint: Tuned, tmp_path: Path) -> None:
    _, published = build(store, checkpoint, tmp_path / "dist")
    layout = Layout(root=ROOT, models=ROOT / "models.toml")
    session = Session(layout=layout, environment={"BERTIR_STORE": str(store.root)}, progress=SILENT)
    verify(session, published.folder)
    model = published.folder / "model.bin"
    flip(model)
    lie(store, model, Digest.of_bytes(LARGE))
    assert session.store().hints.digest(model) == Digest.of_bytes(LARGE)  # who asks it is told wrong
    with pytest.raises(VerificationError, match=r"model\.bin"):
        verify(session, published.folder)


@pytest.mark.parametrize(
    ("task", "paranoid"),
    [
        (lambda asking: commands.fetch(asking, **FETCH, bundle="materials.tar"), True),
        (lambda asking: commands.fetch(asking, **FETCH, bundle=""), False),
        (lambda asking: evidence.check(asking, REQUEST, **CHECK), True),
    ],
)
def test_bundles_and_checks_are_paranoid(
    root: Path, task: Callable[[Session], object], *, paranoid: bool
) -> None:
    layout = Layout(root=root, models=root / "models.toml")
    with pytest.raises(AskedError) as asked:
        task(Asking(layout=layout, environment={}, progress=SILENT))
    assert asked.value.paranoid == paranoid


def test_a_rebuild_is_paranoid(store: Store, checkpoint: Tuned, tmp_path: Path) -> None:
    _, published = build(store, checkpoint, tmp_path / "dist")
    layout = Layout(root=ROOT, models=ROOT / "models.toml")
    asking = Asking(layout=layout, environment={"BERTIR_STORE": str(store.root)}, progress=SILENT)
    given = Given(checkpoint=Options(path=checkpoint.folder))
    with pytest.raises(AskedError) as asked:
        verify(asking, published.folder, rebuild=True, given=given)
    assert asked.value.paranoid


# objects


def test_a_large_object_that_was_just_written_is_not_read_again(store: Store) -> None:
    blob = store.add_bytes(LARGE)
    assert bytes_read(lambda: store.checked(blob, what="it")) < LOOKED
    for other in (Store(store.root), Store(store.root, paranoid=True)):
        assert bytes_read(lambda other=other: other.checked(blob, what="it")) >= len(LARGE)  # type: ignore[misc]


@pytest.mark.usefixtures("soon")
def test_a_large_object_is_read_once_by_a_process(store: Store) -> None:
    blob = store.add_bytes(LARGE)
    time.sleep(2 * TICK)
    for other, again in ((Store(store.root), False), (Store(store.root, paranoid=True), True)):
        other.checked(blob, what="it")
        read = bytes_read(lambda other=other: other.checked(blob, what="it"))  # type: ignore[misc]
        assert (read >= len(LARGE)) == again


def test_a_large_object_that_changed_a_moment_ago_is_read_each_time(store: Store) -> None:
    blob = store.add_bytes(LARGE)
    other = Store(store.root)
    for _ in range(2):
        assert bytes_read(lambda: other.checked(blob, what="it")) >= len(LARGE)


@pytest.fixture
def earlier(store: Store) -> Record:
    """The record of an earlier build's step, whose output is large."""
    record = Record(artifact=Artifact(files={"it": store.add_bytes(LARGE)}))
    store.save_record("step", KEY, record)
    time.sleep(TICK)
    return record


def test_a_large_object_of_an_earlier_build_is_read_once_however_often_its_record_is_asked_for(
    store: Store, earlier: Record
) -> None:
    later, blob = Store(store.root), earlier.artifact["it"]
    read = []
    for again in range(6):
        if again % 2 == 0:
            assert later.load_record("step", KEY) == earlier
        read.append(bytes_read(lambda: later.checked(blob, what="it")))
        time.sleep(TICK)
    assert read[0] >= len(LARGE)
    assert max(read[1:]) < LOOKED


@pytest.mark.parametrize("checked_before", [True, False])
def test_damage_is_found_though_the_record_was_asked_for_before_and_after(
    store: Store, earlier: Record, *, checked_before: bool
) -> None:
    later, blob = Store(store.root), earlier.artifact["it"]
    assert later.load_record("step", KEY)
    if checked_before:
        later.checked(blob, what="it")
    time.sleep(TICK)
    flip(store.path(blob.digest))
    assert later.load_record("step", KEY)
    with pytest.raises(LostObjectError):
        later.checked(blob, what="it")


def test_a_large_object_that_another_process_uses_meanwhile_is_read_again(
    store: Store, earlier: Record
) -> None:
    later, blob = Store(store.root), earlier.artifact["it"]
    assert later.load_record("step", KEY)
    later.checked(blob, what="it")
    time.sleep(TICK)
    os.utime(store.path(blob.digest))
    assert bytes_read(lambda: later.checked(blob, what="it")) >= len(LARGE)


@pytest.mark.usefixtures("soon")
def test_what_a_step_was_given_a_link_to_is_not_read_again_unless_it_was_written_to(
    store: Store, tmp_path: Path
) -> None:
    blob = store.add_bytes(LARGE)
    with store.linking([blob]):
        (tmp_path / "link").hardlink_to(store.path(blob.digest))
    assert bytes_read(lambda: store.checked(blob, what="it")) < LOOKED
    time.sleep(2 * TICK)
    flip(store.path(blob.digest))
    with store.linking([blob]):
        (tmp_path / "another").hardlink_to(store.path(blob.digest))
    with pytest.raises(LostObjectError):
        store.checked(blob, what="it")


@pytest.mark.parametrize("checked_before", [True, False])
def test_damage_to_a_large_object_is_found_by_the_process_that_wrote_it(
    store: Store, *, checked_before: bool
) -> None:
    blob = store.add_bytes(LARGE)
    time.sleep(2 * TICK)
    if checked_before:
        store.checked(blob, what="it")
    flip(store.path(blob.digest))
    with pytest.raises(LostObjectError):
        store.checked(blob, what="it")


def test_hints_of_a_folder_that_is_no_store_are_none(tmp_path: Path, file: Path) -> None:
    assert Hints(tmp_path / "nowhere", believed=True).digest(file) == Digest.of_bytes(LARGE)

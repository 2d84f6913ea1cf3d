"""Builds for which a disk has not the room are refused before anything is begun, and no others."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest
from small_disk import SmallDisk, small_disk

from bertir.builder import Builder, Layout
from bertir.errors import NoRoomError
from bertir.estimate import Work, peak, require_room_for_image
from bertir.fetch import Fetcher, OfflineError
from bertir.local_checkpoint import Options, find_checkpoint
from bertir.pipeline import build_ir
from bertir.progress import SILENT
from bertir.report import Request
from bertir.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bertir.local_checkpoint import LocalCheckpoint

MB = 1_000_000
NOWHERE = {"DOCKER_HOST": "unix:///nonexistent"}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk", "size=64m,mode=755") as mounted:
        yield mounted


def builder(root: Path, store: Store) -> Builder:
    return Builder(
        layout=Layout(root=root, models=root / "models.toml"),
        store=store,
        fetcher=Fetcher(store=store, environment=NOWHERE, progress=SILENT, offline=True),
        environment=NOWHERE,
        progress=SILENT,
    )


def build(
    root: Path,
    store: Store,
    output: Path,
    local: LocalCheckpoint | None = None,
    *,
    model: str = "all-minilm-l6-v2",
    precision: str = "fp16",
) -> None:
    """Begin a build; offline and from an empty store, so that it ends as soon as it has begun."""
    request = Request(model="" if local else model, precision=precision)
    build_ir(builder(root, store), request, output, local)


def refused(
    root: Path, store: Store, output: Path, local: LocalCheckpoint | None = None, **options: str
) -> NoRoomError:
    before = sorted(store.root.rglob("*"))
    with pytest.raises(NoRoomError) as raised:
        build(root, store, output, local, **options)
    assert raised.value.exit_status == 1
    assert sorted(store.root.rglob("*")) == before
    assert not output.exists()
    return raised.value


def needed(error: NoRoomError) -> float:
    found = re.search(r"needed (\d+\.\d+) (MB|GB)", str(error))
    assert found
    return float(found[1]) * (MB if found[2] == "MB" else 1000 * MB)


def test_what_stays_adds_up_and_what_passes_does_not() -> None:
    works = [
        Work(name="a", stays=10, passing=10),
        Work(name="b", stays=5, passing=1),
        Work(name="c", stays=2),
    ]
    assert peak(works) == 20
    assert peak([*works, Work(name="d", stays=10, passing=10)]) == 37
    assert peak([]) == 0


def test_a_build_that_does_not_fit_is_refused_with_the_figures_before_anything_is_begun(
    root: Path, disk: SmallDisk, tmp_path: Path
) -> None:
    error = refused(root, Store(disk.path / "store"), tmp_path / "dist")
    text = str(error)
    assert f"there is no room for this build on the disk of {disk.path / 'store'}" in text
    assert re.search(r"\n  free   \d\d\.\d MB", text)
    for name in ("the layer wheels 1.23 GB", "import 90.9 MB", "freeze 90.9 MB", "convert 45.4 MB"):
        assert name in text
    for hint in ("invoke gc", "BERTIR_STORE", "Nothing was begun"):
        assert hint in error.advice


@pytest.mark.parametrize("model", ["all-minilm-l6-v2", "bert-large-uncased"])
def test_a_byte_less_than_is_needed_is_too_little_and_a_little_more_is_enough(
    root: Path, disk: SmallDisk, tmp_path: Path, model: str
) -> None:
    store = Store(disk.path / "store")
    size = needed(refused(root, store, tmp_path / "dist", model=model))
    disk.set(f"size={int(size - 20 * MB)}")  # the figure is rounded to 10 MB
    refused(root, store, tmp_path / "dist", model=model)
    disk.set(f"size={int(size + 20 * MB)}")
    with pytest.raises(OfflineError):
        build(root, store, tmp_path / "dist", model=model)


def test_fp32_takes_more_than_fp16(root: Path, disk: SmallDisk, tmp_path: Path) -> None:
    store = Store(disk.path / "store")
    less, more = (
        needed(refused(root, store, tmp_path / "dist", precision=name)) for name in ("fp16", "fp32")
    )
    assert 60 * MB < more - less < 120 * MB


def test_an_output_that_does_not_hold_the_ir_is_refused_and_another_one_named(
    root: Path, store: Store, disk: SmallDisk
) -> None:
    with pytest.raises(OfflineError):  # 45 MB of 64
        build(root, store, disk.path / "dist")
    error = refused(root, store, disk.path / "dist", precision="fp32")
    assert f"on the disk of {disk.path}" in str(error)
    assert "needed 90.9 MB: the published folder" in str(error)
    assert "Choose another --output" in error.advice


def test_a_store_and_an_output_on_one_disk_need_room_for_both(
    root: Path, disk: SmallDisk, tmp_path: Path
) -> None:
    store = Store(disk.path / "store")
    apart = str(refused(root, store, tmp_path / "dist"))
    together = str(refused(root, store, disk.path / "dist"))
    assert "the published folder" not in apart
    assert "the published folder 45.4 MB" in together


def test_a_users_checkpoint_counts_with_its_files_and_its_graph_with_its_weights_alone(
    root: Path, disk: SmallDisk, tmp_path: Path
) -> None:
    folder = tmp_path / "tuned"
    folder.mkdir()
    config = {
        "hidden_size": 256,
        "num_attention_heads": 4,
        "max_position_embeddings": 64,
        "num_hidden_layers": 12,
        "vocab_size": 8,
    }
    (folder / "bert_config.json").write_text(json.dumps(config))
    (folder / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n")
    (folder / "model.ckpt.index").write_bytes(b"index")
    with (folder / "model.ckpt.data-00000-of-00001").open("wb") as file:
        file.truncate(150 * MB)  # with what Adam keeps: three times its weights
    local = find_checkpoint(Options(path=folder))
    text = str(refused(root, Store(disk.path / "store"), tmp_path / "dist", local))
    assert "checkpoint 150.0 MB, freeze 38.2 MB, convert 19.1 MB" in text


def test_layers_that_are_in_the_store_are_not_counted_again(
    root: Path, disk: SmallDisk, tmp_path: Path
) -> None:
    store = Store(disk.path / "store")
    assert "the layer debian" in str(refused(root, store, tmp_path / "dist"))
    layer = next(layer for layer in builder(root, store).lock.layers if layer.name == "debian")
    path = store.path(layer.digest)
    path.parent.mkdir()
    with path.open("wb") as file:
        file.truncate(layer.size)  # its size is what is looked at
    assert "the layer debian" not in str(refused(root, store, tmp_path / "dist"))


def test_an_image_that_does_not_fit_is_refused_on_the_stores_disk_or_on_the_engines(
    root: Path, store: Store, disk: SmallDisk, tmp_path: Path
) -> None:
    lock = builder(root, store).lock
    with pytest.raises(NoRoomError, match="no room for this image on the disk of") as raised:
        require_room_for_image(Store(disk.path / "store"), lock, None)
    assert "BERTIR_STORE" in raised.value.advice
    with pytest.raises(
        NoRoomError, match=r"needed 2\.02 GB: the image in the engine 1\.01 GB, and 1\.01 GB beside"
    ) as raised:
        require_room_for_image(store, lock, disk.path)
    assert str(disk.path) in str(raised.value)
    assert "docker system df" in raised.value.advice
    require_room_for_image(store, lock, tmp_path)
    require_room_for_image(store, lock, tmp_path / "of another machine")

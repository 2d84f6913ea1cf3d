"""The estimate of what a build needs, against what it takes: a disk of that size is enough, a full one stops no build that is done."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from small_disk import small_disk

from bertir.builder import Builder
from bertir.errors import NoRoomError
from bertir.fetch import Fetcher
from bertir.pipeline import build_ir
from bertir.progress import SILENT
from bertir.report import Request
from bertir.store import Store

if TYPE_CHECKING:
    from pathlib import Path

    from tiny_bert import TinyModel

MB = 1_000_000
SMALL = 2 * MB  # the source, logs, records, vocabularies, graphs: what isn't weights


def test_a_disk_of_the_estimated_size_is_enough_and_a_full_one_stops_no_build_that_is_done(
    builder: Builder, tiny_model: TinyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in tiny_model.environment.items():
        monkeypatch.setenv(name, value)
    builder.load_image()
    folder = builder.containers.image_folder()
    assert folder is None or (folder / "overlay2").is_dir()  # None: another storage, or another machine's
    request = Request(model="tiny-bert", precision="fp32")
    with small_disk(tmp_path / "disk", "size=1m,mode=755") as disk:
        store = Store(disk.path / "store")

        def build() -> tuple[bool, set[str]]:
            with Builder(
                layout=builder.layout,
                store=store,
                fetcher=Fetcher(store=store, environment=builder.environment, progress=SILENT),
                environment=builder.environment,
                progress=SILENT,
            ) as opened:
                _, published = build_ir(opened, request, tmp_path / "dist")
                return published.unchanged, {
                    done.derivation.step for done in opened.realised if not done.cached
                }

        with pytest.raises(NoRoomError) as raised:
            build()
        found = re.search(r"needed (\d+\.\d) MB", str(raised.value))
        assert found
        assert "layer" not in str(raised.value)  # the engine has the image
        needed = int(float(found[1]) * MB)
        disk.set(f"size={needed + SMALL}")
        assert build() == (False, {"source", "import", "freeze", "convert", "reference", "verify"})
        # And it isn't much more than was taken: without the last step's passing copy it would not have been enough.
        taken = needed + SMALL - disk.free
        assert 0.5 * needed < taken <= needed + SMALL
        with disk.filled():
            assert build() == (True, set())
        for record in (store.root / "records" / "convert").iterdir():
            record.unlink()
        with disk.filled(left=50_000), pytest.raises(NoRoomError, match=r"needed .*: convert \d"):
            build()

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bertir import memory
from bertir.builder import Builder, Layout
from bertir.container import Limits
from bertir.fetch import Fetcher
from bertir.memory import estimate, free_memory
from bertir.progress import SILENT

if TYPE_CHECKING:
    from pathlib import Path

    from bertir.store import Store
    from tests.unit.conftest import Server

GB = 10**9


def builder(root: Path, store: Store, engine: str) -> Builder:
    environment = {"DOCKER_HOST": engine}
    return Builder(
        layout=Layout(root=root, models=root / "models.toml"),
        store=store,
        fetcher=Fetcher(store=store, environment=environment, progress=SILENT),
        environment=environment,
        progress=SILENT,
    )


def test_a_larger_model_takes_more_and_none_more_than_two_steps_may() -> None:
    base = 436_000_000
    assert estimate(0) < estimate(base) < estimate(3 * base)
    assert estimate(base) > 2 * GB
    assert estimate(100 * base) == 2 * Limits().memory_bytes + memory.OF_HOST


def test_without_an_engine_it_is_what_the_kernel_says_is_available(
    root: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = tmp_path / "meminfo"
    said.write_text("MemTotal: 24000000 kB\nMemFree: 1 kB\nMemAvailable:   1000 kB\n")
    monkeypatch.setattr(memory, "_MEMINFO", said)
    assert free_memory(builder(root, store, "unix:///nonexistent/docker.sock")) == 1_024_000


def test_where_the_kernel_does_not_say_it_is_what_there_is(
    root: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "nothing")
    assert free_memory(builder(root, store, "unix:///nonexistent/docker.sock")) > GB


@pytest.mark.parametrize(("has", "free"), [(1000, 1000), (10**15, None), (0, None)])
def test_it_is_no_more_than_the_engines_machine_has(
    root: Path, store: Store, server: Server, has: int, free: int | None
) -> None:
    server.answer("/version", b'{"ApiVersion": "1.41", "Arch": "amd64"}')
    server.answer("/v1.41/version", b'{"ApiVersion": "1.41", "Arch": "amd64"}')
    server.answer("/v1.41/_ping", b"OK")
    server.answer("/v1.41/containers/json", b"[]")
    server.answer("/v1.41/info", b'{"MemTotal": %d}' % has)
    with builder(root, store, server.url.replace("http", "tcp")) as opened:
        found = free_memory(opened)
    assert "/v1.41/info" in server.asked
    assert found == free if free is not None else found > GB

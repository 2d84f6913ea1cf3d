from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import pytest
from asking import AskedError, Asking

from bertir import commands, memory
from bertir.builder import Builder, Layout
from bertir.container import Limits
from bertir.fetch import Fetcher
from bertir.memory import estimate, free_memory, left_by_groups
from bertir.progress import SILENT, Progress
from bertir.report import Request

if TYPE_CHECKING:
    from pathlib import Path

    from bertir.store import Store
    from tests.unit.conftest import Server

GB = 10**9


def builder(
    root: Path, store: Store, engine: str, memory: int | None = None, progress: Progress = SILENT
) -> Builder:
    environment = {"DOCKER_HOST": engine}
    return Builder(
        layout=Layout(root=root, models=root / "models.toml"),
        store=store,
        fetcher=Fetcher(store=store, environment=environment, progress=SILENT),
        environment=environment,
        progress=progress,
        memory=memory,
    )


def test_a_larger_model_takes_more_and_none_more_than_three_steps_may() -> None:
    base = 436_000_000
    assert estimate(0) < estimate(base) < estimate(3 * base)
    assert estimate(base) > 2 * GB
    assert estimate(100 * base) == 3 * Limits().memory_bytes + memory.OF_HOST


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


# what a container or a pod leaves


def groups(folder: Path, own: str, files: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> int:
    (folder / "self").write_text(own)
    for name, text in files.items():
        (folder / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "groups" / name).write_text(text)
    monkeypatch.setattr(memory, "_OWN_GROUPS", folder / "self")
    monkeypatch.setattr(memory, "_GROUPS", folder / "groups")
    return left_by_groups()


def second(folder: str, limit: str, used: int, cache: int = 0, high: str = "max") -> dict[str, str]:
    """A group of version 2, as the kernel writes it."""
    stat = (
        f"anon {used - cache}\nfile {cache}\ninactive_file {cache // 2}\nactive_file {cache - cache // 2}\n"
    )
    files = {"memory.max": f"{limit}\n", "memory.high": f"{high}\n"}
    files |= {"memory.current": f"{used}\n", "memory.stat": stat}
    return {f"{folder}/{name}": text for name, text in files.items()}


def first(
    folder: str, limit: int, used: int, cache: int = 0, above: int = 9223372036854771712
) -> dict[str, str]:
    """A group of version 1, and the least limit of those above it."""
    stat = f"cache 1\ninactive_file 7\nhierarchical_memory_limit {above}\ntotal_inactive_file {cache}\ntotal_active_file 0\n"
    files = {"memory.limit_in_bytes": f"{limit}\n", "memory.usage_in_bytes": f"{used}\n", "memory.stat": stat}
    return {f"memory/{folder}/{name}": text for name, text in files.items()}


@pytest.mark.parametrize(
    ("own", "files", "left"),
    [
        # A container sees its own group at the root.
        ("0::/\n", second(".", "4000", 1000, 300), 3300),
        # A service: the least that any group above it leaves.
        ("0::/a/b\n", second("a/b", "max", 900) | second("a", "5000", 4500, 100), 600),
        ("0::/a/b\n", second("a/b", "1000", 900) | second("a", "5000", 4500), 100),
        ("0::/a\n", second("a", "max", 900), 0),
        ("0::/a\n", second("a", "800", 900), 1),
        # Of version 1 the path is that outside of the container.
        ("9:cpu:/x\n4:blkio,memory:/docker/1\n", first(".", 4000, 1000, 200), 3200),
        ("4:memory:/docker/1\n", first("docker/1", 2000, 500) | first(".", 9223372036854771712, 10**9), 1500),
        ("4:memory:/\n", first(".", 9223372036854771712, 10**9), 0),
        # Of a group above a container of version 1 only that one line tells.
        ("4:memory:/docker/1\n", first(".", 9223372036854771712, 500, above=3000), 2500),
        ("4:memory:/docker/1\n", first(".", 2000, 500, above=3000), 1500),
        # What is only held back, and not refused.
        ("0::/\n", second(".", "max", 1000, high="3000"), 2000),
        ("0::/\n", second(".", "2500", 1000, high="3000"), 1500),
        ("1:name=systemd:/a\n0::/a\n", second("unified/a", "3000", 1000), 2000),
        # Both: the controllers of version 1, and an empty version 2 for systemd.
        ("4:memory:/a\n0::/a\n", first("a", 2000, 500), 1500),
        ("4:cpu:/a\n", {}, 0),
        ("", {}, 0),
        ("\nweird\n", {}, 0),
    ],
)
def test_a_container_leaves_its_limit_less_what_is_used_of_it_cache_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: str, files: dict[str, str], left: int
) -> None:
    assert groups(tmp_path, own, files, monkeypatch) == left


@pytest.mark.parametrize("stat", ["", "inactive_file\n", "inactive_file many\nactive_file 1\n", "\x00\xff"])
def test_a_group_that_tells_something_else_limits_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stat: str
) -> None:
    files = second(".", "4000", 1000) | {"./memory.stat": stat}
    assert groups(tmp_path, "0::/\n", files, monkeypatch) == 0


def test_without_groups_nothing_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_OWN_GROUPS", tmp_path / "nothing")
    assert left_by_groups() == 0


# whether steps of one build may run beside one another


@pytest.mark.parametrize("allowed", [None, 3 * GB])
def test_steps_run_beside_one_another_if_there_is_the_memory_and_it_is_said_once_if_not(
    root: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, allowed: int | None
) -> None:
    said = tmp_path / "meminfo"
    said.write_text("MemAvailable: 2929688 kB\n")
    monkeypatch.setattr(memory, "_MEMINFO", said)
    told = io.StringIO()
    opened = builder(
        root, store, "unix:///nonexistent/docker.sock", memory=allowed, progress=Progress(stream=told)
    )
    assert estimate(438_000_000) < 3 * GB < estimate(1_340_000_000)
    assert opened.overlaps(438_000_000)
    assert told.getvalue() == ""
    assert not opened.overlaps(1_340_000_000)
    said.write_text("MemAvailable: 1000000000 kB\n")  # it stays as it was found
    assert not opened.overlaps(1_340_000_000)
    [line] = told.getvalue().splitlines()
    assert "they may take 5940 MB of memory, and there are 3000" in line


@pytest.mark.parametrize(("said", "memory"), [("", None), ("0", 0), ("2G", 2 * GB), ("1Gi", 1 << 30)])
def test_build_ir_takes_the_memory_that_it_is_allowed(root: Path, said: str, memory: int | None) -> None:
    asking = Asking(layout=Layout(root=root, models=root / "models.toml"), environment={}, progress=SILENT)
    others: dict[str, Any] = {
        "checkpoint": None,
        "output": "dist",
        "offline": True,
        "bundle": "",
        "mirror": "",
    }
    with pytest.raises(AskedError) as raised:
        commands.build_ir(asking, Request(), **others, paranoid=False, engine="", memory=said, as_json=True)
    assert raised.value.memory == memory

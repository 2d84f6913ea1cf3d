from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from bertir import collect as collect_module
from bertir.amount import duration, size
from bertir.collect import DAY, Rules, collect
from bertir.derivation import Derivation, Outcome, realise
from bertir.digest import Digest
from bertir.errors import ConfigurationError
from bertir.store import Artifact, Blob, Record, Store, StoreError

if TYPE_CHECKING:
    from pathlib import Path

KEY = Digest.of_bytes(b"key")
EVERYTHING = Rules(older_than=0.0)


def aged(store: Store, blob: Blob, days: float) -> Blob:
    moment = time.time() - days * DAY
    os.utime(store.path(blob.digest), (moment, moment))
    return blob


def record_of(store: Store, blob: Blob, days: float) -> Path:
    store.save_record("freeze", KEY, Record(artifact=Artifact(files={"x": blob})))
    path = store.root / "records" / "freeze" / f"{KEY.hex}.json"
    moment = time.time() - days * DAY
    os.utime(path, (moment, moment))
    return path


def test_what_was_not_used_for_long_goes_and_the_rest_stays(store: Store) -> None:
    old, new = aged(store, store.add_bytes(b"old"), 31), aged(store, store.add_bytes(b"newer"), 29)
    record = record_of(store, old, 31)
    collected = collect(store, Rules(older_than=30 * DAY))
    assert (collected.objects, collected.records) == (1, 1)
    assert not store.path(old.digest).exists()
    assert not record.exists()
    assert store.path(new.digest).exists()
    assert collected.kept == 5


def test_a_dry_run_says_the_same_and_removes_nothing(store: Store) -> None:
    for content, days in ((b"a", 40), (b"bb", 50), (b"ccc", 1)):
        aged(store, store.add_bytes(content), days)
    rules = Rules(older_than=30 * DAY)
    planned = collect(store, Rules(older_than=30 * DAY, dry_run=True))
    assert len(list(store.root.glob("objects/*/*"))) == 3
    done = collect(store, rules)
    assert (
        (planned.objects, planned.bytes, planned.kept) == (done.objects, done.bytes, done.kept) == (2, 3, 3)
    )


def test_over_a_size_the_longest_unused_go_first(store: Store) -> None:
    blobs = {days: aged(store, store.add_bytes(bytes([days]) * 1000), days) for days in (1, 5, 3, 9)}
    collected = collect(store, Rules(max_size=2000))
    assert (collected.objects, collected.kept) == (2, 2000)
    assert {days for days, blob in blobs.items() if store.path(blob.digest).exists()} == {1, 3}


def test_to_be_found_is_to_be_used(store: Store) -> None:
    blob = aged(store, store.add_bytes(b"found"), 40)
    held = aged(store, store.add_bytes(b"had"), 40)
    again = aged(store, store.add_bytes(b"added again"), 40)
    assert store.find(blob.digest)
    assert store.has(held)
    store.add_bytes(b"added again")
    record = record_of(store, aged(store, store.add_bytes(b"recorded"), 40), 40)
    assert store.load_record("freeze", KEY)
    assert collect(store, Rules(older_than=30 * DAY)).objects == 0
    assert record.exists()
    assert store.path(again.digest).exists()


def test_what_a_running_build_has_used_is_not_taken_at_whatever_age(store: Store) -> None:
    used, unused = aged(store, store.add_bytes(b"used"), 40), aged(store, store.add_bytes(b"unused"), 40)
    build = Store(store.root)
    with build.in_use():
        assert build.find(used.digest)
        added = build.add_bytes(b"added")
        collected = collect(store, EVERYTHING)
        assert (collected.users, collected.objects) == (1, 1)
        assert build.path(used.digest).exists()
        assert build.path(added.digest).exists()
        assert not build.path(unused.digest).exists()
        assert collected.in_use == len(b"used" + b"added")
    assert collect(store, EVERYTHING).objects == 2


def test_what_is_used_between_a_collectors_look_and_its_deed_is_not_taken(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    blob = aged(store, store.add_bytes(b"about to go"), 40)
    build = Store(store.root)
    chosen = collect_module._chosen

    def used_after_it_was_chosen(*arguments: object) -> object:
        found = chosen(*arguments)  # type: ignore[arg-type]
        assert build.find(blob.digest)
        return found

    monkeypatch.setattr(collect_module, "_chosen", used_after_it_was_chosen)
    with build.in_use():
        assert collect(store, EVERYTHING).objects == 0
    assert store.path(blob.digest).exists()


def test_nothing_is_stamped_before_a_moment_that_the_store_told(store: Store) -> None:
    """By the clock of files, which is coarser than the system's: `time.time_ns()` is often after the next stamp."""
    path = store.root / "logs" / "stamped"
    for _ in range(2000):
        now = store.now()
        path.unlink(missing_ok=True)
        path.touch()
        assert path.stat().st_mtime_ns >= now


def test_after_the_clock_was_set_back_nothing_is_taken_from_a_build_that_runs(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = Store(store.root)
    with build.in_use():
        blob = build.add_bytes(b"used")
        before = store.now() - 3600 * 10**9
        monkeypatch.setattr(Store, "now", lambda _: before)
        os.utime(store.path(blob.digest), ns=(before - 1, before - 1))
        with pytest.raises(StoreError, match="the clock was set back"):
            collect(store, EVERYTHING)
        assert store.path(blob.digest).exists()


def test_a_folder_in_an_objects_place_is_collected_too(store: Store) -> None:
    place = store.path(Digest.of_bytes(b"object"))
    (place / "deep").mkdir(parents=True)
    os.utime(place, (1000, 1000))
    assert collect(store, Rules(older_than=DAY)).objects == 1
    assert not place.exists()


def test_a_download_in_progress_is_not_taken_and_an_old_one_is(store: Store) -> None:
    for name in ("a" * 64, "b" * 64):
        for suffix in (".part", ".json"):
            path = store.root / "downloads" / f"{name}{suffix}"
            path.write_bytes(b"half")
            os.utime(path, (0, 0))
    with store.lock(f"fetch-{'a' * 64}"):
        assert collect(store, Rules(older_than=DAY)).downloads == 2
    assert sorted(path.name for path in (store.root / "downloads").iterdir()) == [
        f"{'a' * 64}.json",
        f"{'a' * 64}.part",
    ]
    assert list((store.root / "locks").iterdir()) == []


def test_builds_that_run_while_everything_is_collected_again_and_again_all_succeed(store: Store) -> None:
    """Three processes build a chain of 40 steps, of which each reads what the one before gave, beside a collector."""
    program = (
        "import sys; from pathlib import Path\n"
        "from bertir.store import Artifact, Store\n"
        "from bertir.derivation import Derivation, Outcome, realise\n"
        "store = Store(Path(sys.argv[1]))\n"
        "with store.in_use():\n"
        "    last = store.add_bytes(b'begin')\n"
        "    for number in range(40):\n"
        "        derivation = Derivation(step='s', version=number, inputs={'last': last.digest})\n"
        "        def run():\n"
        "            data = store.checked(last, what='the step before').read_bytes()\n"
        "            return Outcome(artifact=Artifact(files={'x': store.add_bytes(data + b'.')}))\n"
        "        last = realise(store, derivation, run).artifact['x']\n"
        "    print(store.checked(last, what='the last').stat().st_size)\n"
    )
    stop = threading.Event()
    rounds = []

    def collecting() -> None:
        while not stop.is_set():
            rounds.append(collect(store, EVERYTHING).objects)

    collector = threading.Thread(target=collecting)
    collector.start()
    try:
        for _ in range(3):
            command = [sys.executable, "-c", program, str(store.root)]
            builds = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
            assert [build.communicate()[0] for build in builds] == ["45\n"] * 3
    finally:
        stop.set()
        collector.join()
    assert len(rounds) > 10
    assert sum(rounds) > 0


def test_a_step_whose_output_was_collected_runs_again(store: Store) -> None:
    derivation = Derivation(step="s", version=1)

    def run() -> Outcome:
        return Outcome(artifact=Artifact(files={"x": store.add_bytes(b"made")}))

    realise(store, derivation, run)
    assert collect(store, EVERYTHING).objects == 1
    assert not realise(store, derivation, run).cached


# amounts


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0s", 0), ("90s", 90), ("5m", 300), ("1.5h", 5400), ("30d", 30 * DAY), ("2w", 14 * DAY)],
)
def test_a_duration_is_a_number_with_a_unit(text: str, seconds: float) -> None:
    assert duration("--older-than", text) == seconds


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("0", 0),
        ("1234", 1234),
        ("500M", 500_000_000),
        ("20G", 20 * 10**9),
        ("1.5GiB", 3 << 29),
        ("2 TB", 2 * 10**12),
    ],
)
def test_a_size_is_a_number_with_a_unit_or_none(text: str, amount: int) -> None:
    assert size("--max-size", text) == amount


@pytest.mark.parametrize(
    "text", ["", "d", "-1d", "1", "1y", "1e9s", "nan", "inf", "1d2h", "9" * 400 + "s", "\u0661d"]
)
def test_what_is_no_duration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigurationError, match="--older-than must be") as caught:
        duration("--older-than", text)
    assert "30d" in caught.value.advice


@pytest.mark.parametrize("text", ["", "G", "-1", "1X", "1e9", "0x10", "many", "1 0"])
def test_what_is_no_size_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigurationError, match="--max-size must be") as caught:
        size("--max-size", text)
    assert "20G" in caught.value.advice

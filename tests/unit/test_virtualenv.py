"""The virtualenv of `--engine local`: what it is made of, that it is whole or not there, and when it goes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest
from done_build import done_builder
from packages import SITE, make_wheel, small_intent

from bertir.collect import DAY, Rules, collect
from bertir.digest import Digest
from bertir.engines import LOCAL
from bertir.errors import ConfigurationError, ImageError, error_of
from bertir.fetch import Fetcher, OfflineError
from bertir.local_runtime import InVirtualenv
from bertir.lock import ImageLock, LayerPin
from bertir.materials import missing_materials
from bertir.progress import SILENT
from bertir.runtime import chosen_runtime
from bertir.virtualenv import Machine, Virtualenv, python_of
from bertir.virtualenv_making import provide

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from bertir.lock import WheelPin
    from bertir.store import Store

HERE = Machine(python="3.11.2", implementation="cpython", architecture="x86_64", libc="glibc 2.36")
OWNED = f"{SITE}/shared/__init__.py"
FIRST = {
    "shared/__init__.py": b"of = 'first'\n",
    "first/left_out/x.py": b"",
    "first/__init__.py": b"def f(): pass\n",
}
SECOND = {
    "shared/__init__.py": b"of = 'second'\n",
    "second-1.0.data/data/share/x": b"",
    "old/two.py": b"print 'x'\n",
}
pytestmark = pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="the tests' own Python isn't 3.11")


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A store with two wheels in it, and a virtualenv of them."""

    store: Store
    wanted: Virtualenv
    fetcher: Fetcher

    def provide(self) -> Path:
        return provide(self.store, self.wanted, self.fetcher, SILENT)

    def says(self, program: str) -> str:
        run = subprocess.run(
            [str(python_of(self.provide())), "-I", "-c", program], check=True, capture_output=True, text=True
        )
        return run.stdout.strip()


def lock_of(wheels: Sequence[WheelPin]) -> ImageLock:
    digest = Digest.of_bytes(b"x")
    layers = tuple(LayerPin(name=name, digest=digest, size=1000) for name in ("debian", "wheels", "pyc"))
    return ImageLock(
        inputs={},
        platform="linux/amd64",
        debian=(),
        wheels=tuple(wheels),
        layers=layers,
        image_id=digest,
        manifest=digest,
    )


def bench_of(store: Store, folder: Path, wheels: Mapping[str, Mapping[str, bytes]], **given: Any) -> Bench:
    pins = []
    for name, files in wheels.items():
        pin, path = make_wheel(folder, files, name=name, **given)
        store.add_file(path)
        pins.append(pin)
    intent = small_intent(exclude=[f"{SITE}/first/left_out"], owners={OWNED: "second"})
    fetcher = Fetcher(store=store, environment={}, progress=SILENT, offline=True)
    wanted = Virtualenv(intent=intent, lock=lock_of(pins), machine=Machine.here())
    return Bench(store=store, wanted=wanted, fetcher=fetcher)


@pytest.fixture
def bench(store: Store, tmp_path: Path) -> Bench:
    return bench_of(store, tmp_path, {"second": SECOND, "first": FIRST})


def test_it_has_what_the_wheels_have_with_the_owners_file_and_without_what_the_image_lacks(
    bench: Bench,
) -> None:
    assert bench.says("import shared, first; print(shared.of)") == "second"
    names = {path.name for path in (bench.provide() / "lib/python3.11/site-packages").iterdir()}
    assert names == {"shared", "first", "old", "first-1.0.dist-info", "second-1.0.dist-info"}
    assert not list(bench.provide().rglob("left_out"))


def test_its_modules_are_compiled_under_their_final_path(bench: Bench) -> None:
    program = "import first; print(first.__cached__, first.f.__code__.co_filename)"
    cached, source = bench.says(program).split()
    place = bench.provide()
    assert source == str(place / "lib/python3.11/site-packages/first/__init__.py")
    assert cached.startswith(str(place))
    data = (place / cached).read_bytes()
    assert data[4:8] == b"\1\0\0\0"  # an unchecked hash, PEP 552
    assert source.encode() in data
    assert b"/work-" not in data


def test_it_is_made_once_also_by_several_at_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    wheels = Fetcher.wheels

    def noted(fetcher: Fetcher, *given: Any, **more: Any) -> Any:
        asked.append(given)
        return wheels(fetcher, *given, **more)

    monkeypatch.setattr(Fetcher, "wheels", noted)
    threads = [threading.Thread(target=bench.provide) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(asked) == 1
    assert [path.name for path in (bench.store.root / "virtualenvs").iterdir()] == [bench.provide().name]


def test_a_wheel_that_is_not_what_it_says_leaves_nothing(store: Store, tmp_path: Path) -> None:
    bench = bench_of(store, tmp_path, {"first": FIRST}, record={"first/__init__.py": f"sha256={'A' * 43}"})
    with pytest.raises(ImageError, match="is not what its wheel's RECORD says"):
        bench.provide()
    assert [*(store.root / "virtualenvs").iterdir(), *(store.root / "tmp").iterdir()] == []


def test_a_wheel_that_can_not_be_had_is_named(bench: Bench) -> None:
    [pin, _] = bench.wanted.lock.wheels
    bench.store.path(pin.digest).unlink()
    with pytest.raises(OfflineError, match="wheel second"):
        bench.provide()
    assert list((bench.store.root / "virtualenvs").iterdir()) == []


def test_one_that_is_killed_while_it_is_made_is_not_taken_for_whole(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rename is the last thing; what comes before it lies in a folder that the next run sweeps."""
    child = os.fork()
    if child == 0:
        monkeypatch.setattr("pathlib.Path.rename", lambda *_: os.kill(os.getpid(), 9))
        try:
            bench.provide()
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 9
    assert list((bench.store.root / "virtualenvs").iterdir()) == []
    assert len(bench.store.abandoned()) == 1
    bench.store.sweep()
    assert bench.says("import first; print('whole')") == "whole"


# its identity


def test_its_identity_is_no_images_and_another_one_for_all_that_it_is_made_of(bench: Bench) -> None:
    wanted = bench.wanted
    first, second = wanted.lock.wheels
    other = replace(first, digest=Digest.of_bytes(b"other"))
    intent = wanted.intent
    variations = [
        wanted,
        replace(wanted, machine=replace(wanted.machine, python="3.11.99")),
        replace(wanted, machine=replace(wanted.machine, libc="glibc 2.99")),
        replace(wanted, lock=replace(wanted.lock, wheels=(other, second))),
        replace(wanted, intent=replace(intent, environment={"TZ": "CET"})),
        replace(wanted, intent=replace(intent, python=replace(intent.python, owners={}))),
    ]
    identities = [variation.identity for variation in variations]
    assert len({*identities, wanted.lock.image_id}) == len(variations) + 1
    assert wanted.identity == replace(wanted, lock=replace(wanted.lock, debian=())).identity


@pytest.mark.parametrize(
    ("machine", "message"),
    [
        (
            replace(HERE, python="3.12.1"),
            r"needs CPython 3\.11, of which the locked wheels are, and this is cpython 3\.12\.1",
        ),
        (replace(HERE, python="3.1.1"), r"needs CPython 3\.11"),
        (replace(HERE, implementation="pypy"), "this is pypy"),
        (replace(HERE, architecture="aarch64"), "needs a machine of the kind x86_64, and this is aarch64"),
        (replace(HERE, libc="glibc 2.31"), r"needs glibc 2\.36 or newer.* and this is glibc 2\.31"),
        (replace(HERE, libc="glibc 2.4"), r"needs glibc 2\.36 or newer"),
        (replace(HERE, libc=""), "this is another C library"),
    ],
)
def test_a_machine_that_the_wheels_are_not_for_is_one_message(machine: Machine, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        machine.require(small_intent().python)
    assert caught.value.exit_status == error_of(2, "").exit_status
    assert caught.value.advice


def test_a_machine_that_they_are_for_is_taken() -> None:
    HERE.require(small_intent().python)
    replace(HERE, libc="glibc 2.100").require(small_intent().python)


def test_what_the_runtime_states_is_the_wheels_and_no_image(store: Store, tmp_path: Path) -> None:
    builder = done_builder(store)
    runtime = chosen_runtime(builder, "local", tmp_path / "nothing")
    assert isinstance(runtime, InVirtualenv)
    stated = json.dumps(runtime.stated)
    assert runtime.identity != builder.lock.image_id
    assert builder.lock.image_id.hex not in stated
    assert all(pin.digest.hex in stated for pin in builder.lock.wheels)
    assert not any(package.digest.hex in stated for package in builder.lock.debian)
    assert (runtime.find(), runtime.made_of()) == (None, ("wheel/",))
    [work] = runtime.works()
    assert work.stays > sum(layer.size for layer in builder.lock.layers if layer.name != "debian")


def test_offline_the_wheels_are_missing_and_no_package_of_debians_is(store: Store) -> None:
    missing = missing_materials(done_builder(store, chosen=LOCAL), None)
    assert {f"wheel/{pin.name}-{pin.version}" for pin in done_builder(store).lock.wheels} <= {*missing}
    assert not [name for name in missing if name.startswith("debian/")]


# its end


def test_it_goes_when_it_was_not_used_for_long(bench: Bench) -> None:
    place = bench.provide()
    moment = time.time() - 31 * DAY
    os.utime(place, (moment, moment))
    planned = collect(bench.store, Rules(older_than=30 * DAY, dry_run=True))
    assert (planned.virtualenvs, place.exists()) == (1, True)
    assert planned.bytes == sum(path.lstat().st_size for path in place.rglob("*"))
    assert collect(bench.store, Rules(older_than=30 * DAY)).virtualenvs == 1
    assert not place.exists()
    assert list((bench.store.root / "tmp").iterdir()) == []
    assert bench.says("print(1)") == "1"


def test_to_be_provided_is_to_be_used_so_that_no_build_loses_it(bench: Bench) -> None:
    place = bench.provide()
    moment = time.time() - 31 * DAY
    os.utime(place, (moment, moment))
    with bench.store.in_use():
        bench.provide()
        assert collect(bench.store, Rules(older_than=0.0)).virtualenvs == 0
    assert place.exists()


def test_an_emptied_store_has_none(bench: Bench) -> None:
    bench.provide()
    bench.store.clear()
    assert not bench.store.root.exists()

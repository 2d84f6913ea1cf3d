"""Ten builds at once on one store, and a collector of garbage running all the time."""

from __future__ import annotations

import collections
import contextlib
import json
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from checkout import ROOT, Checkout, copy_checkout
from running_task import left_in, running, wait_until
from tiny_bert import files, make_model, weights

import docker
from bertir.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from bertir.builder import Builder

pytestmark = pytest.mark.engine

DONE = re.compile(r"\] (\w+) +done in ")


@dataclass(frozen=True, kw_only=True)
class Place:
    """A clone, a store, and two models: for each the environment that a build of it wants."""

    checkout: Checkout
    store: Path
    one: dict[str, str]
    other: dict[str, str]


@pytest.fixture(scope="module")
def place(builder: Builder, tmp_path_factory: pytest.TempPathFactory) -> Place:
    builder.load_image()
    folder = tmp_path_factory.mktemp("at-once")
    for name in ("one", "other"):
        (folder / name).mkdir()
    store = folder / "store"
    return Place(
        checkout=copy_checkout(folder / "clone", BERTIR_STORE=str(store)),
        store=store,
        one=make_model(folder / "one").environment,
        other=make_model(folder / "other", files(weights(seed=5)), name="other-bert").environment,
    )


def start(place: Place, log: Path, environment: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    with log.open("wb") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "invoke", "build-ir", "--format", "json", *arguments],
            cwd=place.checkout.root,
            env=dict(os.environ) | place.checkout.environment | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=file,
            text=True,
        )


@contextlib.contextmanager
def collecting(place: Place, log: Path) -> Iterator[None]:
    """Collect everything that isn't in use, again and again, until the block ends."""
    program = (
        "import os, pathlib, sys, time\n"
        "from bertir.collect import Rules, collect\n"
        "from bertir.store import Store\n"
        "store, parent, times = Store(pathlib.Path(sys.argv[1])), os.getppid(), 0\n"
        "while os.getppid() == parent and not pathlib.Path(sys.argv[2]).exists():\n"
        "    collect(store, Rules(older_than=0.0))\n"
        "    times += 1\n"
        "    time.sleep(0.1)\n"
        "print(times)\n"
    )
    stop = log.with_suffix(".stop")
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(place.store), str(stop)], stdout=subprocess.PIPE, text=True
    )
    try:
        yield
    finally:
        stop.touch()
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert int(out) > 10


def created(store: Path, since: float) -> collections.Counter[str]:
    """How many containers were made for a store since then, by step."""
    client = docker.from_env()
    try:
        events = client.events(
            since=int(since),
            until=int(time.time()) + 1,
            decode=True,
            filters={"type": "container", "event": "create", "label": f"bertir.folder={store}"},
        )
        return collections.Counter(event["Actor"]["Attributes"]["bertir.step"] for event in events)
    finally:
        client.close()


def test_ten_builds_at_once_make_each_artifact_once_while_garbage_is_collected(
    place: Place, tmp_path: Path, figure: Callable[[str], None]
) -> None:
    unused = Store(place.store).add_bytes(b"nobody uses this")
    time.sleep(0.1)  # a file system's clock ticks so
    begun = time.time()
    wanted = [(place.one, "fp16")] * 6 + [(place.one, "fp32")] * 2 + [(place.other, "fp16")] * 2
    processes = [
        start(place, tmp_path / str(number), environment, "--precision", precision)
        for number, (environment, precision) in enumerate(wanted)
    ]
    with collecting(place, tmp_path / "gc"):
        # Until the first has ended: up to then what a build uses is kept by its own lease, and by no other's.
        wait_until(lambda: any(process.poll() is not None for process in processes), "a build's end", 600)
    outs = [process.communicate(timeout=600)[0] for process in processes]
    logs = [(tmp_path / str(number)).read_text(encoding="utf-8") for number in range(len(wanted))]
    seconds = time.time() - begun
    for process, log in zip(processes, logs, strict=True):
        assert process.returncode == 0, log
    ran = collections.Counter(name for log in logs for name in DONE.findall(log))
    containers = {"import": 2, "freeze": 2, "convert": 3, "verify": 3}
    assert ran == {"source": 1} | containers
    assert created(place.store, begun) == containers
    # Of ten at most one loads the image, and here it is loaded already.
    assert not [log for log in logs if "loading" in log]
    found = collections.defaultdict(set)
    for out in outs:
        facts = json.loads(out)
        found[facts["folder"]].add(json.dumps(facts["files"], sort_keys=True))
    assert [len(digests) for digests in found.values()] == [1, 1, 1]
    golden = json.loads((ROOT / "tests" / "golden" / "tiny-bert.json").read_text(encoding="utf-8"))
    for precision in ("fp16", "fp32"):
        [digests] = found[f"dist/tiny-bert/reshapable-{precision}"]
        assert {
            f"{precision}/{name}": digest for name, digest in json.loads(digests).items()
        }.items() <= golden.items()
    assert Store(place.store).find(unused.digest) is None
    assert left_in(place.store) == []
    dist = place.checkout.root / "dist"
    for folder in sorted(dist.glob("*/*")):
        verified = place.checkout.invoke("verify", str(folder))
        assert verified.status == 0, verified.stderr
    assert sorted(path.name for path in dist.glob("*/*")) == ["reshapable-fp16"] * 2 + ["reshapable-fp32"]
    figure(f"builds at once: {len(wanted)}, in {seconds:.0f} s, {sum(containers.values())} containers")


def test_a_build_that_waits_for_a_step_holds_up_none_of_another_model(place: Place, tmp_path: Path) -> None:
    # Of both models the import is to be done again; it gives what it gave, so nothing after it is.
    for environment in (place.one, place.other):
        built = place.checkout.invoke("build-ir", **environment)
        assert built.status == 0, built.stderr
    records = list((place.store / "records" / "import").iterdir())
    inputs = {
        path: json.loads(path.read_bytes())["derivation"]["inputs"]["/in/model.safetensors"]
        for path in records
    }
    models = json.loads(place.checkout.invoke("models", "--format", "json", **place.one).stdout)
    mine = models[0]["files"]["model.safetensors"]
    [held] = [path for path, digest in inputs.items() if digest.endswith(mine.removeprefix("sha256:"))]
    for path in records:
        path.unlink()
    with contextlib.ExitStack() as stack:
        with Store(place.store).lock(f"import-{held.stem}"):
            waits = stack.enter_context(running(place.checkout, tmp_path / "waits", "build-ir", **place.one))
            waits.wait_to_say("waiting for another process that runs this step")
            goes = place.checkout.invoke("build-ir", **place.other)
            assert goes.status == 0, goes.stderr
            assert DONE.findall(goes.stderr) == ["import"]
            assert "waiting" not in goes.stderr
            assert waits.process.poll() is None
        assert waits.process.wait(timeout=120) == 0, waits.said
        assert DONE.findall(waits.said) == ["import"]
    assert left_in(place.store) == []

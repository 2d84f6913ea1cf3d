"""The local engine beside the docker engine: the same bits, in a virtualenv and inside the image; and builds that are killed."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from typing import TYPE_CHECKING, Any

import pytest
from checkout import ROOT, Checkout, copy_checkout
from processes import working_in
from running_task import STATUSES, left_in, running, wait_until

from bertir.builder import Builder
from bertir.engines import LOCAL, MARKER
from bertir.pipeline import build_ir
from bertir.progress import Progress
from bertir.report import Request
from bertir.store import Store
from bertir.verify import verify_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from builds import TinyBuild
    from tiny_bert import TinyModel

    from bertir.report import Build

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="the tests' own Python isn't 3.11"),
]
REQUESTS = (
    Request(model="tiny-bert"),
    Request(model="tiny-bert", recipe="meta-graph", precision="fp32"),
)
RAN = ("import", "freeze", "convert", "reference", "verify")


@pytest.fixture(scope="module")
def said() -> io.StringIO:
    return io.StringIO()


@pytest.fixture(scope="module")
def local(builder: Builder, said: io.StringIO) -> Iterator[Builder]:
    """Builds in the same store as the session's builder, by the local engine."""
    with Builder(
        layout=builder.layout,
        store=Store(builder.store.root),
        fetcher=builder.fetcher,
        environment=builder.environment,
        progress=Progress(stream=said),
        chosen=LOCAL,
    ) as opened:
        yield opened


def stages(build: Build, folder: Path) -> dict[str, str]:
    """The digest of everything that isn't measured: of the steps' outputs, and of what is published."""
    found = {
        f"{step.derivation.step}/{name}": str(blob.digest)
        for step in build.steps
        if step.derivation.step not in ("reference", "verify")
        for name, blob in step.artifact.files.items()
    }
    found |= {f"checkpoint/{name}": str(blob.digest) for name, blob in build.checkpoint.files.items()}
    return found | {"SHA256SUMS": (folder / "SHA256SUMS").read_text(encoding="ascii")}


@pytest.mark.usefixtures("tiny_build")
@pytest.mark.parametrize("request_", REQUESTS, ids=[request.variant for request in REQUESTS])
def test_both_engines_give_the_same_bits_at_every_stage(
    builder: Builder, local: Builder, tmp_path: Path, request_: Request
) -> None:
    contained, published = build_ir(builder, request_, tmp_path / "docker")
    alone, published_alone = build_ir(local, request_, tmp_path / "local")
    assert stages(alone, published_alone.folder) == stages(contained, published.folder)
    ran = [step for step in alone.steps if step.derivation.step != "source"]
    assert {step.facts["engine"]["name"] for step in ran} == {"local"}
    # Its keys are its own: no record of a container's is taken for one of it, nor the other way round.
    assert {str(step.derivation.image) for step in ran} == {str(local.runtime.identity)}
    assert not {step.derivation.key for step in ran} & {step.derivation.key for step in contained.steps}


def test_what_it_lacks_is_said_once_and_stated_and_the_folder_is_verified(
    local: Builder, said: io.StringIO, tmp_path: Path
) -> None:
    _, published = build_ir(local, REQUESTS[0], tmp_path)
    assert said.getvalue().count("without a network of its own") == 1
    statement = verify_folder(published.folder).statement["predicate"]
    assert statement["runDetails"]["builder"]["id"] == "urn:bertir:builder:local"
    names = {entry["name"] for entry in statement["buildDefinition"]["resolvedDependencies"]}
    assert {f"wheel/{pin.name}" for pin in local.lock.wheels} <= names
    assert not [name for name in names if name == "image" or name.startswith("debian/")]
    assert local.lock.image_id.hex not in (published.folder / "provenance.json").read_text(encoding="utf-8")
    report = json.loads((published.folder / "report.json").read_text(encoding="utf-8"))
    told = [step["facts"]["engine"] for step in report["steps"] if step["name"] in RAN]
    assert all("a read-only root" in engine["without"] for engine in told)


def linked(store: Path, folder: Path, *, records: bool) -> Path:
    """A store with the objects of another one; and with the records of what the host did, if these are wanted."""
    Store(folder)
    shutil.copytree(store / "objects", folder / "objects", copy_function=os.link, dirs_exist_ok=True)
    if records:
        shutil.copytree(store / "records" / "source", folder / "records" / "source")
    return folder


@pytest.mark.skipif(os.geteuid() != 0, reason="the store is to be the container's user's")
@pytest.mark.usefixtures("tiny_build")
def test_inside_the_image_it_is_chosen_by_itself_and_everything_is_as_in_a_container(
    builder: Builder, tiny_model: TinyModel, tmp_path: Path
) -> None:
    _, published = build_ir(builder, REQUESTS[0], tmp_path / "docker")
    store = linked(builder.store.root, tmp_path / "store", records=True)
    marker = tmp_path / "image.json"

    def inside(image: str, *options: str) -> subprocess.CompletedProcess[str]:
        marker.write_text(json.dumps({"image": image}), encoding="utf-8")
        places = {
            ROOT: "/work:ro",
            sysconfig.get_paths()["purelib"]: "/packages:ro",
            marker: f"{MARKER}:ro",
            tiny_model.models_toml: "/models.toml:ro",
            store: "/store",
            tmp_path: "/given",
        }
        variables = {"PYTHONPATH": "/packages", "BERTIR_STORE": "/store", "BERTIR_MODELS": "/models.toml"}
        return subprocess.run(
            ["docker", "run", "--rm", "--pull=never", "--network=none", "--user=0", "--workdir=/work"]
            + [f"--volume={place}:{target}" for place, target in places.items()]
            + [f"--env={name}={value}" for name, value in variables.items()]
            + [builder.load_image(), "/usr/bin/python3", "-m", "invoke", "build-ir", "--output=/given/inside"]
            + list(options),
            check=False,
            capture_output=True,
            text=True,
        )

    ended = inside(str(builder.lock.image_id))
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.count("steps run as a process, in this image, without a network of its own") == 1
    folder = tmp_path / "inside" / "tiny-bert" / "reshapable-fp16"
    assert (folder / "SHA256SUMS").read_bytes() == (published.folder / "SHA256SUMS").read_bytes()
    here, there = (json.loads((place / "report.json").read_bytes()) for place in (folder, published.folder))
    for one, other in zip(here["steps"], there["steps"], strict=True):
        if one["name"] != "verify":  # which depends on figures that were measured
            assert one["key"] == other["key"]
        if one["name"] in RAN:
            assert (one["facts"]["engine"]["name"], other["facts"]["engine"]["name"]) == ("local", "Engine")
    predicate = verify_folder(folder).statement["predicate"]
    assert predicate["runDetails"]["builder"]["id"] == "urn:bertir:builder:local"
    listed = {entry["name"] for entry in predicate["buildDefinition"]["resolvedDependencies"]}
    assert {"image", "debian/python3"} <= listed
    other = inside(f"sha256:{'0' * 64}")
    assert (other.returncode, "inside another image than the locked one" in other.stderr) == (6, True)
    asked = inside(f"sha256:{'0' * 64}", "--engine=docker", "--precision=fp32")
    assert (asked.returncode, "no container engine answers" in asked.stderr) == (6, True)


# A step by the local engine, in a container that may take so much memory; it tells how that ended.
SHORT = """
import pathlib, sys
from bertir.container import Command
from bertir.errors import StepError
from bertir.local import Interpreter, LocalEngine
from bertir.store import Store
store = Store(pathlib.Path("/tmp/store"))
interpreter = Interpreter(path=pathlib.Path("/usr/bin/python3"), version="3", environment={}, home={})
command = Command(name="hungry", arguments=("/usr/bin/python3", "-c", sys.argv[1]), inputs={}, outputs=())
try:
    with store.temporary_folder() as scratch, LocalEngine(store.root, interpreter).run("image", command, scratch):
        print("it ended well")
except StepError as error:
    print(error, error.advice)
"""
HUNGRY = "b = [bytes(range(256)) * 40_000 for _ in range(100)]"  # 1 GB
KILLED = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"


@pytest.mark.parametrize(
    ("program", "told"),
    [
        (
            HUNGRY,
            "hungry: the kernel ended it for want of memory Give the machine, or the container that this runs in,",
        ),
        (KILLED, "hungry: exit status 137 (killed, and not by bertir)"),
        (HUNGRY.replace("100", "5"), "it ended well"),
    ],
    ids=["hungry", "killed", "modest"],
)
def test_a_step_that_the_kernel_ended_for_want_of_memory_is_told_as_that(
    builder: Builder, program: str, told: str
) -> None:
    assert with_256_megabytes(builder, SHORT, program).startswith(told)


# What it has of this container's memory, and of that with 100 MB in use and 100 MB of a file in the cache.
LEFT = """
import pathlib
from bertir.local import Interpreter, LocalEngine
engine = LocalEngine(pathlib.Path("/tmp"), Interpreter(path=pathlib.Path("/usr/bin/python3"), version="3", environment={}, home={}))
print(engine.memory)
used = b"x" * 100_000_000
pathlib.Path("/var/file").write_bytes(used)
print(engine.memory)
"""


def test_the_local_engine_has_what_its_container_leaves(builder: Builder) -> None:
    before, after = map(int, with_256_megabytes(builder, LEFT).split())
    assert 200 << 20 < before < 256 << 20
    assert 90_000_000 < before - after < 120_000_000


def with_256_megabytes(builder: Builder, program: str, *arguments: str) -> str:
    """What a program prints, run in a container that may take so much."""
    ended = subprocess.run(
        [
            *("docker", "run", "--rm", "--pull=never", "--network=none", "--user=0"),
            *("--memory=256m", "--memory-swap=256m", "--tmpfs=/tmp"),
            *(f"--volume={ROOT}:/work:ro", f"--volume={sysconfig.get_paths()['purelib']}:/packages:ro"),
            *("--env=PYTHONPATH=/work/src:/packages", builder.load_image()),
            *("/usr/bin/python3", "-c", program, *arguments),
        ],
        check=False,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


# killed


class Ground:
    """A clone, and a store that has the wheels and the model."""

    def __init__(self, checkout: Checkout, store: Path, log: Path) -> None:
        self.checkout = checkout
        self.store = store
        self._log = log

    def kill(self, kind: str, said: str) -> str:
        """Build until it says that, end it so, and see what is left; give what it said."""
        with running(self.checkout, self._log, "build-ir", "--engine=local") as task:
            task.wait_to_say(said)
            if "running" in said:
                task.wait_for(lambda: working_in(self.store), "its process")
            status = task.end(kind)
            wait_until(lambda: working_in(self.store) == [], "its processes have ended", 20)
            text = task.said
        assert status == STATUSES[kind], text
        assert "Traceback" not in text
        assert not (self.checkout.root / "dist").exists()
        if kind != "SIGKILL":
            assert left_in(self.store) == []
        return text

    def build(self) -> dict[str, Any]:
        done = self.checkout.invoke("build-ir", "--engine=local", "--format=json")
        assert done.status == 0, done.stderr
        facts: dict[str, Any] = json.loads(done.stdout)
        return facts


@pytest.fixture(scope="module")
def ground(
    local: Builder, tiny_build: TinyBuild, tiny_model: TinyModel, tmp_path_factory: pytest.TempPathFactory
) -> Ground:
    local.runtime.provide()  # so that its wheels are there, as the model and the source of `tiny_build` are
    del tiny_build
    folder = tmp_path_factory.mktemp("killed")
    store = linked(local.store.root, folder / "store", records=True)
    checkout = copy_checkout(folder / "clone", **tiny_model.environment, BERTIR_STORE=str(store))
    return Ground(checkout, store, folder / "log")


def test_killed_in_every_step_and_in_every_way_no_process_is_left_and_the_next_run_goes_on(
    ground: Ground,
) -> None:
    ground.kill("SIGKILL", "making it of")
    assert list((ground.store / "virtualenvs").iterdir()) == []
    for kind, step in zip(STATUSES, ("import", "freeze", "convert", "verify"), strict=True):
        ground.kill(kind, f"{step:<10} running as a process, in the virtualenv\n")
    facts = ground.build()
    cached = {step["name"] for step in facts["steps"] if step["cached"]}
    assert {"source", "import", "freeze", "convert"} <= cached
    golden = json.loads((ROOT / "tests" / "golden" / "tiny-bert.json").read_text(encoding="utf-8"))
    assert {f"fp16/{name}": digest for name, digest in facts["files"].items()}.items() <= golden.items()
    assert golden["frozen_graph"] == facts["frozen_graph"]
    assert left_in(ground.store) == []
    verify_folder(ground.checkout.root / facts["folder"])

"""Steps whose containers are started before their inputs are there, or run beside another."""

from __future__ import annotations

import io
import itertools
from typing import TYPE_CHECKING, Any

import docker
import pytest
from bench import Bench, benches
from checkout import ROOT
from damage import flip
from tiny_bert import files

from bertir import pipeline
from bertir.container import StepRun
from bertir.container_step import PENDING, ContainerStep
from bertir.engine import IDLE_SHARES, USUAL_SHARES, Engine
from bertir.errors import EngineError, StepError
from bertir.hint import LARGE_BYTES
from bertir.local_checkpoint import Options, find_checkpoint
from bertir.memory import estimate
from bertir.pipeline import build_ir
from bertir.progress import Progress
from bertir.report import Request
from bertir.runner import Runner
from bertir.store import Blob, LostObjectError
from bertir.together import PartRun

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from bertir.builder import Builder
    from bertir.derivation import Realised
    from bertir.local_checkpoint import LocalCheckpoint
    from bertir.materials import Pins

pytestmark = pytest.mark.engine

# It tells what it sees, or does what it is told.
PROGRAM = b"""
import json, pathlib, sys, time
sys.path.insert(0, "/step")
from said import await_inputs, run

some = "--some" in sys.argv

def main():
    if some:
        print("begins with", [name for name in ("beside", "deep/er/given") if pathlib.Path("/in", name).exists()], flush=True)
        await_inputs()
    given = pathlib.Path("/in/deep/er/given").read_text()
    if given == "fail":
        sys.exit(3)
    if given == "sleep":
        time.sleep(600)
    if given == "sleep a little":
        time.sleep(2)
    try:
        open("/in/deep/er/given", "a")
        writable = True
    except OSError:
        writable = False
    files = sorted(str(path) for path in pathlib.Path("/in").rglob("[a-z]*") if path.is_file())
    told = {"given": given, "files": files, "writable": writable}
    pathlib.Path("/out/told.json").write_text(json.dumps(told))

run(main, "json", some=some)
"""
SEEN = {"files": ["/in/beside", "/in/deep/er/given"], "writable": False}


class Steps(Bench):
    """Steps that tell what they see."""

    def __init__(self, builder: Builder) -> None:
        super().__init__(builder)
        self._said = (ROOT / "docker/steps/said.py").read_bytes()

    def step(
        self, name: str, given: bytes | Blob, beside: bytes | Blob = b"beside", *, some: bool = False
    ) -> ContainerStep:
        """`some`: it begins with some of its inputs, and says with which."""
        add = self.builder.store.add_bytes
        return ContainerStep(
            name=name,
            arguments=("/usr/bin/python3", "/step/program.py", *(["--some"] if some else [])),
            inputs={
                "/step/program.py": add(PROGRAM),
                "/step/said.py": add(self._said),
                "/in/beside": beside if isinstance(beside, Blob) else add(beside),
                "/in/deep/er/given": given if isinstance(given, Blob) else add(given),
            },
            outputs=("told.json",),
        )


@pytest.fixture
def opened(builder: Builder, tmp_path: Path) -> Iterator[Callable[[str], Steps]]:
    with benches(Steps, builder, tmp_path) as make:
        yield make


@pytest.fixture
def bench(opened: Callable[[str], Steps]) -> Steps:
    return opened("store")


def test_a_step_that_was_started_ahead_sees_and_gives_what_it_does_otherwise(
    bench: Steps, opened: Callable[[str], Steps]
) -> None:
    bench.builder.run(bench.step("first", b"one"), ahead=[bench.step("second", PENDING)])
    assert bench.there().keys() == {"second"}
    second = bench.builder.run(bench.step("second", b"two"))
    assert not second.cached
    assert bench.told(second) == {"given": "two"} | SEEN
    assert bench.created() == ["first", "second"]
    assert bench.there() == {}
    plain = opened("another")
    alone = plain.builder.run(plain.step("second", b"two"))
    assert (alone.derivation, alone.artifact) == (second.derivation, second.artifact)


def test_a_step_that_was_started_ahead_begins_with_some_of_its_inputs_and_is_the_same(
    bench: Steps, opened: Callable[[str], Steps]
) -> None:
    whole = bench.step("second", b"two", some=True)
    bench.builder.run(bench.step("first", b"one"), ahead=[bench.step("second", PENDING, PENDING, some=True)])
    bench.builder.give_ahead([bench.step("second", PENDING, some=True)])
    assert bench.said("second") == "begins with ['beside']\n"
    assert bench.shares() == {"second": IDLE_SHARES}  # until it has all, others get the processor first
    second = bench.builder.run(whole)
    assert bench.told(second) == {"given": "two"} | SEEN
    assert bench.created() == ["first", "second"]
    plain = opened("another")
    alone = plain.builder.run(plain.step("second", b"two", some=True))
    assert (alone.derivation, alone.artifact) == (second.derivation, second.artifact)


def test_a_step_that_began_with_other_inputs_than_it_is_run_with_is_not_taken(bench: Steps) -> None:
    bench.builder.run(bench.step("first", b"one"), ahead=[bench.step("second", PENDING, PENDING, some=True)])
    bench.builder.give_ahead([bench.step("second", PENDING, b"something else", some=True)])
    assert bench.said("second") == "begins with ['beside']\n"
    second = bench.builder.run(bench.step("second", b"two", some=True))
    assert bench.told(second) == {"given": "two"} | SEEN
    assert bench.created() == ["first", "second", "second"]
    assert bench.there() == {}


def test_what_cannot_be_given_some_of_its_inputs_is_run_as_any_other(bench: Steps) -> None:
    bench.builder.run(bench.step("first", b"one"), ahead=[bench.step("second", PENDING, PENDING, some=True)])
    [folder] = (bench.builder.store.root / "tmp").glob("*/in")
    (folder / "beside").write_bytes(b"in its place")
    bench.builder.give_ahead([bench.step("second", PENDING, some=True)])
    assert bench.there() == {}
    second = bench.builder.run(bench.step("second", b"two", some=True))
    assert bench.told(second) == {"given": "two"} | SEEN


def test_only_what_was_started_ahead_is_given_inputs(bench: Steps) -> None:
    bench.builder.give_ahead([bench.step("second", PENDING, some=True)])
    assert bench.created() == []
    assert bench.told(bench.builder.run(bench.step("second", b"two", some=True)))["given"] == "two"


def test_a_step_that_was_started_ahead_of_another_one_than_is_run_is_not_taken(bench: Steps) -> None:
    bench.builder.run(bench.step("first", b"one"), ahead=[bench.step("second", PENDING)])
    second = bench.builder.run(bench.step("second", b"two", beside=b"something else"))
    assert bench.told(second) == {"given": "two"} | SEEN
    assert bench.created() == ["first", "second", "second"]
    assert bench.there() == {}


@pytest.mark.parametrize("removed", [True, False])
def test_a_step_that_ended_before_it_had_its_inputs_is_started_anew(bench: Steps, *, removed: bool) -> None:
    bench.builder.run(bench.step("first", b"one"), ahead=[bench.step("second", PENDING)])
    client = docker.from_env()
    waiting = client.containers.get(bench.there()["second"])
    if removed:
        waiting.remove(force=True)
    else:
        waiting.kill()
    client.close()
    assert bench.told(bench.builder.run(bench.step("second", b"two")))["given"] == "two"
    assert bench.there() == {}


@pytest.mark.parametrize("given", [b"fail", b"two"])
def test_what_waits_for_inputs_that_do_not_come_ends_with_the_build(bench: Steps, given: bytes) -> None:
    ahead = [bench.step(name, PENDING) for name in ("second", "third")]
    if given == b"fail":
        with pytest.raises(StepError, match="first: exit status 3"):
            bench.builder.run(bench.step("first", given), ahead=ahead)
    else:
        bench.builder.run(bench.step("first", given), ahead=ahead)
    assert bench.there().keys() == {"second", "third"}
    bench.builder.__exit__(None, None, None)
    assert bench.there(ended=True) == {}
    assert bench.builder.store.abandoned() == []
    assert not [path for path in (bench.builder.store.root / "tmp").iterdir() if path.is_dir()]


def test_the_first_of_what_is_started_ahead_has_its_part_of_the_processor_and_the_others_little(
    bench: Steps,
) -> None:
    bench.builder.start_ahead([bench.step(name, PENDING) for name in ("first", "second")])
    assert bench.shares() == {"first": USUAL_SHARES, "second": IDLE_SHARES}
    bench.builder.run(bench.step("first", b"one"), ahead=[bench.step("third", PENDING)])
    assert bench.shares() == {"second": IDLE_SHARES, "third": IDLE_SHARES}


def test_what_is_left_of_a_step_is_removed_once_the_next_one_runs_and_at_the_end(
    bench: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that nobody waits for it: while a container is removed nothing runs."""
    remove = Engine.remove
    ran: list[set[str]] = []

    def watched(engine: Engine, name: str) -> None:
        ran.append({step for step in bench.there() if step != "third"})
        remove(engine, name)

    monkeypatch.setattr(Engine, "remove", watched)
    bench.builder.run(bench.step("first", b"one"), ahead=[bench.step("third", PENDING)])
    assert bench.there(ended=True).keys() == {"first", "third"}
    bench.builder.run(bench.step("second", b"sleep a little"))
    assert ran == [{"second"}]
    assert bench.there(ended=True).keys() == {"second", "third"}
    bench.builder.__exit__(None, None, None)
    assert bench.there(ended=True) == {}


def test_a_step_that_fails_is_removed_before_its_failure_is_told(bench: Steps) -> None:
    with pytest.raises(StepError):
        bench.builder.run(bench.step("first", b"fail"))
    assert bench.there(ended=True) == {}


def test_a_step_with_nothing_to_do_starts_none_ahead(bench: Steps) -> None:
    bench.builder.run(bench.step("first", b"one"))
    again = bench.builder.run(bench.step("first", b"one"), ahead=[bench.step("second", PENDING)])
    assert again.cached
    assert bench.created() == ["first"]


def test_a_step_runs_beside_another_and_is_waited_for_when_its_result_is_wanted(bench: Steps) -> None:
    beside = bench.step("beside", b"two")
    bench.builder.run(bench.step("first", b"one"), beside=[beside])
    assert bench.there(ended=True).keys() == {"beside", "first"}
    done = bench.builder.run(beside)
    assert not done.cached
    assert bench.told(done)["given"] == "two"
    assert bench.builder.run(beside).cached
    bench.builder.run(bench.step("third", b"three"), beside=[beside])  # is in the store
    assert bench.created() == ["beside", "first", "third"]
    assert bench.there() == {}


def test_a_step_that_somebody_else_runs_is_not_begun(bench: Steps, opened: Callable[[str], Steps]) -> None:
    other = opened("store")
    step = bench.step("beside", b"two")
    bench.builder.run(bench.step("first", b"one"), beside=[step])
    other.builder.run(other.step("second", b"two"), beside=[step])
    assert bench.created() == ["beside", "first", "second"]
    assert not bench.builder.run(step).cached
    assert other.builder.run(step).cached


def test_a_step_that_runs_beside_one_that_fails_ends_with_the_build(bench: Steps) -> None:
    with pytest.raises(StepError):
        bench.builder.run(bench.step("first", b"fail"), beside=[bench.step("beside", b"sleep")])
    assert bench.there().keys() == {"beside"}
    bench.builder.__exit__(None, None, None)
    assert bench.there(ended=True) == {}
    # Nor is its lock held any longer.
    assert list((bench.builder.store.root / "locks").iterdir()) == []


@pytest.mark.parametrize("beside", [False, True])
def test_an_engine_that_starts_no_other_container_beside_a_step_lets_the_step_end(
    bench: Steps, monkeypatch: pytest.MonkeyPatch, *, beside: bool
) -> None:
    """One that has no room for more, say, or takes no `--cpu-shares`."""
    start = Engine.start
    refused: list[str] = []

    def refusing(engine: Engine, container: str, step: str) -> None:
        if step == "second" and not refused:
            refused.append(step)
            raise EngineError("no more containers")
        start(engine, container, step)

    monkeypatch.setattr(Engine, "start", refusing)
    others = (
        {"beside": [bench.step("second", b"two")]} if beside else {"ahead": [bench.step("second", PENDING)]}
    )
    bench.builder.run(bench.step("first", b"one"), **others)
    assert bench.created() == ["first", "second"]
    assert bench.there() == {}
    assert bench.told(bench.builder.run(bench.step("second", b"two")))["given"] == "two"


def test_an_interruption_while_one_is_removed_leaves_no_other(
    bench: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    remove = Engine.remove
    closing: list[bool] = []

    def interrupted(engine: Engine, name: str) -> None:
        remove(engine, name)
        if closing:
            closing.clear()
            raise KeyboardInterrupt

    monkeypatch.setattr(Engine, "remove", interrupted)
    bench.builder.run(
        bench.step("first", b"one"),
        beside=[bench.step("beside", b"sleep"), bench.step("another", b"sleep")],
        ahead=[bench.step("second", PENDING)],
    )
    assert bench.there().keys() == {"another", "beside", "second"}
    closing.append(True)
    with pytest.raises(KeyboardInterrupt):
        bench.builder.__exit__(None, None, None)
    assert bench.there(ended=True) == {}
    assert list((bench.builder.store.root / "locks").iterdir()) == []


def test_what_is_damaged_while_a_step_waits_is_found_before_the_step_goes_on(bench: Steps) -> None:
    bench.builder.run(
        bench.step("first", b"one"), ahead=[bench.step("second", PENDING, beside=b"other bytes")]
    )
    second = bench.step("second", b"two", beside=b"other bytes")
    flip(bench.builder.store.path(second.inputs["/in/beside"].digest))
    with pytest.raises(LostObjectError, match="/in/beside"):
        bench.builder.run(second)
    assert bench.there() == {}
    again = bench.step("second", b"two", beside=b"other bytes")
    assert not bench.builder.run(again).cached


# a whole build

WITH_TENSORFLOW = "import+freeze+reference"  # their container, in which they import it once
IN_TURN = ["import", "freeze", "convert", "reference", "verify"]


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What a build does with its steps' containers, in its order: starts, gives some, gives all, stores the outputs."""
    seen: list[tuple[str, str]] = []

    def watched(what: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def watching(run: StepRun | PartRun, *given: Any, **named: Any) -> Any:
            seen.append((what, run.command.name))
            return method(run, *given, **named)

        return watching

    for what in ("__enter__", "give_some", "give"):
        monkeypatch.setattr(StepRun, what, watched(what.strip("_"), getattr(StepRun, what)))
    for what in ("give_some", "give"):
        monkeypatch.setattr(PartRun, what, watched(what, getattr(PartRun, what)))
    stored = Runner._stored

    def storing(runner: Runner, finished: Any, name: str, file: Any, what: str) -> Blob:
        seen.append(("stores", what.rpartition(" ")[2]))
        return stored(runner, finished, name, file, what)

    monkeypatch.setattr(Runner, "_stored", storing)
    patched = pipeline.patch_source

    def patching(own: Builder, pins: Pins) -> Realised:
        seen.append(("patches", "source"))
        return patched(own, pins)

    monkeypatch.setattr(pipeline, "patch_source", patching)
    return seen


@pytest.fixture
def local(tmp_path: Path) -> LocalCheckpoint:
    folder = tmp_path / "tuned"
    folder.mkdir()
    for name, data in files().items():
        (folder / name).write_bytes(data)
    assert (folder / "model.safetensors").stat().st_size >= LARGE_BYTES  # else it is there at once
    return find_checkpoint(Options(path=folder))


def test_a_build_without_the_memory_for_steps_beside_one_another_runs_one_after_another(
    bench: Steps,
    opened: Callable[[str], Steps],
    events: list[tuple[str, str]],
    local: LocalCheckpoint,
    tmp_path: Path,
) -> None:
    said = io.StringIO()
    bench.builder.progress = Progress(stream=said)
    bench.builder.memory = estimate(local.weight_bytes) - 1
    built, _ = build_ir(bench.builder, Request(precision="fp32"), tmp_path / "dist", local)
    # Each is started when what the one before gave is stored.
    one_after_another = [event for event in events if event[0] in ("enter", "stores")]
    expected = [event for step in IN_TURN for event in (("enter", step), ("stores", step))]
    assert [event for event, _ in itertools.groupby(one_after_another)] == expected
    assert not [step for what, step in events if what.startswith("give")]
    assert said.getvalue().count("steps run one after another") == 1
    takes = estimate(local.weight_bytes) / 1e6
    assert f"may take {takes:.0f} MB of memory, and there are {takes:.0f}" in said.getvalue()
    # What comes out is what comes out of one that had it.
    other = opened("other")
    other.builder.memory = estimate(local.weight_bytes)
    events.clear()
    again, _ = build_ir(other.builder, Request(precision="fp32"), tmp_path / "other", local)
    assert [step for what, step in events if what == "give_some"] == ["verify"]
    assert (again.ir, again.checkpoint, again.parity) == (built.ir, built.checkpoint, built.parity)


def test_a_build_starts_each_step_once_and_ahead_and_verify_begins_with_the_ir(
    bench: Steps, events: list[tuple[str, str]], local: LocalCheckpoint, tmp_path: Path
) -> None:
    build_ir(bench.builder, Request(precision="fp32"), tmp_path / "dist", local)
    assert [step for what, step in events if what == "enter"] == [WITH_TENSORFLOW, "convert", "verify"]
    at = {event: place for place, event in reversed([*enumerate(events)])}
    # The import before the source was patched, and all others while it ran.
    assert at["enter", WITH_TENSORFLOW] < at["patches", "source"] < at["give", "import"]
    assert all(at["enter", step] < at["stores", "import"] for step in ("convert", "verify"))
    assert all(at["stores", "import"] < at["give", step] for step in IN_TURN[1:])
    # The IR, while TensorFlow computed; and what that gave, when it was there.
    assert (
        at["stores", "convert"] < at["give_some", "verify"] < at["stores", "reference"] < at["give", "verify"]
    )
    assert [step for what, step in events if what == "give_some"] == ["verify"]

    # Where the freeze alone is done anew, to the same bits, all that follows is there: no IR is compiled for nothing.
    events.clear()
    rows = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n" + "1\t5\t6\tAnother row.\tAnd one more.\n" * 20
    (tmp_path / "dev.tsv").write_text(rows, encoding="utf-8")
    again = Request(precision="fp32", task_data=str(tmp_path))
    build_ir(bench.builder, again, tmp_path / "dist", local)
    assert {step for what, step in events if what == "stores"} == {"freeze"}
    assert not [step for what, step in events if what.startswith("give")]

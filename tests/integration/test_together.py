"""Steps that share a container, in which what all of them import is imported once."""

from __future__ import annotations

import contextlib
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import docker
import pytest
from bench import Bench, benches
from checkout import ROOT
from running_task import wait_until

from bertir.container import READY, SECONDS_TO_END, Command, Limits
from bertir.container_step import PENDING, ContainerStep
from bertir.engine import IDLE_SHARES, USUAL_SHARES, YIELDING_SHARES, Engine
from bertir.errors import EngineError, MissingOutputError, StepError, StepTimeoutError
from bertir.step_log import LOG_BYTES
from bertir.together import PartRun, Together, together

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from bertir.builder import Builder
    from bertir.store import Blob

pytestmark = pytest.mark.engine

# Of whoever imported it, which is seen by all copies of that process alike.
SHARED = b"""
import os
imported = [os.getpid()]
"""
# It tells what it sees, or does what it is told.
PROGRAM = b"""
import json, os, pathlib, signal, sys, time
from said import run
import shared

name = sys.argv[1]

def main():
    given = pathlib.Path("/in", name).read_text()
    print(name, "begins", flush=True)
    if given == "fail":
        sys.exit("bertir-step: it can't go on")
    if given == "wait":
        until = time.monotonic() + 60
        while not pathlib.Path("/out/go").exists() and time.monotonic() < until:
            time.sleep(0.01)
    if given == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if given == "eat":
        held = bytearray(b"." * (512 << 20))
    if given == "leave one":
        if os.fork() == 0:
            if os.fork() == 0:
                time.sleep(0.2)
            os._exit(5)
        os.wait()
        time.sleep(0.5)
    kind, _, instead = given.partition(": ")
    if kind in ("log", "sign", "end"):
        # So that the first process finds it there, in the place of what it writes.
        place = pathlib.Path(f"/out/.{ {'log': 'log', 'sign': 'ending', 'end': 'ended'}[kind] }-{name}")
        if kind == "log":
            place.unlink()
        if instead == "link":
            place.symlink_to("/etc/passwd")
        if instead == "pipe":
            os.mkfifo(place)
        if instead == "folder":
            place.mkdir()
        if instead == "digits":
            pathlib.Path(f"/out/.ended-{name}").write_text("4")
            sys.exit(3)
    if kind == "end":
        time.sleep(1)
    if given == "print":
        for _ in range(80):
            os.write(1, b"." * (1 << 20))
    if given == "child eats":
        if os.fork() == 0:
            held = bytearray(b"." * (1 << 30))
        os.wait()
        sys.exit(3)
    told = {"given": given, "imported": shared.imported, "nice": os.nice(0)}
    if given != "nothing":
        pathlib.Path("/out", f"{name}.json").write_text(json.dumps(told))

def begins_with_some():
    from said import await_inputs
    print(name, "has some", flush=True)
    await_inputs()
    main()

some = "--some" in sys.argv
run(begins_with_some if some else main, some=some)
"""
ALONE = {"imported": [1], "nice": 0}


class Steps(Bench):
    """Steps that tell what they see, each with an input and an output of its own name."""

    def step(
        self,
        name: str,
        given: bytes | Blob,
        *,
        common: bytes | Blob = b"common",
        yields: bool = False,
        some: bool = False,
    ) -> ContainerStep:
        add = self.builder.store.add_bytes
        modules = {
            f"/step/{module}": add((ROOT / "docker/steps" / module).read_bytes())
            for module in ("said.py", "together.py")
        }
        return ContainerStep(
            name=name,
            arguments=("/usr/bin/python3", "/step/program.py", name, *(["--some"] if some else [])),
            inputs={
                "/step/program.py": add(PROGRAM),
                "/step/shared.py": add(SHARED),
                **modules,
                "/in/common": add(common) if isinstance(common, bytes) else common,
                f"/in/{name}": add(given) if isinstance(given, bytes) else given,
            },
            outputs=(f"{name}.json",),
            imports="shared",
            yields=yields,
        )


@pytest.fixture
def opened(builder: Builder, tmp_path: Path) -> Iterator[Callable[[str], Steps]]:
    with benches(Steps, builder, tmp_path) as make:
        yield make


@pytest.fixture
def bench(opened: Callable[[str], Steps]) -> Steps:
    return opened("store")


def test_steps_that_import_the_same_share_a_container_and_each_gives_what_it_gives_alone(
    bench: Steps, opened: Callable[[str], Steps]
) -> None:
    second = bench.step("second", b"two", yields=True)
    bench.builder.run(bench.step("first", b"one"), beside=[second])
    done = bench.builder.run(second)
    assert bench.created() == ["first+second"]
    assert not done.cached
    told = bench.told(done)
    assert (told["given"], told["imported"]) == ("two", [1])
    plain = opened("another")
    alone = plain.builder.run(plain.step("second", b"two", yields=True))
    assert plain.created() == ["second"]
    assert plain.told(alone) == {"given": "two"} | ALONE
    assert alone.derivation == done.derivation
    assert {"engine", "log", "seconds", "started", "bytes_in"} <= done.facts.keys() == alone.facts.keys()
    assert bench.log(done) == plain.log(alone) == b"second begins\n"
    bench.builder.__exit__(None, None, None)
    assert bench.there(ended=True) == {}
    assert bench.builder.store.abandoned() == []


def test_what_was_started_ahead_together_is_given_its_inputs_one_after_the_other(bench: Steps) -> None:
    names = ("first", "second", "third")
    bench.builder.start_ahead([bench.step(name, PENDING) for name in names])
    assert bench.there().keys() == {"first+second+third"}
    for name in names:
        done = bench.builder.run(bench.step(name, name.encode()))
        assert bench.told(done) == {"given": name} | ALONE
    assert bench.created() == ["first+second+third"]


def test_one_of_them_may_begin_with_some_of_its_inputs(bench: Steps) -> None:
    ahead = bench.step("second", PENDING, common=PENDING, some=True)
    bench.builder.start_ahead([bench.step("first", PENDING), ahead])
    bench.builder.give_ahead([bench.step("second", PENDING, some=True)])
    [volume] = (bench.builder.store.root / "tmp").glob("*/out")
    wait_until(
        lambda: [log.read_bytes() for log in volume.glob(".log-second")] == [b"second has some\n"], "begun"
    )
    done = bench.builder.run(bench.step("second", b"two", some=True))
    assert bench.told(done)["given"] == "two"
    assert bench.log(done) == b"second has some\nsecond begins\n"
    assert bench.created() == ["first+second"]


def test_the_container_has_the_processor_as_the_least_patient_of_what_is_at_work(bench: Steps) -> None:
    patient = bench.step("patient", b"wait", yields=True)
    bench.builder.start_ahead([bench.step("other", PENDING)])
    [own] = bench.shares().values()
    assert own == USUAL_SHARES
    bench.builder.start_ahead([bench.step("first", PENDING), bench.step("patient", PENDING, yields=True)])
    assert bench.shares()["first+patient"] == IDLE_SHARES
    bench.builder.run(bench.step("first", b"one"), beside=[patient])
    assert bench.shares()["first+patient"] == YIELDING_SHARES
    let_go_of(bench, "first+patient")
    assert bench.told(bench.builder.run(patient))["nice"] == 10


def let_go_of(bench: Steps, container: str) -> None:
    client = docker.from_env()
    with contextlib.closing(client):
        mounts = client.containers.get(bench.there()[container]).attrs["Mounts"]
    [volume] = [mount["Source"] for mount in mounts if mount["Destination"] == "/out"]
    (ROOT / volume / "go").touch()


def test_a_step_that_fails_says_why_and_ends_the_others(bench: Steps) -> None:
    second = bench.step("second", b"wait")
    with pytest.raises(StepError, match=r"\Afirst: it can't go on\Z") as caught:
        bench.builder.run(bench.step("first", b"fail"), beside=[second])
    assert "The whole log is" in caught.value.advice
    assert bench.there() == {}
    with pytest.raises(StepError, match=r"\Afirst\+second: it was stopped, as first has failed\Z") as other:
        bench.builder.run(second)
    assert other.value.advice.count("The whole log is") == 1


def test_the_container_ends_with_the_last_of_its_steps(bench: Steps) -> None:
    names = ("first", "second", "third")
    bench.builder.start_ahead([bench.step(name, PENDING) for name in names])
    for name in names:
        realised = bench.builder.run(bench.step(name, b"one"))
        assert realised.facts["seconds"] > 0
    assert bench.there(ended=True).keys() == {"first+second+third"}  # it is removed while the next one runs
    bench.builder.run(bench.step("fourth", b"four"))
    assert "first+second+third" not in bench.there(ended=True)


@pytest.mark.parametrize(
    "given", ["log: link", "log: pipe", "log: folder", "log: nothing", "end: link", "end: pipe"]
)
def test_what_is_in_the_place_of_a_log_or_a_status_is_not_read_nor_waited_for(
    bench: Steps, given: str
) -> None:
    second = bench.step("second", b"two")
    begun = time.monotonic()
    done = bench.builder.run(bench.step("first", given.encode()), beside=[second])
    assert time.monotonic() - begun < SECONDS_TO_END
    assert bench.told(done)["given"] == given
    assert b"root:" not in bench.log(done)


@pytest.mark.parametrize("instead", ["link", "pipe", "digits"])
def test_only_an_exit_status_is_taken_for_one(bench: Steps, instead: str) -> None:
    """Whoever puts something there is not believed, or says how it ended itself, as it could by ending so."""
    second = bench.step("second", b"two")
    with pytest.raises(StepError, match=r"\Afirst: exit status (1|3|4)"):
        bench.builder.run(bench.step("first", f"sign: {instead}".encode()), beside=[second])


def test_a_step_without_its_output_is_told_what_it_left_itself(bench: Steps) -> None:
    with pytest.raises(
        MissingOutputError, match=r"there is no first\.json in its output volume \(found: nothing\)"
    ):
        bench.builder.run(bench.step("first", b"nothing"), beside=[bench.step("second", b"wait")])


def test_an_engine_that_changes_no_containers_part_of_the_processor_has_them_share_one(
    bench: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise EngineError("can't do that")

    monkeypatch.setattr(Engine, "let_go_on", refuse)
    second = bench.step("second", b"two", yields=True)
    bench.builder.run(bench.step("first", b"one"), beside=[second])
    assert bench.told(bench.builder.run(second))["given"] == "two"
    assert bench.created() == ["first+second"]


def test_what_is_printed_without_end_takes_no_room_beyond_a_size(bench: Steps) -> None:
    second = bench.step("second", b"two")
    done = bench.builder.run(bench.step("first", b"print"), beside=[second])
    assert len(bench.log(done)) == LOG_BYTES
    assert bench.told(bench.builder.run(second))["given"] == "two"


def test_an_import_that_fails_is_told_with_its_traceback(
    bench: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(
        globals(), "SHARED", b"import time; time.sleep(1); raise RuntimeError('no such luck')"
    )
    with pytest.raises(StepError, match=r"\Afirst: exit status 1(?s:.*)RuntimeError: no such luck"):
        bench.builder.run(bench.step("first", b"one"), beside=[bench.step("second", b"two")])


@pytest.mark.parametrize("path", ["/in/common", "/step/program.py"])
def test_a_step_does_not_go_on_with_a_file_that_was_damaged_and_made_anew(bench: Steps, path: str) -> None:
    """It has the damaged one still, under the same name."""
    bench.builder.start_ahead([bench.step("first", PENDING), bench.step("second", PENDING)])
    bench.builder.run(bench.step("first", b"one"))
    second = bench.step("second", b"two")
    blob = second.inputs[path]
    object_ = bench.builder.store.path(blob.digest)
    data = object_.read_bytes()
    object_.unlink()
    assert bench.builder.store.add_bytes(data) == blob
    done = bench.builder.run(second)
    assert bench.told(done) == {"given": "two"} | ALONE
    assert bench.created() == ["first+second", "second"]


def test_a_step_whose_process_is_killed_is_told_as_such(bench: Steps) -> None:
    with pytest.raises(StepError, match=r"\Afirst: exit status 137 \(killed, and not by bertir\)") as caught:
        bench.builder.run(bench.step("first", b"kill"), beside=[bench.step("second", b"two")])
    assert "first begins" in str(caught.value)
    assert "second begins" not in str(caught.value)


def test_a_step_that_leaves_a_process_behind_ends_when_it_ends(bench: Steps) -> None:
    second = bench.step("second", b"two")
    done = bench.builder.run(bench.step("first", b"leave one"), beside=[second])
    assert bench.told(done)["given"] == "leave one"
    assert bench.told(bench.builder.run(second))["given"] == "two"


def test_a_step_that_is_in_the_store_is_not_started_beside_another(bench: Steps) -> None:
    second = bench.step("second", b"two")
    bench.builder.run(second)
    bench.builder.run(bench.step("first", b"one"), beside=[second])
    assert bench.created() == ["first", "second"]


def test_steps_that_want_different_files_in_one_place_share_no_container(bench: Steps) -> None:
    second = bench.step("second", b"two", common=b"other")
    done = bench.builder.run(bench.step("first", b"one"), beside=[second])
    assert bench.told(done) == {"given": "one"} | ALONE
    assert bench.told(bench.builder.run(second)) == {"given": "two"} | ALONE
    assert bench.created() == ["first", "second"]


def test_a_step_that_is_given_what_lies_there_differently_is_started_anew(bench: Steps) -> None:
    bench.builder.start_ahead([bench.step("first", PENDING), bench.step("second", PENDING)])
    bench.builder.run(bench.step("first", b"one"))
    second = bench.step("second", b"two", common=b"other")
    assert bench.told(bench.builder.run(second)) == {"given": "two"} | ALONE
    assert bench.created() == ["first+second", "second"]


def test_steps_whose_container_was_removed_while_they_waited_are_started_anew(bench: Steps) -> None:
    bench.builder.start_ahead([bench.step("first", PENDING), bench.step("second", PENDING)])
    client = docker.from_env()
    with contextlib.closing(client):
        client.containers.get(bench.there()["first+second"]).remove(force=True)
    for name in ("first", "second"):
        assert bench.told(bench.builder.run(bench.step(name, b"one"))) == {"given": "one"} | ALONE
    assert bench.created() == ["first", "first+second", "second"]


# the container itself, with other limits


@pytest.fixture
def started(bench: Steps, tmp_path: Path) -> Iterator[Callable[..., list[PartRun]]]:
    with ExitStack() as stack:

        def start(limits: Limits, **given: bytes) -> list[PartRun]:
            commands = []
            for name, text in given.items():
                step = bench.step(name, text)
                paths = {path: bench.builder.store.path(blob.digest) for path, blob in step.inputs.items()}
                commands.append(
                    Command(
                        name=name,
                        arguments=step.arguments,
                        inputs=paths,
                        outputs=step.outputs,
                        limits=limits,
                        waits=True,
                    )
                )
            scratch = tmp_path / "scratch"
            scratch.mkdir()
            engine = bench.builder.engine
            run = stack.enter_context(
                engine.begin(bench.builder.load_image(), together(commands, "shared"), scratch)
            )
            shared = Together(run, lambda: None, commands)
            parts = [
                stack.enter_context(PartRun(shared, command, scratch / f"log-{command.name}"))
                for command in commands
            ]
            for part in parts:
                part.give({})
            return parts

        yield start


def test_a_step_that_is_out_of_memory_is_told_so_and_not_the_other(
    started: Callable[..., list[PartRun]],
) -> None:
    first, _ = started(Limits(memory_bytes=256 << 20), first=b"eat", second=b"wait")
    with (
        pytest.raises(StepError, match=r"\Afirst: the kernel ended it for want of memory \(limit 0\.5 GiB\)"),
        first.finished(),
    ):
        pass


def test_a_process_of_a_step_that_is_out_of_memory_is_told_of(started: Callable[..., list[PartRun]]) -> None:
    first, _ = started(Limits(memory_bytes=256 << 20), first=b"child eats", second=b"wait")
    with (
        pytest.raises(StepError, match="a process of it for want of memory"),
        first.finished(),
    ):
        pass


def test_where_the_whole_container_ends_each_step_says_so(
    bench: Steps, started: Callable[..., list[PartRun]]
) -> None:
    parts = started(Limits(), first=b"wait", second=b"wait")
    client = docker.from_env()
    with contextlib.closing(client):
        client.containers.get(bench.there()["first+second"]).kill()
    for part in parts:
        with (
            pytest.raises(StepError, match=rf"\A{part.command.name}: exit status 137 \(killed"),
            part.finished(),
        ):
            pass


def test_a_step_is_stopped_after_its_time(started: Callable[..., list[PartRun]]) -> None:
    first, second = started(Limits(seconds=2), first=b"wait", second=b"two")
    with second.finished():
        pass
    begun = time.monotonic()
    with pytest.raises(StepTimeoutError, match="first: stopped after 2 s, its time limit"), first.finished():
        pass
    assert time.monotonic() - begun < 20


def test_a_step_that_ended_before_it_had_its_inputs_takes_none(
    bench: Steps, started: Callable[..., list[PartRun]], tmp_path: Path
) -> None:
    del bench
    first, _ = started(Limits(), first=b"one", second=b"wait")
    with first.finished():
        pass
    assert (tmp_path / "scratch/in" / f"{READY}-first").exists()
    with pytest.raises(Exception, match="first ended before it had its inputs"):
        first.give({})

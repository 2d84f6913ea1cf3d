"""A rebuild's process: what it tells is compared at once, and it doesn't outlive who wanted it.

The process is real; the checkout that it runs in has a `bertir.rebuild` of the test's own, which tells what it is told to.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import IO, Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertir.compare import Stage
from bertir.digest import Digest
from bertir.errors import BertirError, DigestMismatchError, EngineError, StepError
from bertir.interruption import SIGNALS, Interrupted, interruptions
from bertir.launch import Rebuilt, launch
from bertir.local_checkpoint import Options
from bertir.prepare import Place
from bertir.rebuild import Order
from bertir.report import Request
from bertir.surroundings import Surroundings
from bertir.vary import Conditions

ONE, OTHER = Digest.of_bytes(b"1"), Digest.of_bytes(b"2")
ORDER = Order(
    request=Request(model="m"), checkpoint=None, output="/out", image=False, surroundings=Surroundings()
)


def place_of(folder: Path, program: str) -> Place:
    package = folder / "checkout" / "src" / "bertir"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    prelude = "import json, os, sys, time\ndef tell(**event): print(json.dumps(event), flush=True)\n"
    (package / "rebuild.py").write_text(prelude + textwrap.dedent(program), encoding="utf-8")
    return Place(
        checkout=folder / "checkout",
        store=folder / "store",
        output=folder / "output",
        environment={"SET": "here"},
    )


def baseline_of(place: Place, *stages: Stage) -> Rebuilt:
    return Rebuilt(place=place, stages=stages, observed={}, seconds=1.0)


def stage(name: str, digest: Digest = ONE) -> Stage:
    return Stage(name=name, cached=False, files={"file": digest})


def test_stages_and_what_was_seen_are_taken_as_they_are_told(tmp_path: Path) -> None:
    place = place_of(
        tmp_path,
        f"""
        tell(event="observed", facts={{"host umask": "077"}})
        tell(event="observed", facts={{"set": os.environ["SET"], "store": os.environ["BERTIR_STORE"]}})
        tell(event="stage", name="source", cached=True, files={{"file": "{ONE}"}})
        tell(event="published", folder={str(tmp_path / "output")!r})
        """,
    )
    (tmp_path / "output").mkdir()
    rebuilt = launch(ORDER, Conditions(), place, baseline_of(place, stage("source")))
    assert [item.name for item in rebuilt.stages] == ["source", "published"]
    assert rebuilt.observed["host umask"] == "077"
    assert rebuilt.observed["set"] == "here"
    assert rebuilt.observed["store"] == str(place.store)
    assert rebuilt.observed["steps from the store"] == 1
    assert rebuilt.folder == tmp_path / "output"
    assert rebuilt.difference is None
    assert rebuilt.failed is None


def test_a_rebuild_ends_at_the_first_stage_that_differs(tmp_path: Path) -> None:
    place = place_of(
        tmp_path,
        f"""
        tell(event="stage", name="source", cached=False, files={{"file": "{ONE}"}})
        tell(event="stage", name="freeze", cached=False, files={{"file": "{OTHER}"}})
        open("pid", "w").write(str(os.getpid()))
        time.sleep(600)
        """,
    )
    begun = time.monotonic()
    rebuilt = launch(ORDER, Conditions(), place, baseline_of(place, stage("source"), stage("freeze")))
    assert time.monotonic() - begun < 60
    assert rebuilt.difference is not None
    assert (rebuilt.difference.stage, rebuilt.difference.file) == ("freeze", "file")
    assert rebuilt.failed is None


@pytest.mark.parametrize(
    ("status", "kind"), [(6, EngineError), (7, StepError), (102, DigestMismatchError), (77, BertirError)]
)
def test_what_a_rebuild_fails_with_is_the_error_of_the_same_status(
    tmp_path: Path, status: int, kind: type[BertirError]
) -> None:
    place = place_of(
        tmp_path, f'tell(event="failed", message="no", advice="do", exit_status={status}); sys.exit({status})'
    )
    failed = launch(ORDER, Conditions(), place, None).failed
    assert type(failed) is kind
    assert (str(failed), failed.advice) == ("no", "do")


@pytest.mark.parametrize("program", ["pass", "sys.exit(3)", "os.kill(os.getpid(), 9)"])
def test_a_rebuild_that_ends_without_a_word_has_failed(tmp_path: Path, program: str) -> None:
    failed = launch(ORDER, Conditions(), place_of(tmp_path, program), None).failed
    assert failed is not None
    assert "without a word" in str(failed)


def test_a_variable_that_is_varied_to_nothing_is_not_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    program = 'tell(event="observed", facts={"cache": os.environ.get("XDG_CACHE_HOME", "unset")})'
    conditions = Conditions(environment={"XDG_CACHE_HOME": ""})
    assert launch(ORDER, conditions, place_of(tmp_path, program), None).observed["cache"] == "unset"


def test_wrappers_are_run_around_the_rebuild(tmp_path: Path) -> None:
    program = 'mask = os.umask(0); tell(event="observed", facts={"umask": mask})'
    conditions = Conditions(wrapper=("sh", "-c", 'umask 027 && exec "$@"', "sh"))
    assert launch(ORDER, conditions, place_of(tmp_path, program), None).observed["umask"] == 0o027


def test_a_rebuild_ends_when_whoever_asked_for_it_is_killed(tmp_path: Path) -> None:
    # The real one, which waits for an order that never comes. This test holds the other end of its standard input, so that
    # it isn't the end of the file that ends it.
    reader, writer = os.pipe()
    program = """
        import subprocess, sys, time
        child = subprocess.Popen([sys.executable, "-m", "bertir.rebuild"])
        time.sleep(3)
        print(child.pid, flush=True)
        time.sleep(600)
        """
    try:
        parent = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(program)],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")},
            cwd=tmp_path,
            stdin=reader,
            stdout=subprocess.PIPE,
            text=True,
        )
        with parent, cast("IO[str]", parent.stdout) as told:
            child = int(told.readline())
            assert running(child)
            parent.kill()
        until = time.monotonic() + 30
        while running(child) and time.monotonic() < until:
            time.sleep(0.05)
        assert not running(child)
    finally:
        os.close(reader)
        os.close(writer)


def test_a_signal_at_the_moment_at_which_a_rebuild_starts_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[subprocess.Popen[str]] = []
    start = subprocess.Popen

    def popen(*arguments: Any, **options: Any) -> subprocess.Popen[str]:
        started.append(start(*arguments, **options))
        signal.raise_signal(signal.SIGTERM)
        return started[-1]

    monkeypatch.setattr("bertir.launch.subprocess.Popen", popen)
    place = place_of(tmp_path, "time.sleep(600)")
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        with pytest.raises(Interrupted), interruptions():
            launch(ORDER, Conditions(), place, None)
        [child] = started
        assert child.poll() == -signal.SIGTERM
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for child in started:
            child.kill()
            child.wait()


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


PATHS = st.none() | st.just(Path("/a/b"))


@given(
    request=st.builds(
        Request, model=st.text(max_size=5), batch=st.none() | st.integers(1, 9), head=st.just("pooled")
    ),
    checkpoint=st.none() | st.builds(Options, path=st.just(Path("/c")), vocab_file=PATHS, bert_config=PATHS),
    image=st.booleans(),
    surroundings=st.builds(
        Surroundings,
        environment=st.dictionaries(st.text(max_size=3), st.text(max_size=3)),
        cpus=st.sampled_from(["", "0"]),
    ),
)
def test_an_order_comes_back_from_json_as_it_went(
    request: Request, checkpoint: Options | None, image: bool, surroundings: Surroundings
) -> None:
    order = Order(request=request, checkpoint=checkpoint, output="o", image=image, surroundings=surroundings)
    assert Order.from_json(order.to_json()) == order

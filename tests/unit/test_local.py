"""Steps as processes: what they are given, how their end is told, and that nothing of them is left however bertir ends."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from checkout import ROOT
from processes import working_in
from running_task import STATUSES, wait_until

from bertir.container import Command, Limits
from bertir.container_step import PENDING, ContainerStep
from bertir.digest import Digest
from bertir.errors import ConfigurationError, MissingOutputError, StepError, StepTimeoutError
from bertir.local import WITHOUT, Interpreter, LocalEngine
from bertir.progress import SILENT, Level, Progress
from bertir.runner import Runner, Running
from bertir.step_log import LOG_BYTES
from bertir.store import Store
from bertir.surroundings import Surroundings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ENVIRONMENT = {"LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "0", "HOME": "/home/bertir"}
# It tells what it sees.
PROBE = """
import json, os, pathlib, resource, sys
status = dict(line.split(":\\t") for line in open("/proc/self/status") if ":\\t" in line)
mask = os.umask(0)
seen = {
    "arguments": sys.argv[1:],
    "environment": dict(os.environ),
    "folder": os.getcwd(),
    "home": pathlib.Path(os.environ["HOME"], "intel/openvino_telemetry").read_text(),
    "input": pathlib.Path(sys.argv[1].partition("=")[2]).read_text(),
    "mask": mask,
    "no new privileges": status["NoNewPrivs"].strip(),
    "path": sys.path[0],
    "session": os.getsid(0),
    "supervisor's session": os.getsid(os.getppid()),
    "stdin": sys.stdin.read(),
    "temporary": pathlib.Path(os.environ["TMPDIR"]).is_dir(),
    "nice": os.nice(0),
} | {name: resource.getrlimit(getattr(resource, f"RLIMIT_{name}")) for name in ("CORE", "FSIZE", "NOFILE")}
pathlib.Path(sys.argv[2], "seen.json").write_text(json.dumps(seen))
"""
# Leaves a process behind in a session of its own, and another that its own parent has left.
DAEMONS = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(600)
    time.sleep(600)
"""
SLEEP = DAEMONS + "open('out/ready', 'w').close()\ntime.sleep(600)\n"


class Bench:
    """An engine in a folder, of which each run gets a scratch of its own."""

    def __init__(self, folder: Path) -> None:
        interpreter = Interpreter(
            path=Path(sys.executable),
            version="3",
            environment=ENVIRONMENT,
            home={"intel/openvino_telemetry": "0"},
        )
        self.engine = LocalEngine(folder / "store", interpreter)
        self.scratch = folder / "scratch"
        self.scratch.mkdir(mode=0o700)
        self._inputs = folder / "inputs"
        self._inputs.mkdir()

    def command(
        self, program: str, *arguments: str, inputs: Mapping[str, str] | None = None, **given: Any
    ) -> Command:
        files = {"/step/program.py": program} | dict(inputs or {})
        for path, text in files.items():
            (self._inputs / path.replace("/", "_")).write_text(text, encoding="utf-8")
        return Command(
            name="program",
            arguments=("/usr/bin/python3", "/step/program.py", *arguments),
            inputs={path: self._inputs / path.replace("/", "_") for path in files},
            **{"outputs": (), **given},
        )

    def run(self, program: str, *arguments: str, **given: Any) -> dict[str, bytes]:
        command = self.command(program, *arguments, **given)
        with self.engine.run("image", command, self.scratch) as finished:
            return {name: file.read() for name, file in finished.outputs.items()}


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    yield Bench(tmp_path)
    assert working_in(tmp_path) == []


@pytest.fixture
def seen(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    for name in ("https_proxy", "PYTHONPATH", "GITHUB_TOKEN", "LANG"):
        monkeypatch.setenv(name, "the user's")
    before = os.umask(0o077)
    try:
        given = bench.run(
            PROBE,
            *("--input=/in/deep/er/given", "/out", "--output=bert/pooler/out"),
            inputs={"/in/deep/er/given": "read"},
            outputs=("seen.json",),
        )
    finally:
        os.umask(before)
    value: dict[str, Any] = json.loads(given["seen.json"])
    return value


def test_a_step_is_told_the_containers_paths_relative_to_its_own_folder(
    seen: dict[str, Any], bench: Bench
) -> None:
    assert seen["arguments"] == ["--input=in/deep/er/given", "out", "--output=bert/pooler/out"]
    assert seen["folder"] == str(bench.scratch)
    assert seen["path"] == str(bench.scratch / "step")
    assert seen["input"] == "read"


def test_a_step_has_the_images_environment_and_nothing_of_the_users(
    seen: dict[str, Any], bench: Bench
) -> None:
    home, temporary = str(bench.scratch / "home"), str(bench.scratch / "tmp")
    # What Python itself sets of LC_ALL=C.UTF-8 is nothing.
    assert seen["environment"] == {
        "LC_ALL": "C.UTF-8",
        "PYTHONHASHSEED": "0",
        "HOME": home,
        "TMPDIR": temporary,
    }
    assert (seen["home"], seen["temporary"], seen["stdin"], seen["mask"]) == ("0", True, "", 0o022)


def test_a_step_is_limited_in_what_can_be_limited(seen: dict[str, Any]) -> None:
    limits = Limits()
    assert seen["CORE"] == [0, 0]
    assert seen["FSIZE"] == [limits.output_bytes] * 2
    assert seen["NOFILE"] == [limits.open_files] * 2
    assert seen["no new privileges"] == "1"
    # What reaches a terminal's foreground reaches neither the step nor what supervises it.
    assert len({os.getsid(0), seen["session"], seen["supervisor's session"]}) == 3
    assert seen["nice"] == os.nice(0)


def test_a_step_that_yields_leaves_the_processor_to_others(bench: Bench) -> None:
    given = bench.run(
        "import os; open('out/nice', 'w').write(str(os.nice(0)))", outputs=("nice",), yields=True
    )
    assert int(given["nice"]) == min(os.nice(0) + 10, 19)


def test_the_engine_says_what_it_lacks(bench: Bench) -> None:
    facts = bench.engine.facts().to_json()
    assert (facts["name"], facts["without"]) == ("local", WITHOUT)


# how an end is told: as of a container


def test_a_failing_step_ends_in_its_own_words(bench: Bench) -> None:
    with pytest.raises(StepError) as caught:
        bench.run(
            "import sys; print('noise'); sys.exit('bertir-step: no such thing\\nbertir-step: try another')"
        )
    assert str(caught.value) == "program: no such thing\n  try another"
    kept = Path(caught.value.advice.split()[-1])
    assert kept.is_relative_to(bench.engine.folder / "logs")
    assert kept.read_text(encoding="utf-8").startswith("noise\n")


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("raise SystemExit(3)", "exit status 3"),
        ("import os; os.abort()", "the program crashed (SIGABRT)"),
        ("import os; os.kill(os.getpid(), 9)", "exit status 137 (killed, and not by bertir)"),
        ("import os; os.symlink('/etc/passwd', 'out/stolen')", "not a regular file"),
        ("import os; os.link('in/given', 'out/stolen')", "its output stolen is a hard link"),
        ("import os; os.mkfifo('out/stolen')", "not a regular file"),
    ],
)
def test_a_step_that_ends_badly_is_told_as_such(bench: Bench, program: str, words: str) -> None:
    with pytest.raises(StepError) as caught:
        bench.run(program, outputs=("stolen",), inputs={"/in/given": "x"})
    assert words in str(caught.value)


def test_a_program_that_is_not_there_is_one_message(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    command = Command(name="nothing", arguments=("/nonexistent",), inputs={}, outputs=())
    with (
        pytest.raises(StepError, match=r"^nothing: can't start /nonexistent: No such file or directory$"),
        bench.engine.run("image", command, bench.scratch),
    ):
        pass


def test_a_step_that_leaves_out_a_file_is_an_error(bench: Bench) -> None:
    with pytest.raises(MissingOutputError, match=r"no wanted in its output volume \(found: other\)"):
        bench.run("open('out/other', 'w').close()", outputs=("wanted",))


def test_a_step_over_its_time_is_stopped_with_all_that_it_started(bench: Bench) -> None:
    with pytest.raises(StepTimeoutError, match="program: stopped after 1 s, its time limit"):
        bench.run(SLEEP, limits=Limits(seconds=1))
    assert working_in(bench.scratch) == []


def test_a_step_that_fills_its_output_volume_is_stopped(bench: Bench) -> None:
    program = (
        "import os, time\nfor number in range(5):\n open(f'out/{number}', 'wb').write(bytes(900_000))\n"
        "time.sleep(600)"
    )
    with pytest.raises(StepError, match=r"it filled its output volume with more than 1\.0 MB, the limit"):
        bench.run(program, limits=Limits(output_bytes=1_000_000))


def test_a_file_larger_than_all_outputs_may_be_is_refused_to_the_step(bench: Bench) -> None:
    program = "with open('out/x', 'wb') as file: file.write(bytes(3 << 20))"
    with pytest.raises(StepError, match="File too large"):
        bench.run(program, limits=Limits(output_bytes=1 << 20))


def test_what_a_step_prints_is_kept_up_to_a_size(bench: Bench) -> None:
    program = f"import sys\nfor _ in range(20):\n sys.stdout.write('x' * {LOG_BYTES // 16})\n"
    command = bench.command(program)
    with bench.engine.run("image", command, bench.scratch) as finished:
        assert finished.log.stat().st_size == LOG_BYTES


def test_what_a_step_leaves_running_ends_with_it(bench: Bench) -> None:
    assert bench.run(DAEMONS + "open('out/done', 'w').close()", outputs=("done",)) == {"done": b""}
    assert working_in(bench.scratch) == []


def test_what_is_around_a_step_can_not_be_varied(bench: Bench) -> None:
    with pytest.raises(ConfigurationError, match="in a container only"):
        bench.run("pass", surroundings=Surroundings(cpus="0"))


# ahead of its inputs

WAITING = """
import os, pathlib, time
open("out/waits", "w").close()
while not pathlib.Path(os.environ["BERTIR_READY"]).exists():
    time.sleep(0.01)
pathlib.Path("out/told").write_text(pathlib.Path("in/given").read_text() + pathlib.Path("in/known").read_text())
"""


def test_a_step_may_wait_for_its_inputs(bench: Bench, tmp_path: Path) -> None:
    given = tmp_path / "given"
    given.write_text("late, ", encoding="utf-8")
    command = bench.command(WAITING, waits=True, outputs=("told",), inputs={"/in/known": "known"})
    with bench.engine.begin("image", command, bench.scratch) as run:
        wait_until((bench.scratch / "out" / "waits").exists, "it runs")
        run.give({"/in/given": given})
        with run.finished() as finished:
            assert finished.outputs["told"].read() == b"late, known"


def test_a_runner_starts_ahead_of_inputs_and_ends_what_never_gets_them(bench: Bench, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    runner = Runner(store, Surroundings(), lambda: bench.engine, SILENT)
    program = store.add_bytes(WAITING.encode())
    inputs = {"/step/program.py": program, "/in/known": store.add_bytes(b"known")}
    arguments = ("/usr/bin/python3", "/step/program.py")

    def step(name: str) -> ContainerStep:
        return ContainerStep(
            name=name, arguments=arguments, inputs=inputs | {"/in/given": PENDING}, outputs=("told",)
        )

    runner.start_ahead([step("one"), step("other")], "image")
    wait_until(lambda: len(working_in(store.root)) == 4, "both wait")  # each with what supervises it
    whole = ContainerStep(
        name="one",
        arguments=arguments,
        inputs=inputs | {"/in/given": store.add_bytes(b"late, ")},
        outputs=("told",),
    )
    running = runner.start(whole, "image")
    with running.ends:
        wait_until(
            lambda: [path.stat().st_size for path in store.root.glob("tmp/*/out/told")] == [11], "told"
        )
        [left] = store.root.glob("tmp/*/out/told")
        with left.open("r+b") as writes:
            outcome = runner.finish(running)
            # It was copied, and not moved: what a step had started could write it still. And it takes no room twice.
            assert not left.exists()
            writes.write(b"written later")
    assert store.path(outcome.artifact["told"].digest).read_bytes() == b"late, known"
    assert outcome.facts["engine"]["name"] == "local"
    assert working_in(store.root) != []  # the other one waits
    runner.close()
    assert working_in(store.root) == []


def test_a_step_that_nobody_waits_for_yet_is_looked_after_by_who_waits_for_another(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bertir.outputs.MOST_FILES", 200)
    store = Store(tmp_path / "store")
    runner = Runner(store, Surroundings(), lambda: bench.engine, SILENT)
    over = tmp_path / "over"

    def begun(name: str, program: str) -> Running:
        arguments = ("/usr/bin/python3", "-c", program)
        return runner.start(
            ContainerStep(name=name, arguments=arguments, inputs={}, outputs=("done",)), "image"
        )

    floods = begun("floods", f"for number in range(201): open(f'out/{{number}}', 'w').close()\n{SLEEP}")
    waits = begun(
        "waits",
        f"import os, time\nwhile not os.path.exists({str(over)!r}): time.sleep(0.01)\nopen('out/done', 'w')",
    )
    wait_until(lambda: list(store.root.glob("tmp/*/out/ready")), "it has left them, and sleeps")
    with ThreadPoolExecutor(1) as threads:
        outcome = threads.submit(runner.finish, waits)
        try:
            wait_until(lambda: len(working_in(store.root)) == 2, "the other one was stopped", 20)
        finally:
            over.touch()
        assert outcome.result().artifact["done"].size == 0
    with pytest.raises(StepError, match=r"floods: it left more than 200 files .*; it was stopped"):
        runner.finish(floods)
    runner.close()


# several in one process's copies

SHARING = """
import os, pathlib, sys, time
name, does = sys.argv[1:]
while not pathlib.Path(os.environ["BERTIR_READY"]).exists():
    time.sleep(0.01)
print("goes on", flush=True)
if does == "flood":
    for number in range(201):
        open(f"out/{number}", "w").close()
    time.sleep(600)
pathlib.Path("out", name).write_text(f"{os.getppid()} {os.nice(0)}")
"""


def sharing(store: Store, name: str, does: str = "", *, yields: bool = False) -> ContainerStep:
    together = (ROOT / "docker/steps/together.py").read_bytes()
    return ContainerStep(
        name=name,
        arguments=("/usr/bin/python3", "/step/program.py", name, does),
        inputs={
            "/step/program.py": store.add_bytes(SHARING.encode()),
            "/step/together.py": store.add_bytes(together),
        },
        outputs=(name,),
        imports="json",
        yields=yields,
    )


def test_steps_that_import_the_same_are_copies_of_one_process_and_nothing_of_them_is_left(
    bench: Bench, tmp_path: Path
) -> None:
    store = Store(tmp_path / "store")
    said = io.StringIO()
    progress = Progress(stream=said, level=Level.VERBOSE)
    runner = Runner(store, Surroundings(), lambda: bench.engine, progress)
    before = len(list(Path("/proc/self/fd").iterdir())), threading.active_count()
    steps = [sharing(store, "one"), sharing(store, "other", yields=True), sharing(store, "third")]
    runner.start_ahead(steps, "image")
    # With what supervises them; and the third is never given its inputs.
    wait_until(lambda: len(working_in(store.root)) == 5, "all three wait")
    told = {}
    for step in steps[:2]:
        running = runner.start(step, "image")
        with running.ends:
            outcome = runner.finish(running)
        parent, nice = store.path(outcome.artifact[step.name].digest).read_text(encoding="ascii").split()
        told[step.name] = parent, int(nice)
        assert store.path(Digest.from_str(outcome.facts["log"])).read_bytes() == b"goes on\n"
    assert told["one"][0] == told["other"][0]
    assert (told["one"][1], told["other"][1]) == (os.nice(0), min(os.nice(0) + 10, 19))
    assert [line.split()[-4:] for line in said.getvalue().splitlines()] == [
        [name, "|", "goes", "on"] for name in told
    ]
    runner.close()
    assert working_in(store.root) == []
    assert (len(list(Path("/proc/self/fd").iterdir())), threading.active_count()) == before


def test_who_ends_what_supervises_them_ends_all_of_them(bench: Bench, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    runner = Runner(store, Surroundings(), lambda: bench.engine, SILENT)
    runner.start_ahead([sharing(store, "one"), sharing(store, "other")], "image")
    wait_until(lambda: len(working_in(store.root)) == 4, "both wait")
    [process] = bench.engine._processes.values()
    os.kill(process._process.pid, signal.SIGKILL)
    wait_until(
        lambda: len(working_in(store.root)) <= 1, "they have ended"
    )  # the one that was killed isn't waited for yet
    runner.close()
    assert working_in(store.root) == []


def test_where_one_of_them_does_what_it_may_not_all_are_stopped(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bertir.outputs.MOST_FILES", 200)
    store = Store(tmp_path / "store")
    runner = Runner(store, Surroundings(), lambda: bench.engine, SILENT)
    floods, waits = sharing(store, "floods", "flood"), sharing(store, "waits")
    runner.start_ahead([floods, waits], "image")
    running = runner.start(floods, "image")
    with (
        running.ends,
        pytest.raises(
            StepError, match=r"\Afloods\+waits: it left more than 200 files .*; it was stopped"
        ) as caught,
    ):
        runner.finish(running)
    [log] = (store.root / "logs").iterdir()
    assert str(log) in caught.value.advice
    assert log.read_bytes() == b"goes on\n"
    assert working_in(store.root) == []
    runner.close()


# however bertir ends

BUILD = """
import pathlib, sys
from bertir.container import Command
from bertir.interruption import Interrupted, interruptions
from bertir.local import Interpreter, LocalEngine
from bertir.store import Store
store = Store(pathlib.Path(sys.argv[1]))
interpreter = Interpreter(path=pathlib.Path(sys.executable), version="3", environment={}, home={})
command = Command(name="sleeper", arguments=("/usr/bin/python3", "-c", sys.argv[2]), inputs={}, outputs=())
try:
    with interruptions(), store.temporary_folder() as scratch:
        with LocalEngine(store.root, interpreter).run("image", command, scratch):
            pass
except Interrupted as error:
    raise SystemExit(error.exit_status)
"""


@pytest.mark.parametrize("kind", STATUSES)
def test_however_bertir_is_ended_no_process_stays_and_nothing_that_the_next_run_does_not_remove(
    tmp_path: Path, kind: str
) -> None:
    root = tmp_path / "store"
    process = subprocess.Popen(
        [sys.executable, "-c", BUILD, str(root), SLEEP],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2] / "src")},
        start_new_session=True,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: list(root.glob("tmp/*/out/ready")), "the step runs")
        wait_until(lambda: len(working_in(root)) == 4, "what it started runs")  # and what supervises it
        end(process, kind)
        status = process.wait(timeout=60)
        assert status == STATUSES[kind] or (kind == "SIGINT twice" and status == -signal.SIGINT)
    finally:
        process.kill()
        process.wait()
    wait_until(lambda: working_in(root) == [], "all have ended", 20)
    if kind != "SIGKILL":
        assert list((root / "tmp").iterdir()) == []
    Store(root).sweep()
    assert list((root / "tmp").iterdir()) == []


def end(process: subprocess.Popen[bytes], kind: str) -> None:
    if kind == "SIGKILL":
        process.kill()
    elif kind == "SIGTERM":
        process.terminate()
    else:
        os.killpg(process.pid, signal.SIGINT)
        if kind == "SIGINT twice":
            os.killpg(process.pid, signal.SIGINT)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_who_ends_what_supervises_a_step_ends_the_step(bench: Bench, number: signal.Signals) -> None:
    """SIGKILL can't be passed on: the kernel ends the step, and what that started in other sessions is beyond it."""
    command = bench.command("open('out/ready', 'w').close()\nimport time\ntime.sleep(600)\n")
    with bench.engine.begin("image", command, bench.scratch) as run:
        wait_until((bench.scratch / "out" / "ready").exists, "it runs")
        [process] = bench.engine._processes.values()
        os.kill(process._process.pid, number)
        with pytest.raises(StepError, match="exit status 137"), run.finished():
            pass
    assert working_in(bench.scratch) == []


def test_a_step_that_stops_what_supervises_it_is_ended_all_the_same(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bertir.local._SECONDS_TO_END", 0.2)
    program = "import os, signal, time\nos.kill(os.getppid(), signal.SIGSTOP)\nopen('out/ready', 'w').close()\ntime.sleep(600)"
    with bench.engine.begin("image", bench.command(program), bench.scratch):
        wait_until((bench.scratch / "out" / "ready").exists, "it runs")
    wait_until(lambda: working_in(bench.scratch) == [], "it has ended", 20)


def test_no_descriptor_and_no_thread_of_a_run_is_left(bench: Bench) -> None:
    def left() -> tuple[int, int]:
        return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()

    before = left()
    bench.run("pass")
    assert left() == before

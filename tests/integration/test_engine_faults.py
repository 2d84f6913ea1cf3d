"""An engine that dies, hangs, loses its image or can limit nothing: caused for real, on a daemon of the tests' own."""

from __future__ import annotations

import io
import os
import re
import subprocess
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from private_engine import private_engine
from programs import needed
from running_task import STATUSES, left_in, wait_until

from bertir.container import Command, Limits
from bertir.container_step import ContainerStep
from bertir.engine import connect
from bertir.errors import EngineError, StepError, StepTimeoutError
from bertir.image import archive
from bertir.interruption import Interrupted, interruptions
from bertir.prepare import _podman
from bertir.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from small_build import Bench

    from bertir.builder import Builder
    from bertir.image import Image

pytestmark = pytest.mark.engine


def program(text: str, *outputs: str, name: str = "test-program") -> ContainerStep:
    return ContainerStep(name=name, arguments=("/usr/bin/python3", "-c", text), inputs={}, outputs=outputs)


def in_a_moment(action: Callable[[], object], ready: Callable[[], bool]) -> threading.Thread:
    """Do something as soon as it is `ready`."""

    def wait() -> None:
        until = time.monotonic() + 30
        while not ready() and time.monotonic() < until:
            time.sleep(0.05)
        action()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


WRITES_AND_WAITS = program(
    # It ends when asked to, as a daemon that comes back asks; a first process doesn't, unless it says so.
    "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(3));"
    "open('/out/result', 'w').write('whole'); print('at it', flush=True); time.sleep(600)",
    "result",
)
QUICK = program("open('/out/result', 'w').write('whole')", "result")


def at_it(root: Path) -> Callable[[], bool]:
    return lambda: any(path.read_bytes() == b"at it\n" for path in root.glob("tmp/*/log"))


def test_a_daemon_that_dies_is_told_at_once_and_the_next_run_clears_up_and_goes_on(
    bench: Bench, tmp_path: Path
) -> None:
    root = tmp_path / "store"
    died = 0.0

    def die() -> None:
        nonlocal died
        died = time.monotonic()  # before: what it ends may be told before `kill` is back
        bench.daemon.kill()

    with bench.builder(root) as first:
        killer = in_a_moment(die, at_it(root))
        with pytest.raises(EngineError, match="the engine no longer answers") as raised:
            first.run(WRITES_AND_WAITS)
        seconds = time.monotonic() - died
        killer.join()
    assert raised.value.exit_status == 6
    assert seconds < 5
    assert left_in(root) == []
    assert not list((root / "records").rglob("*.json"))
    bench.daemon.start()
    assert len(bench.daemon.containers()) == 1
    said = io.StringIO()
    with bench.builder(root, said) as second:
        assert second.run(QUICK).artifact["result"].size == len("whole")
    assert "removed 1 containers of builds that were killed" in said.getvalue()
    assert bench.daemon.containers() == []


def test_a_daemon_that_is_back_within_a_moment_does_not_make_a_step_whole(
    bench: Bench, tmp_path: Path
) -> None:
    root = tmp_path / "store"

    def restart() -> None:
        bench.daemon.kill()
        bench.daemon.start()

    with bench.builder(root) as first:
        killer = in_a_moment(restart, at_it(root))
        with pytest.raises((EngineError, StepError)):
            first.run(WRITES_AND_WAITS)
        killer.join()
    assert not list((root / "records").rglob("*.json"))
    for left in bench.daemon.containers():
        bench.daemon.docker("rm", "--force", left)


def test_a_socket_that_vanishes_is_told_and_the_next_run_with_one_goes_on(
    bench: Bench, tmp_path: Path
) -> None:
    root = tmp_path / "store"
    hidden = bench.daemon.folder / "hidden"
    step = program(
        "import time; print('at it', flush=True); time.sleep(2); open('/out/result', 'w').write('whole')",
        "result",
    )
    with bench.builder(root) as first:
        thief = in_a_moment(lambda: bench.daemon.socket.rename(hidden), at_it(root))
        try:
            begun = time.monotonic()
            with suppress(EngineError):  # whether it ends well depends on which connections are open already
                assert first.run(step).artifact["result"].size == len("whole")
            assert time.monotonic() - begun < 10
            thief.join()
            with (
                pytest.raises(EngineError, match="no container engine answers"),
                bench.builder(root) as second,
            ):
                second.run(QUICK)
        finally:
            thief.join()
            hidden.rename(bench.daemon.socket)
    assert left_in(root) == []
    with bench.builder(root) as third:
        third.run(QUICK)
    assert bench.daemon.containers() == []


def test_a_daemon_that_hangs_is_told_and_nothing_waits_for_it(
    bench: Bench,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Shorter than a user waits; what is tested is that each has an end, and that each is asked of the hanging bench.daemon.
    monkeypatch.setattr("bertir.engine.ANSWER_SECONDS", 1)
    monkeypatch.setattr("bertir.engine.BUSY_SECONDS", 5)
    root = tmp_path / "store"
    hanging = threading.Event()
    over = threading.Event()

    since = 0.0

    def hang() -> None:
        nonlocal since
        with bench.daemon.hanging():
            since = time.monotonic()
            hanging.set()
            over.wait(60)

    with bench.builder(root) as first:
        thread = in_a_moment(hang, at_it(root))
        try:
            with pytest.raises(EngineError, match="the engine no longer answers"):
                first.run(WRITES_AND_WAITS)
            assert time.monotonic() - since < 8.5  # one answer, and the removal, which has less patience
            begun = time.monotonic()
            with (
                pytest.raises(EngineError, match="no container engine answers"),
                connect(bench.daemon.environment, folder=root),
            ):
                pass
            assert time.monotonic() - begun < 10
            assert hanging.is_set()
        finally:
            over.set()
            thread.join()
    assert left_in(root) == []
    with bench.builder(root) as second:
        second.run(QUICK)
    assert bench.daemon.containers() == []


def test_an_image_that_somebody_removes_between_two_steps_is_loaded_again(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = io.StringIO()
    with bench.builder(tmp_path / "store", said) as opened:
        opened.run(QUICK)
        bench.daemon.docker("rmi", "--force", str(bench.small.id))
        opened.run(program("open('/out/other', 'w').close()", "other"))
        # And in the moment between the look and the container.
        found = opened.containers.find_image

        def find_and_remove(digests: object) -> str | None:
            monkeypatch.setattr(opened.containers, "find_image", found)
            known = found(digests)  # type: ignore[arg-type]
            bench.daemon.docker("rmi", "--force", str(bench.small.id))
            return known

        monkeypatch.setattr(opened.containers, "find_image", find_and_remove)
        opened.run(program("open('/out/third', 'w').close()", "third"))
    assert said.getvalue().count("loading localhost/bertir") >= 2
    assert "somebody removed it" in said.getvalue()


@pytest.mark.parametrize("kind", STATUSES)
def test_a_build_that_is_killed_while_it_loads_the_image_leaves_nothing_and_the_next_one_loads_it(
    bench: Bench, tmp_path: Path, kind: str
) -> None:
    root, said = tmp_path / "store", tmp_path / "said"
    bench.daemon.docker("rmi", "--force", str(bench.small.id), check=False)  # it may not be there
    said.touch()
    child = os.fork()
    if child == 0:
        status = 0
        try:
            with said.open("w") as stream, interruptions(), bench.builder(root, stream) as opened:
                opened.load_image()
        except Interrupted as error:
            status = error.exit_status
        finally:
            os._exit(status)
    wait_until(lambda: "loading " in said.read_text(), "loading")
    first, *more = {"SIGKILL": [9], "SIGTERM": [15], "SIGINT": [2], "SIGINT twice": [2, 2]}[kind]
    os.kill(child, first)
    for number in more:
        time.sleep(0.02)
        with suppress(ProcessLookupError):
            os.kill(child, number)
    _, ended = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(ended) == STATUSES[kind]
    if kind != "SIGKILL":
        assert left_in(root) == []
    with bench.builder(root) as opened:
        assert opened.run(QUICK).artifact["result"].size == len("whole")
    assert left_in(root) == []


def test_ten_builds_at_once_load_an_image_once(bench: Bench, tmp_path: Path) -> None:
    bench.daemon.docker("rmi", "--force", str(bench.small.id), check=False)
    root = tmp_path / "store"
    said = [io.StringIO() for _ in range(10)]
    ids: list[str] = []

    def load(stream: io.StringIO) -> None:
        with bench.builder(root, stream) as opened:
            ids.append(opened.load_image())

    with bench.builder(root):
        threads = [threading.Thread(target=load, args=(stream,)) for stream in said]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert ids == [str(bench.small.id)] * 10
    assert sum("loading localhost/bertir" in stream.getvalue() for stream in said) == 1


def test_an_engine_that_can_limit_nothing_is_told_once_and_builds(bench: Bench, tmp_path: Path) -> None:
    said = io.StringIO()
    with private_engine(only_cgroup_2=True) as limitless:
        assert limitless.docker("info", "--format", "{{.CgroupVersion}}").stdout == "2\n"
        with replace(bench, daemon=limitless).builder(tmp_path / "store", said) as opened:
            first = opened.run(QUICK)
            opened.run(program("open('/out/other', 'w').close()", "other"))
        assert first.facts["engine"]["not_limited"] == "memory, swap, processes"
        assert limitless.containers() == []
    line = "steps run without such a limit: memory, swap, processes"
    assert said.getvalue().count(line) == 1


# how a step ends


def run(bench: Bench, root: Path, text: str, limits: Limits | None = None) -> str:
    """Run a program that fails; give what is said."""
    command = Command(
        name="test-program",
        arguments=("/usr/bin/python3", "-c", text),
        inputs={},
        outputs=(),
        limits=limits or Limits(),
    )
    with (
        bench.builder(root) as opened,
        opened.store.temporary_folder() as scratch,
        pytest.raises(StepError) as raised,
        opened.engine.run(opened.load_image(), command, scratch),
    ):
        pass
    assert bench.daemon.containers() == []
    assert left_in(root) == []
    return f"{type(raised.value).__name__}: {raised.value}"


EATS = "x = bytearray(1 << 30); x[::4096] = b'x' * len(x[::4096])"
LITTLE = Limits(memory_bytes=64 << 20)


@pytest.mark.parametrize(
    ("text", "said", "unsaid"),
    [
        (EATS, "the kernel ended it for want of memory (limit 0.1 GiB)", "exit status"),
        (
            f"import subprocess, sys; sys.exit(subprocess.run([sys.executable, '-c', '''{EATS}''']).returncode and 3)",
            "exit status 3; the kernel ended a process of it for want of memory",
            "killed, and not",
        ),
        ("raise SystemExit(137)", "exit status 137", "memory"),
        ("raise MemoryError('not really')", "exit status 1; its last lines", "want of memory"),
    ],
    ids=["out of memory", "child out of memory", "137 by itself", "another failure"],
)
def test_want_of_memory_is_said_only_if_so(
    bench: Bench, tmp_path: Path, text: str, said: str, unsaid: str
) -> None:
    found = run(bench, tmp_path / "store", text, LITTLE)
    assert said in found
    assert unsaid not in found


def test_a_step_killed_from_outside_is_not_told_as_out_of_memory(bench: Bench, tmp_path: Path) -> None:
    root = tmp_path / "store"
    killer = in_a_moment(lambda: bench.daemon.docker("kill", *bench.daemon.containers()), at_it(root))
    found = run(bench, root, "import time; print('at it', flush=True); time.sleep(600)")
    killer.join()
    assert "exit status 137 (killed, and not by bertir)" in found
    assert "memory" not in found


@pytest.mark.parametrize(
    "text",
    [
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)",
        "import os, time; os.close(1); os.close(2); time.sleep(600)",
        "import os, time; os.fork(); os.setsid() if os.getpid() != 1 else 0; time.sleep(600)",
        "import os\nwhile True: os.write(1, b'x' * 65536)",
    ],
    ids=["ignores SIGTERM", "closed its output", "forked", "prints without end"],
)
def test_a_step_that_hangs_is_stopped_at_its_limit(bench: Bench, tmp_path: Path, text: str) -> None:
    begun = time.monotonic()
    found = run(bench, tmp_path / "store", text, Limits(seconds=1))
    assert found == f"{StepTimeoutError.__name__}: test-program: stopped after 1 s, its time limit"
    assert time.monotonic() - begun < 10


# disks


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


FILLS = "f = open('{}/fill', 'wb', buffering=0)\nwhile f.write(bytes(1 << 20)): pass"
REMOVES = "import os\ntry:\n    {}\nfinally: os.remove('/out/fill')".format(
    FILLS.format("/out").replace("\n", "\n    ")
)


def test_a_full_disk_is_told_with_what_was_written_and_what_is_free(bench: Bench, tmp_path: Path) -> None:
    with bench.builder(tmp_path / "other") as opened:
        opened.load_image()
    with small_disk(tmp_path / "disk", "100m") as disk:
        store = Store(disk)
        command = Command(
            name="filler",
            arguments=("/usr/bin/python3", "-c", FILLS.format("/out")),
            inputs={},
            outputs=("fill",),
        )
        with (
            connect(bench.daemon.environment, folder=disk) as engine,
            store.temporary_folder() as scratch,
            pytest.raises(StepError) as raised,
            engine.run(str(bench.small.id), command, scratch),
        ):
            pass
        said = str(raised.value)
        assert f"the disk of {disk} is full: the step wrote 1" in said
        # The watch may have looked a moment before the last byte.
        assert re.search(r"MB there, and [0-4]\.\d MB are free", said)
        assert "BERTIR_STORE" in raised.value.advice
        assert left_in(disk) == []


def test_a_full_tmp_is_told_with_its_limit(bench: Bench, tmp_path: Path) -> None:
    text = FILLS.format("/tmp")
    found = run(bench, tmp_path / "store", text, Limits(scratch_bytes=32 << 20))
    assert "no space was left for it: its /tmp, in memory, holds 33.6 MB at most" in found
    assert "GB free" in found


def test_a_disk_with_room_is_not_blamed(bench: Bench, tmp_path: Path) -> None:
    found = run(bench, tmp_path / "store", "raise OSError(5, 'Input/output error')")
    assert "exit status 1; its last lines" in found
    assert "full" not in found
    assert "space" not in found


MEGABYTE = Limits(output_bytes=1 << 20)


@pytest.fixture
def few_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "bertir.outputs.MOST_FILES", 200
    )  # so that the test's disk hasn't ten thousand to make


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("open('/out/a', 'wb').write(bytes(2 << 20))", "OSError: [Errno 27] File too large"),
        ("open('/out/a', 'wb').truncate(2 << 20)", "OSError: [Errno 27] File too large"),
        (
            "import time\nfor n in range(4): open(f'/out/{n}', 'wb').write(bytes(1 << 19))\ntime.sleep(600)",
            "it filled its output volume with more than 1.0 MB, the limit; it was stopped",
        ),
        (
            "import os, time\nfor n in range(300): os.mkdir(f'/out/{n}')\ntime.sleep(600)",
            "it left more than 200 files in its output volume, the limit; it was stopped",
        ),
        (
            "import os, time\nos.chdir('/out')\nfor n in range(2000): os.mkdir('d'); os.chdir('d')\ntime.sleep(600)",
            "it is more than 16 folders deep; it was stopped",
        ),
    ],
    ids=["one file", "sparse", "several files", "many folders", "deep folders"],
)
@pytest.mark.usefixtures("few_files")
def test_a_step_that_leaves_too_much_is_stopped(bench: Bench, tmp_path: Path, text: str, said: str) -> None:
    limits = MEGABYTE if "wb" in text else Limits()
    assert said in run(bench, tmp_path / "store", text, limits)


def test_a_silent_step_runs_and_is_stopped_on_podman_too(
    builder: Builder, small: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    """podman answers a request for the log with the first line, not before."""
    needed("podman")
    with tempfile.TemporaryDirectory(prefix="podman-", dir="/tmp") as work, _podman(Path(work)) as host:
        folder = Path(work)
        with connect({"DOCKER_HOST": host}, folder=folder / "store") as engine:
            image = engine.load_image(
                archive(builder.store, small), small.reference, (small.id, small.manifest_digest)
            )
            monkeypatch.setattr(engine._client.api, "timeout", 2)
            text = "import time; time.sleep(4); open('/out/result', 'w').write('whole')"
            command = Command(
                name="silent", arguments=("/usr/bin/python3", "-c", text), inputs={}, outputs=("result",)
            )
            (folder / "one").mkdir()
            with engine.run(image, command, folder / "one") as finished:
                assert finished.outputs["result"].read() == b"whole"
            (folder / "two").mkdir()
            with (
                pytest.raises(StepTimeoutError),
                engine.run(image, replace(command, limits=Limits(seconds=1)), folder / "two"),
            ):
                pass
            assert engine._client.containers.list(all=True) == []
            engine.remove_image(image)

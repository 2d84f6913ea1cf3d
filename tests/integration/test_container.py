"""What a step's container is allowed, and how a step's end is told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import docker
import pytest
from checkout import ROOT

from bertir.container import Command, Limits
from bertir.engine import connect
from bertir.errors import EngineError, MissingOutputError, StepError, StepTimeoutError

if TYPE_CHECKING:
    from collections.abc import Callable

    from bertir.builder import Builder

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def probe(builder: Builder, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("probe")
    secret = folder / "secret"
    secret.write_text("readable", encoding="utf-8")
    command = Command(
        name="probe",
        arguments=("python3", "/step/probe.py"),
        inputs={"/step/probe.py": ROOT / "tests/support/steps/probe.py", "/in/secret": secret},
        outputs=("probe.json",),
    )
    with builder.engine.run(builder.load_image(), command, folder) as finished:
        value: dict[str, Any] = json.loads(finished.outputs["probe.json"].read())
    return value


def test_a_step_is_not_root_and_has_no_capability(probe: dict[str, Any]) -> None:
    assert probe["user"] == [65532, 65532]
    assert {int(mask, 16) for mask in probe["capabilities"].values()} == {0}
    assert probe["no_new_privileges"] == "1"
    assert probe["become_root"].startswith("refused")


def test_a_step_has_no_network_and_no_docker_socket(probe: dict[str, Any]) -> None:
    assert set(probe["interfaces"]) == {"lo"}
    assert probe["bridge"].startswith("refused")
    assert probe["docker_socket"] is False


def test_a_step_writes_to_its_output_volume_and_tmp_and_nowhere_else(probe: dict[str, Any]) -> None:
    assert probe["write_out"] == probe["write_tmp"] == "done"
    for place in ("write_root", "write_usr", "write_input"):
        assert probe[place].startswith("refused"), place
    assert probe["input"] == "readable"


def test_a_step_sees_the_environment_of_the_image_and_nothing_of_the_hosts(
    probe: dict[str, Any], builder: Builder
) -> None:
    assert set(probe["environment"]) == set(builder.intent.environment) | {"HOSTNAME"}


def test_a_failing_step_ends_in_its_own_words(run_program: Callable[..., Any]) -> None:
    program = "import sys; print('noise'); sys.exit('bertir-step: no such thing\\nbertir-step: try another')"
    with pytest.raises(StepError) as caught:
        run_program(program)
    assert str(caught.value) == "test-program: no such thing\n  try another"
    assert "log" in caught.value.advice


def test_a_crashing_step_shows_its_last_lines_and_names_its_log(run_program: Callable[..., Any]) -> None:
    with pytest.raises(StepError) as caught:
        run_program("print('before the fall', flush=True); raise SystemExit(3)")
    assert "exit status 3" in str(caught.value)
    assert "before the fall" in str(caught.value)
    assert Path(caught.value.advice.split()[-1]).read_text(encoding="utf-8") == "before the fall\n"


def test_a_step_that_leaves_out_a_file_is_an_error_and_is_not_recorded(
    run_program: Callable[..., Any], builder: Builder
) -> None:
    program = "open('/out/other', 'w').close()"
    for _ in range(2):  # a recorded failure would give an artifact the second time
        with pytest.raises(MissingOutputError, match=r"no wanted in its output volume \(found: other\)"):
            run_program(program, outputs=["wanted"])
    assert not list((builder.store.root / "tmp").iterdir())


def test_a_link_in_the_output_volume_is_not_followed(run_program: Callable[..., Any]) -> None:
    with pytest.raises(StepError, match="not a regular file"):
        run_program("import os; os.symlink('/etc/passwd', '/out/stolen')", outputs=["stolen"])


def test_a_step_over_its_time_is_stopped_and_leaves_no_container(builder: Builder, tmp_path: Path) -> None:
    command = Command(
        name="sleeper",
        arguments=("python3", "-c", "import time; time.sleep(600)"),
        inputs={},
        outputs=(),
        limits=Limits(seconds=2),
    )
    with (
        pytest.raises(StepTimeoutError, match="stopped after 2 s"),
        builder.engine.run(builder.load_image(), command, tmp_path),
    ):
        pass
    client = docker.from_env()
    try:
        assert client.containers.list(all=True, filters={"label": "bertir.step=sleeper"}) == []
    finally:
        client.close()


def test_a_step_over_its_memory_is_told_as_such(builder: Builder, tmp_path: Path) -> None:
    command = Command(
        name="glutton",
        arguments=("python3", "-c", "x = bytearray(1 << 30); x[::4096] = b'x' * len(x[::4096])"),
        inputs={},
        outputs=(),
        limits=Limits(memory_bytes=128 << 20),
    )
    with (
        pytest.raises(StepError, match="want of memory"),
        builder.engine.run(builder.load_image(), command, tmp_path),
    ):
        pass


def test_a_step_can_not_fork_without_end(builder: Builder, tmp_path: Path) -> None:
    program = (
        "import os, time\n"
        "count = 0\n"
        "try:\n"
        "    while count < 500:\n"
        "        if os.fork() == 0:\n"
        "            time.sleep(60); os._exit(0)\n"
        "        count += 1\n"
        "except BlockingIOError:\n"
        "    open('/out/count', 'w').write(str(count))\n"
    )
    command = Command(
        name="forker",
        arguments=("python3", "-c", program),
        inputs={},
        outputs=("count",),
        limits=Limits(pids=64),
    )
    with builder.engine.run(builder.load_image(), command, tmp_path) as finished:
        assert int(finished.outputs["count"].read()) < 64


@pytest.mark.parametrize("inside", ["", "tmp/of-a-rebuild/store"], ids=["store", "store of a rebuild"])
def test_the_container_of_a_killed_build_is_removed_by_the_next_one(
    builder: Builder, tmp_path: Path, inside: str
) -> None:
    program = (
        "import os, pathlib, sys\n"
        "from bertir.container import Command\n"
        "from bertir.engine import connect\n"
        "folder, image, scratch = pathlib.Path(sys.argv[1]), sys.argv[2], pathlib.Path(sys.argv[3])\n"
        "command = Command(name='orphan', arguments=('python3', '-c', 'import time; time.sleep(600)'),\n"
        "                  inputs={}, outputs=())\n"
        "with connect(os.environ, folder=folder) as engine, engine.run(image, command, scratch):\n"
        "    pass\n"
    )
    root = builder.store.root
    left: dict[str, str | list[str] | bool] = {"label": "bertir.step=orphan"}
    client = docker.from_env()
    try:
        with builder.store.temporary_folder() as scratch:
            child = subprocess.Popen(
                [sys.executable, "-c", program, str(root / inside), builder.load_image(), str(scratch)]
            )
            until = time.monotonic() + 60
            while not client.containers.list(filters=left) and time.monotonic() < until:
                time.sleep(0.1)
            child.send_signal(signal.SIGKILL)
            child.wait()
            assert (
                builder.engine.remove_abandoned(builder.store.is_abandoned) == 0
            )  # its folder is still held
            with connect(os.environ, folder=tmp_path) as another:  # the store of somebody else
                assert another.remove_abandoned(lambda _: True) == 0
            assert len(client.containers.list(filters=left)) == 1
        assert builder.engine.remove_abandoned(builder.store.is_abandoned) == 1
        assert client.containers.list(all=True, filters=left) == []
    finally:
        client.close()


def test_no_engine_is_one_message_with_what_to_do(tmp_path: Path) -> None:
    environment = {"DOCKER_HOST": f"unix://{tmp_path}/none.sock"}
    with (
        pytest.raises(EngineError, match="no container engine answers") as caught,
        connect(environment, folder=tmp_path),
    ):
        pass
    assert "make engine" in caught.value.advice
    assert caught.value.exit_status == 6

"""What a step's container is allowed, and how a step's end is told."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import docker
import pytest
from checkout import ROOT
from docker.types import Mount, Ulimit

from bertir.builder import Builder
from bertir.container import Command, Limits
from bertir.container_step import ContainerStep
from bertir.engine import connect
from bertir.errors import EngineError, LockError, MissingOutputError, StepError, StepTimeoutError
from bertir.progress import SILENT
from bertir.store import LEASE, Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from private_engine import PrivateEngine
    from small_build import Bench


pytestmark = pytest.mark.engine

PROBE = ROOT / "tests/support/steps/probe.py"


BRIDGE = "172.17.0.1"  # where Docker has its bridge, unless told otherwise; there may be none


@dataclass(frozen=True)
class Listening:
    """What a step could reach if it had the host's network: a port on every address, and a name."""

    port: int
    name: str

    @property
    def arguments(self) -> tuple[str, ...]:
        return ("python3", "/step/probe.py", BRIDGE, str(self.port), self.name)


@pytest.fixture(scope="module")
def listening() -> Iterator[Listening]:
    name = f"bertir-test-{os.getpid()}"
    with socket.socket() as tcp, socket.socket(socket.AF_UNIX) as unix:
        tcp.bind(("", 0))
        tcp.listen(16)
        unix.bind("\0" + name)
        unix.listen(16)
        yield Listening(tcp.getsockname()[1], name)


@pytest.fixture(scope="module")
def probe(builder: Builder, listening: Listening, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("probe")
    secret = folder / "secret"
    secret.write_text("readable", encoding="utf-8")
    command = Command(
        name="probe",
        arguments=listening.arguments,
        inputs={"/step/probe.py": PROBE, "/in/secret": secret},
        outputs=("probe.json",),
    )
    with builder.engine.run(builder.load_image(), command, folder) as finished:
        value: dict[str, Any] = json.loads(finished.outputs["probe.json"].read())
    return value


@pytest.fixture(scope="module")
def unhardened(
    builder: Builder, listening: Listening, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """The same attempts by root in a container that is hardly one. What is refused here would prove nothing."""
    folder = tmp_path_factory.mktemp("unhardened")
    (folder / "secret").write_text("readable", encoding="utf-8")
    client = docker.from_env()
    if any("rootless" in option for option in client.info()["SecurityOptions"]):
        pytest.skip("a rootless engine can't give what is refused")
    mounts = [
        Mount("/step/probe.py", str(PROBE), type="bind"),
        Mount("/in/secret", str(folder / "secret"), type="bind"),
        Mount("/out", str(folder), type="bind"),
    ]
    try:
        client.containers.run(
            builder.load_image(),
            list(listening.arguments),
            user="0",
            network_mode="host",
            pid_mode="host",
            cap_add=["SYS_ADMIN"],
            security_opt=["seccomp=unconfined", "apparmor=unconfined"],
            ulimits=[Ulimit(name="nofile", soft=8192, hard=8192), Ulimit(name="core", soft=4096, hard=4096)],
            mounts=mounts,
            tmpfs={"/tmp": "exec"},
            remove=True,
        )
    finally:
        client.close()
    value: dict[str, Any] = json.loads((folder / "probe.json").read_bytes())
    return value


# Refused to root in an open container too, so only what is said of the step's counts: there is no such file, or
# nobody writes there.
REFUSED_TO_ALL = {
    "/sys/probe",
    "/proc/probe",
    "memory",
    "kernel memory",
    "kernel log",
    "disk",
    "sysctl",  # `docker run --security-opt systempaths=unconfined` allows it; docker-py can't say that
    "sysrq",
    "sysfs",
}
ATTEMPTS = ("write", "network", "privilege", "host", "limits")


def test_each_attempt_would_succeed_without_the_restrictions(unhardened: dict[str, Any]) -> None:
    refused = {
        what: outcome
        for kind in ATTEMPTS
        for what, outcome in unhardened[kind].items()
        if outcome != "done" and what not in REFUSED_TO_ALL
    }
    refused.pop("bridge", None)  # a daemon may have none; the loopback stands for it
    assert refused == {}


@pytest.mark.parametrize("kind", ATTEMPTS)
def test_every_attempt_of_a_step_is_refused(probe: dict[str, Any], kind: str) -> None:
    assert probe[kind]
    done = {what: outcome for what, outcome in probe[kind].items() if not outcome.startswith("refused")}
    assert done == {}


def test_a_step_is_not_root_and_has_no_capability(probe: dict[str, Any]) -> None:
    assert probe["user"] == [65532, 65532]
    assert {int(mask, 16) for mask in probe["capabilities"].values()} == {0}
    assert probe["no_new_privileges"] == "1"
    assert probe["seccomp"] == "2"  # a filter


def test_a_step_has_no_network_and_no_docker_socket(probe: dict[str, Any]) -> None:
    assert set(probe["interfaces"]) == {"lo"}
    assert probe["docker_socket"] is False


def test_a_step_writes_to_its_output_volume_and_tmp(probe: dict[str, Any]) -> None:
    assert probe["allowed"] == {"out": "done", "tmp": "done"}
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
    assert not list((builder.store.root / "tmp").glob("work-*"))


def test_a_link_in_the_output_volume_is_not_followed(run_program: Callable[..., Any]) -> None:
    with pytest.raises(StepError, match="not a regular file"):
        run_program("import os; os.symlink('/etc/passwd', '/out/stolen')", outputs=["stolen"])


HOSTILE = (
    "import os, socket\n"
    "os.symlink('/etc/passwd', '/out/link'); os.mkfifo('/out/fifo'); open('/out/unasked', 'w').close()\n"
    "socket.socket(socket.AF_UNIX).bind('/out/socket');\n"
    "open('/out/closed', 'w').close(); os.chmod('/out/closed', 0); open('/out/setuid', 'w').close()\n"
    "os.chmod('/out/setuid', 0o6777); os.link('/out/unasked', '/out/hard')\n"
    "os.makedirs('/out/folder/deep/er'); open('/out/folder/deep/file', 'w').close()\n"
    "os.chmod('/out/folder/deep', 0); os.chmod('/out/folder', 0)\n"
    "try: os.link('/in/secret', '/out/stolen')\n"
    "except OSError: pass\n"
)


def as_nobody(action: Callable[[], str]) -> str:
    """Do something as a user who owns nothing, in a child; give what it says."""
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        try:
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            os.write(writing, action().encode())
        except BaseException as error:  # noqa: BLE001 - the parent reads it
            os.write(writing, repr(error).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as file:
        said = file.read()
    os.waitpid(child, 0)
    return said


OUTPUTS = ["link", "fifo", "socket", "folder", "hard", "stolen"]


@pytest.mark.parametrize("name", OUTPUTS)
def test_a_hostile_output_is_not_taken_and_nothing_of_it_stays(
    run_program: Callable[..., Any], builder: Builder, name: str
) -> None:
    with pytest.raises(StepError, match=f"{name}.*not taken|no {name} in") as raised:
        run_program(HOSTILE, outputs=[name], inputs={"/in/secret": b"secret"})
    assert raised.value.exit_status == 7
    assert not list((builder.store.root / "tmp").glob("work-*"))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")
def test_what_a_killed_build_left_is_removed_for_a_user_who_may_not_remove_it(
    bench: Bench,
) -> None:
    bench.daemon.socket.chmod(0o666)
    bench.daemon.folder.chmod(0o711)
    root = bench.daemon.folder / "killed"
    with bench.builder(root) as opened:
        opened.load_image()
    volume = root / "tmp" / "work-abcdefgh" / "out"
    (volume / "folder").mkdir(parents=True)
    (volume / "folder" / "file").touch()
    volume.chmod(0o777)
    for path in (root, *root.rglob("*")):
        if path.stat().st_nlink == 1 or path.is_dir():  # the image's layer is linked to the session's store
            os.chown(path, 65534, 65534)
    for path in (volume / "folder" / "file", volume / "folder"):
        os.chown(path, 65532, 65532)
        path.chmod(0o700)

    def run() -> str:
        with bench.builder(root):  # a build with nothing to do
            return str([path.name for path in (root / "tmp").iterdir() if not path.name.startswith(LEASE)])

    assert as_nobody(run) == "[]"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")
def test_what_a_step_leaves_is_removed_for_a_user_who_may_not_remove_it(
    small_daemon: tuple[PrivateEngine, str],
) -> None:
    daemon, image = small_daemon
    daemon.socket.chmod(0o666)
    daemon.folder.chmod(0o711)
    store = daemon.folder / "store"
    store.mkdir()
    os.chown(store, 65534, 65534)

    def run() -> str:
        command = Command(
            name="hostile", arguments=("/usr/bin/python3", "-c", HOSTILE), inputs={}, outputs=("closed",)
        )
        scratch = store / "scratch"
        scratch.mkdir(mode=0o700)
        with connect(daemon.environment, folder=store) as engine:
            try:
                with engine.run(image, command, scratch):
                    return "taken"
            except StepError as error:
                return f"{error}; left: {list((scratch / 'out').iterdir())}"

    # Which of the two is said depends on whether the watch sees the closed folder before the step has ended.
    assert re.fullmatch(
        r"hostile: its output (closed can't be read \(Permission denied\); it was not taken"
        r"|volume can't be looked through: Permission denied; it was stopped); left: \[\]",
        as_nobody(run),
    )
    assert daemon.containers() == []


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


def test_what_a_step_left_is_moved_into_the_store_by_root_and_copied_by_others(builder: Builder) -> None:
    program = (
        "import json, os\n"
        "with open('/out/told.json', 'w') as file:\n"
        "    json.dump(os.fstat(file.fileno()).st_ino, file)\n"
    )
    step = ContainerStep(
        name="teller", arguments=("/usr/bin/python3", "-c", program), inputs={}, outputs=("told.json",)
    )
    blob = builder.run(step).artifact["told.json"]
    path = builder.store.path(blob.digest)
    assert (path.stat().st_ino == json.loads(path.read_bytes())) == (os.geteuid() == 0)
    assert (path.stat().st_uid, path.stat().st_mode & 0o7777) == (os.geteuid(), 0o444)


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
                builder.containers.remove_abandoned(builder.store.is_abandoned) == 0
            )  # its folder is still held
            with connect(os.environ, folder=tmp_path) as another:  # the store of somebody else
                assert another.remove_abandoned(lambda _: True) == 0
            assert len(client.containers.list(filters=left)) == 1
        assert builder.containers.remove_abandoned(builder.store.is_abandoned) == 1
        assert client.containers.list(all=True, filters=left) == []
    finally:
        client.close()


def test_what_a_killed_build_left_does_not_keep_a_missing_lock_from_being_made_anew(
    builder: Builder, tmp_path: Path
) -> None:
    shutil.copytree(ROOT / "docker", tmp_path / "checkout" / "docker")
    (tmp_path / "checkout" / "docker" / "image.lock").unlink()
    store = Store(tmp_path / "store")
    left = store.root / "tmp" / "work-abcdefgh"
    left.mkdir()
    layout = replace(builder.layout, root=tmp_path / "checkout")
    fetcher = replace(builder.fetcher, store=store)
    with Builder(
        layout=layout, store=store, fetcher=fetcher, environment=builder.environment, progress=SILENT
    ) as opened:
        assert not left.exists()
        with pytest.raises(LockError):
            _ = opened.lock


def test_no_engine_is_one_message_with_what_to_do(tmp_path: Path) -> None:
    environment = {"DOCKER_HOST": f"unix://{tmp_path}/none.sock"}
    with (
        pytest.raises(EngineError, match="no container engine answers") as caught,
        connect(environment, folder=tmp_path),
    ):
        pass
    assert "make engine" in caught.value.advice
    assert caught.value.exit_status == 6

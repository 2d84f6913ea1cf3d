"""A Docker daemon of a test's own, to be killed, stopped and robbed of its socket: nobody else uses it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SECONDS = 30
# Only cgroup v2, as on machines of today; where the host has its controllers in v1, this one can limit nothing.
_ONLY_CGROUP_2 = (
    'mount --make-rprivate / && umount -R /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup && exec "$@"'
)


class PrivateEngine:
    """dockerd with folders, a socket and cgroups of its own."""

    def __init__(self, folder: Path, *, only_cgroup_2: bool = False) -> None:
        self.folder = folder
        self.socket = folder / "socket"
        self._only_cgroup_2 = only_cgroup_2
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def host(self) -> str:
        return f"unix://{self.socket}"

    @property
    def environment(self) -> dict[str, str]:
        return dict(os.environ) | {"DOCKER_HOST": self.host}

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "it was not started"
        return self._process

    def start(self) -> None:
        for left in (self.folder / "pid", self.folder / "exec/containerd/containerd.pid"):
            left.unlink(missing_ok=True)  # of a daemon that was killed
        command = ["dockerd", "--data-root", f"{self.folder}/data", "--exec-root", f"{self.folder}/exec"]
        command += ["--pidfile", f"{self.folder}/pid", "--host", self.host]
        command += ["--cgroup-parent", f"/{self.folder.name}"]
        command += ["--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false"]
        if self._only_cgroup_2:
            command = ["unshare", "--mount", "sh", "-c", _ONLY_CGROUP_2, "sh", *command]
        # A daemon that is to have no bridge removes docker0, which is the other daemon's: in a network of its own it has none.
        command = ["unshare", "--net", *command]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self._wait(self._answers)

    def _answers(self) -> bool:
        assert self.process.poll() is None, (self.folder / "log").read_text(errors="replace")[-2000:]
        return self.docker("version", check=False).returncode == 0

    def docker(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["docker", "--host", self.host, *arguments], check=check, capture_output=True, text=True
        )

    def containers(self) -> list[str]:
        return self.docker("ps", "--all", "--quiet", "--no-trunc").stdout.split()

    def kill(self) -> None:
        """End the daemon as a crash does; the containers go on."""
        self.process.kill()
        self.process.wait()

    @contextlib.contextmanager
    def hanging(self) -> Iterator[None]:
        """The daemon is there and answers nothing."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def clear(self) -> None:
        """End it and whatever is left of it: containers, their keepers, mounts, cgroups."""
        if self._process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()
        self._wait(self._nobody_left)
        with Path("/proc/self/mounts").open(encoding="utf-8") as file:
            mounted = [line.split()[1] for line in file]
        for place in reversed([place for place in mounted if place.startswith(f"{self.folder}/")]):
            subprocess.run(["umount", "--lazy", place], check=False)
        for group in (
            *Path("/sys/fs/cgroup").glob(f"*/{self.folder.name}/*"),
            *Path("/sys/fs/cgroup").glob(f"*/{self.folder.name}"),
        ):
            with contextlib.suppress(OSError):
                group.rmdir()

    def _nobody_left(self) -> bool:
        """Kill what has this folder in its command line (containerd, its shims) and the containers under those."""
        left = False
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError, IndexError, ValueError):
                state, parent = (process / "stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[:2]
                if state == "Z":
                    continue
                if any(self._is_ours(Path("/proc") / pid) for pid in (process.name, parent)):
                    os.kill(int(process.name), signal.SIGKILL)
                    left = True
        return not left

    def _is_ours(self, process: Path) -> bool:
        if int(process.name) in (0, 1, os.getpid()):
            return False
        with contextlib.suppress(OSError):
            return str(self.folder).encode() + b"/" in (process / "cmdline").read_bytes()
        return False

    @staticmethod
    def _wait(ready: object) -> None:
        until = time.monotonic() + SECONDS
        while not ready():  # type: ignore[operator]
            assert time.monotonic() < until, "it takes too long"
            time.sleep(0.05)


@contextlib.contextmanager
def private_engine(*, only_cgroup_2: bool = False) -> Iterator[PrivateEngine]:
    """Run a daemon as root; nothing of it is left afterwards. Not in pytest's folders: a socket's path is short."""
    folder = Path(tempfile.mkdtemp(prefix="dockerd-", dir="/tmp"))
    engine = PrivateEngine(folder, only_cgroup_2=only_cgroup_2)
    try:
        engine.start()
        yield engine
    finally:
        engine.clear()
        shutil.rmtree(folder)

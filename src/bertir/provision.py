"""Where no container engine answers: install and start one, if this is the machine and the user for it."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

from bertir.engine import chosen_engine, connect
from bertir.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bertir.engines import EngineFacts
    from bertir.progress import Progress

DAEMON_LOG = Path("/var/log/bertir-dockerd.log")
START_SECONDS = 60.0
# The kernel gives the first PID namespace this inode number (PROC_PID_INIT_INO, include/linux/proc_ns.h).
# Files such as /.dockerenv say less: virtual machines made from container images have them too.
_FIRST_PID_NAMESPACE = "pid:[4026531836]"
_CAP_SYS_ADMIN = 21


def provide_engine(environment: Mapping[str, str], progress: Progress, folder: Path) -> EngineFacts:
    """Give the facts of the engine that answers; if none does, install docker.io and start its daemon.

    Raises:
        EngineError: none answers, and this isn't a machine (root, Debian or Ubuntu, outside a container) to
            install one on; or it was tried and failed.
    """
    try:
        return _ask(environment, folder)
    except EngineError as error:
        if reason := why_not_here(environment):
            raise EngineError(f"{error}\n  not installing one: {reason}", advice=error.advice) from error
    install(progress)
    start(progress)
    return _wait(environment, folder)


def why_not_here(
    environment: Mapping[str, str],
    *,
    user: int | None = None,
    os_release: Path = Path("/etc/os-release"),
    process: Path = Path("/proc/self"),
) -> str:
    """Say why an engine isn't to be installed here, or nothing if it may."""
    if chosen := chosen_engine(environment):
        return f"{chosen} names the one that you want"
    if (os.geteuid() if user is None else user) != 0:
        return "you are not root"
    if not _is_debian(os_release):
        return "this is neither Debian nor Ubuntu"
    if _in_container(process):
        return "this is a container"
    return ""


def _is_debian(os_release: Path) -> bool:
    try:
        lines = os_release.read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    values = dict(line.split("=", 1) for line in lines if "=" in line)
    quoted = f"{values.get('ID', '')} {values.get('ID_LIKE', '')}"  # os-release(5): either kind of quote
    names = quoted.replace('"', "").replace("'", "").split()
    return "debian" in names or "ubuntu" in names


def _in_container(process: Path) -> bool:
    try:
        namespace = (process / "ns" / "pid").readlink().name
        status = (process / "status").read_text(encoding="ascii")
    except OSError:
        return True
    [mask] = [line.split()[1] for line in status.splitlines() if line.startswith("CapEff:")]
    may_mount = bool(int(mask, 16) >> _CAP_SYS_ADMIN & 1)
    return namespace != _FIRST_PID_NAMESPACE or not may_mount


def install(progress: Progress) -> None:
    """Install Debian's docker.io, unless a daemon is there already."""
    if Path("/usr/sbin/dockerd").exists() or Path("/usr/bin/dockerd").exists():
        return
    progress.say("engine", "no engine answers: installing docker.io with apt-get, as root")
    environment = dict(os.environ) | {"DEBIAN_FRONTEND": "noninteractive"}
    _run(["apt-get", "update", "-q"], environment)
    _run(["apt-get", "install", "-y", "-q", "--no-install-recommends", "docker.io"], environment)


def start(progress: Progress) -> None:
    """Start the daemon by systemd where that runs, else as a process of its own that outlives this one."""
    if Path("/run/systemd/system").is_dir():
        progress.say("engine", "starting docker by systemctl")
        _run(["systemctl", "start", "docker"], dict(os.environ))
        return
    forget_dead_daemons(Path("/run"), Path("/proc"))
    progress.say("engine", f"starting dockerd; it logs to {DAEMON_LOG}")
    with DAEMON_LOG.open("ab") as log:
        subprocess.Popen(
            ["dockerd"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/"
        )


def forget_dead_daemons(run: Path, processes: Path) -> None:
    """Remove PID files of daemons that were killed: dockerd won't start where one names any living process."""
    for name, program in (("docker.pid", "dockerd"), ("docker/containerd/containerd.pid", "containerd")):
        path = run / name
        try:
            pid = int(path.read_text(encoding="ascii"))
        except (OSError, ValueError):
            continue
        try:
            alive = (processes / str(pid) / "comm").read_text(encoding="utf-8").strip() == program
        except OSError:
            alive = False
        if not alive:
            path.unlink(missing_ok=True)


def _wait(environment: Mapping[str, str], folder: Path) -> EngineFacts:
    until = time.monotonic() + START_SECONDS
    while True:
        try:
            return _ask(environment, folder)
        except EngineError as error:
            if time.monotonic() > until:
                raise EngineError(
                    f"the daemon was started and does not answer within {START_SECONDS:.0f} s",
                    advice=f"See {DAEMON_LOG}, or `journalctl -u docker`.",
                ) from error
            time.sleep(0.5)


def _ask(environment: Mapping[str, str], folder: Path) -> EngineFacts:
    with connect(environment, folder=folder) as engine:
        return engine.facts()


def _run(command: Sequence[str], environment: Mapping[str, str]) -> None:
    try:
        result = subprocess.run(
            command,
            check=False,
            text=True,
            capture_output=True,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
        )
    except FileNotFoundError as error:
        raise EngineError(f"there is no {command[0]} on this machine") from error
    if result.returncode != 0:
        last = "\n  ".join((result.stderr or result.stdout).strip().splitlines()[-5:])
        raise EngineError(f"`{' '.join(command)}` failed with exit status {result.returncode}\n  {last}")

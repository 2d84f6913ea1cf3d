"""What this machine has, as far as `invoke check` can vary it: looked at once, before anything is rebuilt."""

from __future__ import annotations

import locale
import os
import shutil
import stat
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

# Where Debian's and Ubuntu's, Fedora's, and a local build's libfaketime lie.
_FAKETIME = (
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib64/faketime/libfaketime.so.1",
    "/usr/local/lib/faketime/libfaketime.so.1",
)
_SOCKET = "/var/run/docker.sock"


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What variations are made from.

    Args:
        missing: a need of a variation that this machine hasn't -> why, and how it would get it.
        faketime: libfaketime's path; empty without one.
        socket_group: the group that may use the engine's socket; None if there is no socket.
    """

    umask: int = 0o022
    locale: str = "C"
    cpus: tuple[int, ...] = (0, 1)
    faketime: str = ""
    socket_group: int | None = None
    missing: Mapping[str, str] = field(default_factory=dict)


def look_around(environment: Mapping[str, str], work: Path, other_id: int) -> Machine:
    """See what can be varied here.

    Args:
        environment: of the process.
        work: a folder under which rebuilds will lie.
        other_id: the user that the variation `user` would be.
    """
    root = os.geteuid() == 0
    cpus = tuple(sorted(os.sched_getaffinity(0)))
    faketime = next((path for path in _FAKETIME if Path(path).is_file()), "")
    group = _socket_group(environment)
    missing = {}
    if not root:
        missing["root"] = "only root can"
    if len(cpus) == 1:
        missing["cpus"] = "there is one processor only"
    if not faketime:
        missing["faketime"] = "there is no libfaketime (Debian: apt-get install faketime)"
    if shutil.which("disorderfs") is None:
        missing["disorderfs"] = "there is no disorderfs (Debian: apt-get install disorderfs)"
    elif not Path("/dev/fuse").exists():
        missing["disorderfs"] = "there is no /dev/fuse"
    for program in ("unshare", "setpriv", "taskset", "podman"):
        if shutil.which(program) is None:
            missing[program] = f"there is no {program} on PATH"
    if root and "unshare" not in missing and not _may_unshare():
        missing["unshare"] = "root may not here (as where it lacks CAP_SYS_ADMIN)"
    if root and "setpriv" not in missing and (why := _out_of_reach(work, other_id)):
        missing["other-user"] = why
    return Machine(
        umask=_umask(),
        locale=_locale(),
        cpus=cpus,
        faketime=faketime,
        socket_group=group,
        missing=missing,
    )


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _locale() -> str:
    try:
        return locale.setlocale(locale.LC_CTYPE, "")
    except locale.Error:
        return "C"


def _socket_group(environment: Mapping[str, str]) -> int | None:
    host = environment.get("DOCKER_HOST") or f"unix://{_SOCKET}"
    try:
        status = Path(host.removeprefix("unix://")).stat()
    except OSError:
        return None
    return status.st_gid if stat.S_ISSOCK(status.st_mode) else None


def _may_unshare() -> bool:
    """Whether root may have a host name and mounts of its own, which an ordinary container's root may not."""
    attempt = "echo elsewhere.example > /proc/sys/kernel/hostname && mount --bind / /mnt"
    tried = ["unshare", "--uts", "--mount", "sh", "-c", attempt]
    return subprocess.run(tried, capture_output=True, check=False).returncode == 0


def _out_of_reach(work: Path, other_id: int) -> str:
    """Why another user can't run this interpreter or work in `work`; empty if they can."""
    # setpriv itself keeps root's capabilities for the one command that it becomes: `env` is that one.
    other = ["setpriv", f"--reuid={other_id}", f"--regid={other_id}", "--clear-groups", "env"]
    if subprocess.run([*other, "ls", "-d", f"{work}/."], capture_output=True, check=False).returncode != 0:
        return f"another user can't enter {work}: set BERTIR_STORE to a folder that all can enter"
    # An interpreter whose own library is out of reach may take another one that it finds.
    found = subprocess.run(
        [*other, sys.executable, "-c", "import sys; print(sys.base_prefix)"],
        capture_output=True,
        check=False,
        text=True,
    ).stdout.strip()
    if found != sys.base_prefix:
        return f"another user can't run the Python of {sys.base_prefix}: make the virtualenv with one that all can run"
    return ""

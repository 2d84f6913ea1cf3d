"""Runs in the container: tries what it must not be able to do, and writes what happened as JSON to /out/probe.json.

Each attempt is `done`, or `refused: …` in the kernel's words. The tests run the same in a container without bertir's
restrictions, where most are `done`: so an attempt that couldn't succeed anywhere shows.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import socket
import struct
import subprocess
import sys
from pathlib import Path

LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWNET = 0x20000, 0x10000000, 0x40000000
NR_BPF, NR_KEYCTL = 321, 250  # of x86-64, as the image is


def attempt(action: object) -> str:
    try:
        action()  # type: ignore[operator]
    except OSError as error:
        return f"refused: {error.strerror or error}"
    return "done"


def checked(result: int) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def apart(action: object) -> str:
    """Attempt it in a child: it may change what the process is."""
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        try:
            os.write(writing, attempt(action).encode())
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading) as file:
        return file.read()


def connect(address: tuple[str, int]) -> None:
    with socket.create_connection(address, timeout=2):
        pass


def abstract(name: str) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect("\0" + name)


def route() -> None:
    """Ask for a way out, as to a name server; no packet leaves for the answer. (192.0.2.0/24 is for examples.)"""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("192.0.2.1", 53))


def made_socket(family: int, kind: int, protocol: int = 0) -> None:
    socket.socket(family, kind, protocol).close()


def set_user_id(folder: str) -> None:
    """Leave a set-user-ID copy of the interpreter and run it: whose is the process?"""
    path = Path(folder) / "setuid"
    path.write_bytes(Path(sys.executable).resolve().read_bytes())
    try:
        path.chmod(0o6755)
        subprocess.run([path, "-c", ""], check=True)
    finally:
        path.unlink()


def mount() -> None:
    checked(LIBC.mount(b"none", b"/tmp", b"tmpfs", 0, None))


def unshare(flags: int) -> None:
    checked(LIBC.unshare(flags))


def call(number: int, *arguments: int) -> None:
    checked(LIBC.syscall(number, *arguments))


def bpf() -> None:
    attributes = struct.pack("IIII", 2, 4, 4, 1) + bytes(112)  # an array of one number
    buffer = ctypes.create_string_buffer(attributes, 128)
    checked(LIBC.syscall(NR_BPF, 0, buffer, 128))


def read(path: str) -> None:
    with open(path, "rb") as file:  # noqa: PTH123
        file.read(1)


def write(path: str, text: str = "x") -> None:
    Path(path).write_text(text)


def rewrite(path: str) -> None:
    """Write what is there already: harmless where it is allowed."""
    path_ = Path(path)
    path_.write_text(path_.read_text())


def block_device() -> None:
    os.mknod("/tmp/disk", 0o60600, os.makedev(254, 0))


def many_files() -> None:
    for _ in range(5000):  # in a process of its own, and closed with it
        os.open("/dev/null", os.O_RDONLY)


def executable_memory_file(folder: str) -> None:
    path = Path(folder) / "run"
    path.write_text("#!/usr/bin/python3\n")
    path.chmod(0o755)
    try:
        subprocess.run([path], check=True)
    finally:
        path.unlink()


def dump_core() -> None:
    if resource.getrlimit(resource.RLIMIT_CORE) == (0, 0):
        raise OSError(27, "no core file may have a byte")


def host_processes() -> None:
    others = {path.name for path in Path("/proc").glob("[0-9]*")} - {"1", str(os.getpid())}
    if not others:
        raise OSError(2, "none but its own")


def main() -> None:
    status = dict(
        line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line
    )
    bridge, port, name = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    found = {
        "user": [os.getuid(), os.getgid()],
        "capabilities": {name: status[name].strip() for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb")},
        "no_new_privileges": status["NoNewPrivs"].strip(),
        "seccomp": status["Seccomp"].strip(),
        "interfaces": sorted(name for _, name in socket.if_nameindex()),
        "docker_socket": Path("/var/run/docker.sock").exists() or Path("/run/docker.sock").exists(),
        "environment": sorted(os.environ),
        "input": Path("/in/secret").read_text(),
        "allowed": {
            "out": attempt(lambda: write("/out/scratch")),
            "tmp": attempt(lambda: write("/tmp/scratch")),
        },
        "write": {
            path: attempt(lambda path=path: write(path))
            for path in (
                "/probe",
                "/usr/probe",
                "/etc/probe",
                "/in/secret",
                "/in/new",
                "/dev/probe",
                "/sys/probe",
                "/proc/probe",
            )
        },
        "network": {
            "loopback": attempt(lambda: connect(("127.0.0.1", port))),
            "bridge": attempt(lambda: connect((bridge, port))),
            "abstract": attempt(lambda: abstract(name)),
            "name server": attempt(route),
            "raw": attempt(lambda: made_socket(socket.AF_INET, socket.SOCK_RAW, 1)),
            "packet": attempt(lambda: made_socket(socket.AF_PACKET, socket.SOCK_RAW)),
        },
        "privilege": {
            "become root": apart(lambda: os.setuid(0)),
            "groups": apart(lambda: os.setgroups([0])),
            "set-user-ID in /tmp": attempt(lambda: set_user_id("/tmp")),
            "run in /tmp": attempt(lambda: executable_memory_file("/tmp")),
            "user namespace": apart(lambda: unshare(CLONE_NEWUSER)),
            "mount namespace": apart(lambda: unshare(CLONE_NEWNS)),
            "network namespace": apart(lambda: unshare(CLONE_NEWNET)),
            "mount": attempt(mount),
            "chroot": apart(lambda: os.chroot("/tmp")),
            "device": attempt(block_device),
            "host name": attempt(lambda: socket.sethostname("probe")),
            "bpf": attempt(bpf),
            "keys": attempt(lambda: call(NR_KEYCTL, 0, -3, 0)),
            "chown": attempt(lambda: os.chown("/out/scratch", 0, 0)),
        },
        "host": {
            "memory": attempt(lambda: read("/dev/mem")),
            "kernel memory": attempt(lambda: read("/proc/kcore")),
            "kernel log": attempt(lambda: read("/dev/kmsg")),
            "disk": attempt(lambda: read("/dev/vda")),
            "sysctl": attempt(lambda: rewrite("/proc/sys/kernel/core_pattern")),
            "sysrq": attempt(lambda: write("/proc/sysrq-trigger", "\n")),
            "sysfs": attempt(lambda: rewrite("/sys/kernel/mm/ksm/run")),
            "other processes": attempt(host_processes),
        },
        "limits": {
            "open files": apart(many_files),
            "core file": apart(dump_core),
        },
    }
    Path("/out/probe.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()

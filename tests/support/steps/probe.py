"""Runs in the container: tries what it must not be able to do, and writes what happened as JSON to /out/probe.json."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path


def attempt(action: object) -> str:
    try:
        action()  # type: ignore[operator]
    except OSError as error:
        return f"refused: {error.strerror}"
    return "done"


def connect(address: tuple[str, int]) -> None:
    with socket.create_connection(address, timeout=2):
        pass


def main() -> None:
    status = dict(
        line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line
    )
    found = {
        "user": [os.getuid(), os.getgid()],
        "capabilities": {name: status[name].strip() for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb")},
        "no_new_privileges": status["NoNewPrivs"].strip(),
        "interfaces": sorted(name for _, name in socket.if_nameindex()),
        "write_root": attempt(lambda: Path("/probe").write_text("x")),
        "write_usr": attempt(lambda: Path("/usr/probe").write_text("x")),
        "write_input": attempt(lambda: Path("/in/secret").write_text("x")),
        "write_out": attempt(lambda: Path("/out/scratch").write_text("x")),
        "write_tmp": attempt(lambda: Path("/tmp/scratch").write_text("x")),
        "become_root": attempt(lambda: os.setuid(0)),
        "bridge": attempt(lambda: connect(("172.17.0.1", 22))),
        "docker_socket": Path("/var/run/docker.sock").exists() or Path("/run/docker.sock").exists(),
        "environment": sorted(os.environ),
        "input": Path("/in/secret").read_text(),
    }
    Path("/out/probe.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()

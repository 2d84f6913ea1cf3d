"""On what, and with which versions, it was measured. Nothing of it names the machine or its user."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import optimum
from benchmarks.containers import engine_version
from bertir import __version__
from bertir.checkout import committed
from bertir.lock import load_image_lock

if TYPE_CHECKING:
    from collections.abc import Iterable

_MODEL = re.compile(r"^model name\s*:\s*(.+)$", re.MULTILINE)
_MEMORY = re.compile(r"^MemTotal:\s*(\d+) kB$", re.MULTILINE)
# What the contenders are made of.
IN_IMAGE = ("tensorflow-cpu", "openvino", "openvino-dev", "numpy", "protobuf")
OF_OPTIMUM = ("optimum", "optimum-intel", "openvino", "nncf", "torch", "transformers", "numpy")


def machine() -> dict[str, Any]:
    return {
        "processor": _first(_MODEL, Path("/proc/cpuinfo")),
        "cores": os.cpu_count(),
        "memory_bytes": int(_first(_MEMORY, Path("/proc/meminfo")) or 0) * 1024,
        "kernel": platform.release(),
        "system": _system(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def versions(root: Path) -> dict[str, Any]:
    lock = load_image_lock(root / "docker")
    return {
        "bertir": __version__,
        "commit": committed(root),
        "python": platform.python_version(),
        "engine": engine_version(),
        "image": str(lock.image_id),
        "in_image": _named(((pin.name, pin.version) for pin in lock.wheels), IN_IMAGE),
        "optimum": _named(((pin.name, pin.version) for pin in optimum.pins(root)), OF_OPTIMUM),
    }


def _named(pins: Iterable[tuple[str, str]], names: Iterable[str]) -> dict[str, str]:
    wanted = set(names)
    return {name: version for name, version in pins if name in wanted}


def _system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.system()


def _first(pattern: re.Pattern[str], path: Path) -> str:
    try:
        found = pattern.search(path.read_text(encoding="utf-8"))
    except OSError:
        return ""
    return found[1] if found else ""

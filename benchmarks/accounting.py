"""What the kernel says of processes and cgroups: files in, numbers out. None is what it doesn't say."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")
_KIB = re.compile(r"^(VmSize|VmRSS|VmHWM|Pss):\s+(\d+) kB$", re.MULTILINE)
_IO = re.compile(r"^(rchar|wchar|read_bytes|write_bytes): (\d+)$", re.MULTILINE)
_USAGE = re.compile(r"^usage_usec (\d+)$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """Bytes of one or more processes.

    Args:
        read: what read calls gave them, from the page cache or not; a mapped file isn't among it.
        written: what they gave to write calls.
        from_disk: what had to be fetched from a disk.
        to_disk: what they made to be written to one, sooner or later.
    """

    read: int = 0
    written: int = 0
    from_disk: int = 0
    to_disk: int = 0

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(
            read=self.read + other.read,
            written=self.written + other.written,
            from_disk=self.from_disk + other.from_disk,
            to_disk=self.to_disk + other.to_disk,
        )


def traffic_in(text: str) -> Traffic | None:
    """Read `/proc/PID/io`."""
    found = {name: int(number) for name, number in _IO.findall(text)}
    if not found:
        return None
    return Traffic(
        read=found.get("rchar", 0),
        written=found.get("wchar", 0),
        from_disk=found.get("read_bytes", 0),
        to_disk=found.get("write_bytes", 0),
    )


def sizes_in(text: str) -> dict[str, int]:
    """Read the bytes that `/proc/PID/status` or `smaps_rollup` says, by name. A process that has ended has none."""
    return {name: int(number) * 1024 for name, number in _KIB.findall(text)}


def cpu_seconds_in(text: str) -> float | None:
    """Read `cpuacct.usage` (cgroup v1) or `cpu.stat` (v2)."""
    if text.strip().isdecimal():
        return int(text) / 1e9
    usage = _USAGE.search(text)
    return int(usage[1]) / 1e6 if usage else None


def descendants(root: int, proc: Path = PROC) -> list[int]:
    """Give a process and all that it started, as far as they live."""
    found, waiting = [], [root]
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        for thread in _listed(proc / str(pid) / "task"):
            waiting += [int(child) for child in _text(thread / "children").split()]
    return found


def traffic_of(pids: list[int], proc: Path = PROC) -> Traffic | None:
    """Add up what some processes read and wrote, with their ended children that they waited for.

    None if the kernel tells it of none of them: it doesn't of another user's.
    """
    each = [traffic_in(_text(proc / str(pid) / "io")) for pid in pids]
    known = [one for one in each if one is not None]
    return sum(known, Traffic()) if known else None


def resident(pids: list[int], proc: Path = PROC, *, above: int = 0) -> tuple[int, int]:
    """Give the bytes that some processes have resident together, and the most that one of them has had.

    What they share counts once, as a child has all that its parent has until it writes to it. To find that out takes the
    kernel a while: it isn't asked where it makes no difference to whoever looks for more than `above`.
    """
    each = {pid: sizes_in(_text(proc / str(pid) / "status")) for pid in pids}
    most = max((sizes.get("VmHWM", 0) for sizes in each.values()), default=0)
    # A child of vfork, which is in its parent's memory until it begins a program, has its very sizes.
    apart = {(sizes.get("VmSize"), sizes.get("VmRSS", 0)): pid for pid, sizes in each.items() if sizes}
    together = sum(own for _, own in apart)
    if len(apart) == 1 or together <= above:
        return together, most
    return sum(_share(pid, own, proc) for (_, own), pid in apart.items()), most


def _share(pid: int, own: int, proc: Path) -> int:
    """Give a process's share of the memory that it has: all that is its own, and a part of what others have too."""
    share = sizes_in(_text(proc / str(pid) / "smaps_rollup")).get("Pss")
    if share is not None:
        return share
    # It has ended meanwhile, or is another user's.
    return own if "VmRSS" in sizes_in(_text(proc / str(pid) / "status")) else 0


@dataclass(frozen=True, kw_only=True)
class Group:
    """A container's cgroup: a file each, which is gone when the container is."""

    processes: Path
    cpu: Path

    def pids(self) -> list[int]:
        return [int(pid) for pid in _text(self.processes).split()]

    def cpu_seconds(self) -> float | None:
        return cpu_seconds_in(_text(self.cpu))


def group_of(container: str, cgroups: Path = CGROUPS) -> Group | None:
    """Find a container's cgroup, of v1 or v2, made by Docker itself or by systemd."""
    for name in (f"docker/{container}", f"system.slice/docker-{container}.scope"):
        for controller, file in (("cpuacct", "cpuacct.usage"), (".", "cpu.stat")):
            folder = cgroups / controller / name
            if (folder / file).exists():
                return Group(processes=folder / "cgroup.procs", cpu=folder / file)
    return None


def _text(path: Path) -> str:
    """Read a small file that may go at any moment, or be nobody's to read."""
    with contextlib.suppress(OSError):
        return path.read_text(encoding="utf-8", errors="replace")
    return ""


def _listed(folder: Path) -> list[Path]:
    with contextlib.suppress(OSError):
        return list(folder.iterdir())
    return []

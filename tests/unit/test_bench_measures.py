"""What the benchmarks measure with: the kernel's files, containers' events, a command that is run. No engine, no time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, NoReturn

import pytest

from benchmarks.accounting import (
    Traffic,
    cpu_seconds_in,
    descendants,
    group_of,
    resident,
    sizes_in,
    traffic_in,
    traffic_of,
)
from benchmarks.containers import Events
from benchmarks.measure import Cost, Ended, run, total
from benchmarks.runs import HOST, commands, steps_of
from benchmarks.statistics import Summary, summary

if TYPE_CHECKING:
    from pathlib import Path

IO = "rchar: 5\nwchar: 7\nsyscr: 1\nsyscw: 1\nread_bytes: 4096\nwrite_bytes: 8192\ncancelled_write_bytes: 0\n"
STATUS = "Name:\tpython\nVmPeak:\t  900 kB\nVmSize:\t  {size} kB\nVmHWM:\t  {most} kB\nVmRSS:\t  {now} kB\n"
CONTAINER = "c0ffee"
MEGABYTE = 1_000_000


def process(
    proc: Path, pid: int, *children: int, size: int = 0, now: int = 1, most: int = 1, share: int = 0
) -> None:
    """Write what the kernel says of a process, its sizes in KiB."""
    folder = proc / str(pid)
    (folder / "task" / str(pid)).mkdir(parents=True)
    (folder / "task" / str(pid) / "children").write_text("".join(f"{child} " for child in children))
    (folder / "status").write_text(STATUS.format(size=size or pid, most=most, now=now))
    (folder / "io").write_text(IO)
    if share:
        (folder / "smaps_rollup").write_text(f"0-1 ---p 0 00:00 0 [rollup]\nRss: {now} kB\nPss: {share} kB\n")


# statistics


def test_of_a_few_values_the_median_and_both_ends_are_told() -> None:
    assert summary([3.0, 1.0, 9.0]) == Summary(median=3.0, least=1.0, most=9.0, count=3)
    assert summary([4.0, 1.0]) == Summary(median=2.5, least=1.0, most=4.0, count=2)


def test_what_was_not_measured_is_no_zero() -> None:
    assert summary([None, 2.0, None]) == Summary(median=2.0, least=2.0, most=2.0, count=1)
    assert summary([None]) is None


# the kernel's files


def test_traffic_is_read_from_the_io_file_of_a_process() -> None:
    assert traffic_in(IO) == Traffic(read=5, written=7, from_disk=4096, to_disk=8192)
    assert traffic_in("") is None  # of another user's process


def test_traffic_of_some_processes_is_their_sum_as_far_as_it_is_known(tmp_path: Path) -> None:
    process(tmp_path, 1)
    process(tmp_path, 2)
    both = Traffic(read=10, written=14, from_disk=8192, to_disk=16384)
    assert traffic_of([1, 2, 3], tmp_path) == both
    assert traffic_of([3], tmp_path) is None


def test_cpu_time_is_read_in_both_versions_of_cgroups() -> None:
    assert cpu_seconds_in("2597212658\n") == pytest.approx(2.597212658)
    assert cpu_seconds_in("usage_usec 1500000\nuser_usec 1\n") == pytest.approx(1.5)
    assert cpu_seconds_in("") is None


@pytest.mark.parametrize(
    ("folder", "file"),
    [
        (f"cpuacct/docker/{CONTAINER}", "cpuacct.usage"),
        (f"docker/{CONTAINER}", "cpu.stat"),
        (f"system.slice/docker-{CONTAINER}.scope", "cpu.stat"),
    ],
)
def test_a_containers_cgroup_is_found_wherever_docker_makes_it(
    tmp_path: Path, folder: str, file: str
) -> None:
    (tmp_path / folder).mkdir(parents=True)
    (tmp_path / folder / file).write_text("usage_usec 2000000\n")
    (tmp_path / folder / "cgroup.procs").write_text("11\n12\n")
    group = group_of(CONTAINER, tmp_path)
    assert group is not None
    assert group.pids() == [11, 12]
    assert group.cpu_seconds() == pytest.approx(2.0)
    (tmp_path / folder / "cgroup.procs").unlink()  # the container has ended
    assert group.pids() == []
    assert group_of("another", tmp_path) is None


def test_all_that_a_process_started_is_found(tmp_path: Path) -> None:
    process(tmp_path, 1, 2, 3)
    process(tmp_path, 2, 4)
    process(tmp_path, 3)
    process(tmp_path, 4)
    process(tmp_path, 5)
    assert sorted(descendants(1, tmp_path)) == [1, 2, 3, 4]


def test_sizes_are_bytes() -> None:
    assert sizes_in(STATUS.format(size=3, most=2, now=1)) == {"VmSize": 3072, "VmHWM": 2048, "VmRSS": 1024}


def test_what_processes_share_counts_once(tmp_path: Path) -> None:
    process(tmp_path, 1, now=100, most=120, share=60)
    process(tmp_path, 2, now=90, most=90, share=50)
    assert resident([1, 2], tmp_path) == (110 * 1024, 120 * 1024)
    assert resident([1], tmp_path) == (100 * 1024, 120 * 1024)  # alone, it has all that it has
    assert resident([1, 2], tmp_path, above=200 * 1024) == (190 * 1024, 120 * 1024)  # too little to matter


def test_a_child_that_is_still_in_its_parents_memory_does_not_count(tmp_path: Path) -> None:
    process(tmp_path, 1, size=500, now=100, most=100, share=100)
    process(tmp_path, 2, size=500, now=100, most=100, share=100)
    assert resident([1, 2], tmp_path) == (100 * 1024, 100 * 1024)


def test_processes_that_have_ended_have_nothing(tmp_path: Path) -> None:
    assert resident([7, 8], tmp_path) == (0, 0)


# containers


def event(action: str, moment: int, **labels: str) -> str:
    actor = {"ID": CONTAINER, "Attributes": labels}
    return json.dumps({"Type": "container", "Action": action, "Actor": actor, "timeNano": moment})


def test_the_engines_events_tell_which_container_ran_for_whom_and_how_long() -> None:
    events = Events()
    events.heard(event("start", 1_000_000_000, **{"bertir.folder": "/store", "bertir.step": "freeze"}))
    [started] = events.of("/store")
    assert (started.step, started.seconds) == ("freeze", None)
    events.heard(event("die", 3_500_000_000))
    assert started.seconds == pytest.approx(2.5)
    assert events.of("/another") == []


def test_a_container_of_the_suites_own_is_known_by_its_label() -> None:
    events = Events()
    events.heard(event("start", 1, **{"bertir.bench": "token"}))
    assert [one.step for one in events.of("token")] == ["container"]


# a command


def measured(program: str, folder: Path) -> Ended:
    return run(
        [sys.executable, "-c", program], Events(), containers="none", folder=folder, environment=os.environ
    )


def test_a_command_is_measured_with_the_children_that_it_waits_for(tmp_path: Path) -> None:
    child = f"open('written', 'wb').write(bytes({5 * MEGABYTE}))"
    program = (
        "import subprocess, sys, time\n"
        f"subprocess.run([sys.executable, '-c', {child!r}], check=True)\n"
        f"held = b'x' * {90 * MEGABYTE}\n"
        "while time.process_time() < 0.2: pass\n"
        "print('out'); print('err', file=sys.stderr)\n"
    )
    ended = measured(program, tmp_path)
    assert (ended.status, ended.output, ended.errors) == (0, "out\n", "err\n")
    assert ended.total.traffic is not None
    assert 5 * MEGABYTE <= ended.total.traffic.written < 6 * MEGABYTE
    assert ended.total.peak is not None
    assert 90 * MEGABYTE < ended.total.peak < 300 * MEGABYTE
    assert ended.total.cpu_seconds is not None
    assert ended.total.cpu_seconds >= 0.2
    assert ended.containers == ()


def test_what_measures_has_no_part_in_the_memory_that_a_command_had(tmp_path: Path) -> None:
    """It did, once it had made the weights that it measures by: 1.4 GB of its own were told of every command."""
    held = bytearray(b"x") * (400 * MEGABYTE)
    peak = measured("import time; time.sleep(0.2)", tmp_path).total.peak
    assert len(held) == 400 * MEGABYTE
    assert peak is not None
    assert peak < 100 * MEGABYTE


def test_the_status_of_a_command_that_fails_is_told(tmp_path: Path) -> None:
    assert measured("raise SystemExit(3)", tmp_path).status == 3


def test_a_command_ends_with_whoever_measures_it(tmp_path: Path) -> None:
    def interrupted(_number: int, _frame: object) -> NoReturn:
        raise KeyboardInterrupt

    program = "import os, pathlib, time; pathlib.Path('pid').write_text(str(os.getpid())); time.sleep(100)"
    before = signal.signal(signal.SIGUSR1, interrupted)
    # Sent once the command runs.
    sender = subprocess.Popen(
        ["/bin/sh", "-c", f"until test -s pid; do sleep 0.02; done; kill -USR1 {os.getpid()}"], cwd=tmp_path
    )
    try:
        with pytest.raises(KeyboardInterrupt):
            measured(program, tmp_path)
    finally:
        sender.wait()
        signal.signal(signal.SIGUSR1, before)
    pid = int((tmp_path / "pid").read_text())
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.02)
    pytest.fail("it still runs")


# sums


def cost(seconds: float | None = None, cpu: float | None = None, peak: int | None = None) -> Cost:
    traffic = None if cpu is None else Traffic(read=1, written=2)
    return Cost(seconds=seconds, cpu_seconds=cpu, peak=peak, traffic=traffic)


def ended(host: Cost, *containers: tuple[str, Cost]) -> Ended:
    whole = total(host, [one for _, one in containers], 0)
    return Ended(status=0, output="", errors="", total=whole, host=host, containers=containers)


def test_a_command_and_its_containers_add_up_but_for_the_wall_clock() -> None:
    added = total(cost(10.0, 1.0, 50), [cost(6.0, 5.0, 200), cost(3.0, 2.0, 100)], peak=230)
    assert (added.seconds, added.cpu_seconds, added.peak) == (10.0, 8.0, 230)
    assert added.traffic == Traffic(read=3, written=6)


def test_a_sum_of_which_a_part_is_not_known_is_not_known() -> None:
    added = total(cost(10.0, 1.0, 50), [cost(6.0)], peak=0)
    assert (added.cpu_seconds, added.traffic, added.peak) == (None, None, 50)
    one_after_the_other = commands(("a", ended(cost(1.0, 1.0, 5))), ("b", ended(cost(2.0))))
    assert one_after_the_other.cost == Cost(seconds=3.0, cpu_seconds=None, peak=5, traffic=None)


def test_commands_one_after_the_other_take_the_most_memory_of_any_of_them() -> None:
    both = commands(("freeze", ended(cost(1.0, 2.0, 70))), ("mo", ended(cost(3.0, 4.0, 60))))
    assert both.cost == Cost(seconds=4.0, cpu_seconds=6.0, peak=70, traffic=Traffic(read=2, written=4))
    assert [step.name for step in both.steps] == ["freeze", "mo"]


def test_a_step_has_bertirs_seconds_and_its_containers_costs() -> None:
    host = cost(9.0, 1.0, 10)
    build = ended(host, ("freeze", cost(4.9, 3.0, 400)), ("another", cost(1.0, 1.0, 20)))
    source, freeze, another, itself = steps_of(build, [("source", 0.5), ("freeze", 4.5)])
    assert (source.name, source.cost) == ("source", cost(0.5))
    assert (freeze.cost.seconds, freeze.cost.cpu_seconds, freeze.cost.peak) == (4.5, 3.0, 400)
    assert another.name == "another"
    assert (itself.name, itself.cost.seconds, itself.cost.cpu_seconds) == (HOST, None, 1.0)

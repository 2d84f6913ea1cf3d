"""From runs to the page: rounds, results as JSON, tables, plots; and what the contenders are made of."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import pytest

from benchmarks.accounting import Traffic
from benchmarks.command import cache_folder
from benchmarks.contenders import Contender, contenders
from benchmarks.documented import INSERTION, inserted
from benchmarks.measure import Cost
from benchmarks.optimum import pins
from benchmarks.page import page, text
from benchmarks.patched import change_comment
from benchmarks.plot import write_plots
from benchmarks.results import Result, Results, dump_results, load_results
from benchmarks.runs import Run, Step
from benchmarks.suite import Group, measure_rounds
from benchmarks.workplace import FailedError, Ground, run_folder
from bertir.errors import ConfigurationError, SourceError
from bertir.progress import SILENT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def ran(seconds: float, *steps: str) -> Run:
    cost = Cost(seconds=seconds, cpu_seconds=1.5, peak=64_000_000, traffic=Traffic(read=3_000_000, written=1))
    return Run(cost=cost, steps=tuple(Step(name=name, cost=cost) for name in steps))


def some_results() -> Results:
    return Results(
        date="2026-11-25T03:00:00+00:00",
        seconds=600.0,
        quick=False,
        machine={
            "processor": "P",
            "cores": 2,
            "memory_bytes": 24_000_000_000,
            "kernel": "6.1",
            "system": "Debian",
            "load_before": 0.1,
        },
        versions={
            "bertir": "0.1.0",
            "commit": "0123456789abcdef",
            "python": "3.11",
            "engine": "20.10",
            "image": "sha256:x",
            "in_image": {"openvino": "2024.6.0"},
            "optimum": {"optimum": "2.3.0"},
        },
        groups={"tiny": "tiny: 2 layers", "cached": "cached targets", "matrix": "matrices"},
        results=(
            Result(
                group="tiny",
                name="cold",
                title="bertir, cold store",
                runs=[ran(3.0, "freeze"), ran(1.0, "freeze", "convert"), ran(9.0)],
            ),
            Result(group="tiny", name="mo", title="`mo` alone", failed="failed: no | such\nthing"),
            Result(group="cached", name="cached-1", title="1 cached", runs=[ran(0.5)]),
            Result(group="cached", name="cached-10", title="10 cached", runs=[ran(0.6)]),
            Result(group="cached", name="cached-100", title="100 cached", runs=[ran(10.4), ran(10.4)]),
            Result(group="matrix", name="matrix-1", title="one job", failed="skipped: no such task"),
        ),
    )


# rounds


def told(name: str, times: int, order: list[str], fails_at: int = 0, error: str = "no") -> Contender:
    def run(_: Ground) -> Run:
        order.append(name)
        if fails_at and order.count(name) == fails_at:
            raise FailedError(error)
        return ran(1.0)

    return Contender(name=name, title=name, run=run, times=times)


def rounds(*given: Contender, most: int | None = None) -> list[Result]:
    # None of them looks at where it runs.
    group = Group(name="tiny", title="tiny", ground=cast("Ground", None), contenders=given)
    return measure_rounds(group, SILENT, most=most)


def test_contenders_take_turns() -> None:
    order: list[str] = []
    first, second = rounds(told("a", 3, order), told("b", 2, order))
    assert order == ["a", "b", "a", "b", "a"]
    assert (len(first.runs), len(second.runs)) == (3, 2)


def test_there_are_no_more_rounds_than_are_asked_for() -> None:
    order: list[str] = []
    rounds(told("a", 3, order), told("b", 1, order), most=2)
    assert order == ["a", "b", "a"]


def test_who_fails_is_kept_with_the_reason_and_what_was_measured_before() -> None:
    order: list[str] = []
    failed, other = rounds(told("a", 3, order, fails_at=2, error="out of luck"), told("b", 3, order))
    assert (len(failed.runs), failed.failed) == (1, "failed: out of luck")
    assert (len(other.runs), other.failed) == (3, "")
    assert order == ["a", "b", "a", "b", "b"]


def test_a_contender_that_can_not_be_installed_says_why() -> None:
    [missing] = [one for one in contenders(None, "pip has no torch") if one.name == "optimum"]
    with pytest.raises(FailedError, match="pip has no torch"):
        missing.run(cast("Ground", None))


# results


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(dump_results(some_results()))
    assert load_results(tmp_path / "results.json") == some_results()


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"format": 1}', '{"format": 2, "results": []}'])
def test_what_is_no_result_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(ConfigurationError, match=r"results\.json"):
        load_results(tmp_path / "results.json")


def test_the_committed_results_can_be_read_and_made_the_committed_page(root: Path) -> None:
    listed = sorted((root / "benchmarks" / "results").glob("*.json"))
    assert listed
    written = (root / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert written in {page(load_results(path), path.name) for path in listed}


def test_results_of_another_format_are_refused(tmp_path: Path) -> None:
    value = json.loads(dump_results(some_results())) | {"format": 2}
    (tmp_path / "results.json").write_text(json.dumps(value))
    with pytest.raises(ConfigurationError, match="isn't of format 1"):
        load_results(tmp_path / "results.json")


# the page


def rows(markdown: str, first: str) -> list[list[str]]:
    lines = [line for line in markdown.splitlines() if line.startswith(f"| {first}")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_a_row_tells_median_least_and_most() -> None:
    [row, *_] = rows(page(some_results(), "r.json"), "bertir, cold store")
    assert row == ["bertir, cold store", "3.00 (1.00-9.00)", "1.50", "64", "3", "0", "3"]


def test_who_failed_is_in_the_table_with_the_reason_on_one_line() -> None:
    [row] = rows(page(some_results(), "r.json"), "`mo` alone")
    assert row[:2] == ["`mo` alone", "failed: no / such thing"]
    [row] = rows(page(some_results(), "r.json"), "one job")
    assert row[1] == "skipped: no such task"


def test_every_row_of_a_table_has_as_many_cells_as_its_head() -> None:
    width = 0
    for line in page(some_results(), "r.json").splitlines():
        if not line.startswith("|"):
            width = 0
            continue
        width = width or line.count("|")
        assert line.count("|") == width, line


def test_steps_are_summarised_over_the_runs_that_had_them() -> None:
    [freeze] = rows(page(some_results(), "r.json"), "bertir, cold store | freeze")
    assert freeze[2] == "2.00"
    [convert] = rows(page(some_results(), "r.json"), " | convert")
    assert convert[2] == "1.00"


def test_the_cost_of_one_more_cached_target_is_told() -> None:
    assert "One more costs 100 ms." in page(some_results(), "r.json")


def test_a_busy_machine_is_told_of() -> None:
    busy = replace(some_results(), machine={**some_results().machine, "load_before": 1.2})
    assert "**The machine was busy**" in page(busy, "r.json")
    assert "**The machine was busy**" not in page(some_results(), "r.json")


def test_a_quick_run_is_called_one() -> None:
    assert "**A quick run**" in page(replace(some_results(), quick=True), "r.json")
    assert "**A quick run**" not in page(some_results(), "r.json")


def test_a_terminal_gets_the_same_tables() -> None:
    assert rows(text(some_results()), "bertir, cold store")[0][1] == "3.00 (1.00-9.00)"


# the plots


def test_plots_of_the_same_results_are_the_same_bytes_and_small(tmp_path: Path) -> None:
    once, again = tmp_path / "once", tmp_path / "again"
    for folder in (once, again):
        folder.mkdir()
        write_plots(some_results(), folder)
    names = sorted(path.name for path in once.iterdir())
    assert names == [
        f"benchmarks-{what}.{suffix}" for what in ("cached", "seconds") for suffix in ("png", "svg")
    ]
    for name in names:
        assert (once / name).read_bytes() == (again / name).read_bytes()
        assert (once / name).stat().st_size < 200_000
    assert "bertir, cold store" in (once / "benchmarks-seconds.svg").read_text()
    assert "failed" in (once / "benchmarks-seconds.svg").read_text()


# what the contenders are made of


def test_the_documented_insertion_goes_before_the_variables_are_listed() -> None:
    place = "    tvars = tf.trainable_variables()\n    initialized_variable_names = {}\n"
    assert inserted(f"a\n{place}b\n") == f"a\n{INSERTION}{place}b\n"
    for other in ("", place * 2):
        with pytest.raises(SourceError, match="isn't the one"):
            inserted(other)


def test_a_changed_comment_changes_one_line_of_one_patch(root: Path, tmp_path: Path) -> None:
    patches = tmp_path / "patches"
    shutil.copytree(root / "patches", patches)
    name = change_comment(patches, "other words")
    before = (root / "patches" / name).read_text().splitlines()
    after = (patches / name).read_text().splitlines()
    [changed] = [new for old, new in zip(before, after, strict=True) if old != new]
    assert changed.strip("+ ") == "# other words"
    others = [path.name for path in patches.glob("*.patch") if path.name != name]
    assert all((patches / other).read_bytes() == (root / "patches" / other).read_bytes() for other in others)


def test_without_a_comment_to_change_it_says_so(tmp_path: Path) -> None:
    (tmp_path / "0001-a.patch").write_text("+code = 1  # not a line of its own\n-    # taken away\n")
    with pytest.raises(SourceError, match="no patch"):
        change_comment(tmp_path, "x")


def test_what_is_compared_with_is_pinned_without_cuda(root: Path) -> None:
    names = {pin.name: pin.version for pin in pins(root)}
    assert names["torch"].endswith("+cpu")
    assert not [name for name in names if name.startswith("nvidia") or name == "torchvision"]
    assert {"optimum-intel", "openvino", "transformers"} <= names.keys()


# where it works


def test_two_runs_do_not_measure_each_other_and_leave_nothing(tmp_path: Path) -> None:
    (tmp_path / "run-killed").mkdir()
    with run_folder(tmp_path) as folder:
        assert not (tmp_path / "run-killed").exists()
        (folder / "file").touch()
        with pytest.raises(ConfigurationError, match="another benchmark runs"), run_folder(tmp_path):
            pytest.fail("it began")
    assert [path.name for path in tmp_path.iterdir() if path.name != "lock"] == []


def test_the_cache_is_the_users() -> None:
    assert str(cache_folder({"HOME": "/home/u"})) == "/home/u/.cache/bertir-bench"
    assert str(cache_folder({"HOME": "/home/u", "XDG_CACHE_HOME": "/cache"})) == "/cache/bertir-bench"
    with pytest.raises(ConfigurationError, match="HOME is not set"):
        cache_folder({})


# the task


@pytest.fixture
def bench(checkout: Path, root: Path, tmp_path: Path) -> Callable[..., tuple[int, str, str]]:
    """The task in a copy of the checkout, with an engine that doesn't answer."""
    import os
    import subprocess

    shutil.copytree(root / "benchmarks", checkout / "benchmarks", dirs_exist_ok=True)
    shutil.copytree(root / "tests" / "support", checkout / "tests" / "support")
    (checkout / "docs").mkdir()
    environment = {name: os.environ[name] for name in ("PATH",)} | {
        "HOME": str(tmp_path),
        "DOCKER_HOST": "unix:///nonexistent/docker.sock",
    }

    def run(*arguments: str) -> tuple[int, str, str]:
        command = [sys.executable, "-m", "invoke", "bench", *arguments]
        done = subprocess.run(
            command, cwd=checkout, env=environment, check=False, capture_output=True, text=True
        )
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout, done.stderr

    return run


def test_without_an_engine_nothing_is_measured(
    bench: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    status, _, said = bench("--quick")
    assert status == 6
    assert said.startswith("error: ")
    assert "docker" in said
    assert not (tmp_path / ".cache").exists()


def test_a_page_can_be_written_of_results_that_are_there(
    bench: Callable[..., tuple[int, str, str]], checkout: Path
) -> None:
    path = checkout / "benchmarks" / "results" / "r.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(dump_results(some_results()))
    status, out, _ = bench("--render", str(path), "--format", "json")
    assert status == 0
    assert json.loads(out)["date"] == some_results().date
    assert (checkout / "docs" / "benchmarks.md").read_text(encoding="utf-8") == page(some_results(), "r.json")
    assert (checkout / "docs" / "benchmarks-seconds.svg").exists()


@pytest.mark.parametrize("rounds", ["0", "-1", "many"])
def test_rounds_are_a_number_of_them(bench: Callable[..., tuple[int, str, str]], rounds: str) -> None:
    status, _, said = bench("--rounds", rounds)
    assert status == 2
    assert said.startswith("error: --rounds must be ")


def test_rendering_measures_nothing(bench: Callable[..., tuple[int, str, str]]) -> None:
    for option in ("--quick", "--rounds=1", "--cache=c"):
        status, _, said = bench("--render", "x.json", option)
        assert (status, said) == (
            2,
            "error: --render measures nothing, and takes no --quick, --rounds or --cache\n",
        )
    status, _, said = bench("--render", "x.json")
    assert (status, said) == (2, "error: can't read x.json: No such file or directory\n")

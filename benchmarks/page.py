"""docs/benchmarks.md: the tables of a run, and how it was measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.many import NUMBERS
from benchmarks.suite import CACHED, MATRIX

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from benchmarks.results import Result, Results
    from benchmarks.statistics import Summary

# The load for each core, of the minute before, from which a machine isn't taken for idle.
BUSY = 0.5
_HEADER = ("", "seconds", "CPU seconds", "peak MB", "MB read", "MB written", "runs")
_METHOD = """\
## How it was measured

- **Interleaved**: every contender of a group once a round, in the order of the table's first column as it is run
  (documented, cold, `mo`, …), so that whatever else the machine did fell on all of them. The figure is the median, with
  the least and the most in brackets. Some are run more often than others; of the legacy frontend there is one run, as it takes so long.
- **Seconds** are of wall time, from the start of the command to its end: for bertir `invoke build-ir` with the start of
  Python, for what runs in the image `docker run` with the start of the container. The documented commands and `mo` use bertir's image.
- **CPU seconds** and **peak MB** (of 1,000,000 bytes, resident at once in all its processes) are of the command and of its containers. The
  kernel says them exactly of the command; a container's processes and its cgroup are looked at every 50 ms, and what it does after the last
  look isn't in the figures. The engine's own work isn't either.
- **MB read** and **MB written** are what read and write calls moved, mostly from and to the **page cache, which was warm for all**: it
  was never dropped, and what a contender reads has just been written. A file that is mapped, as safetensors', isn't among it.
- **Cold store**: a store that holds the BERT source as it was fetched, and no record or output of any step; the image is loaded in the engine. The
  checkpoint is copied into the store, which is among the figures.
- **Nothing to do**: the same command right after. **Precision changed**: the same with `--precision fp32` after fp16. **A patch changed**:
  a comment in a patch became another and `invoke lock --only source` was run, which isn't in the figures; the frozen graph comes out the same,
  so that what follows it is in the store.
- The **documented commands** run the pinned commit with the documentation's deletion and insertion (patch 0001; the insertion written from
  the documentation's description) and with patches 0003 to 0009, without which it doesn't start. It reads bertir's two rows
  instead of MRPC's 408.
- **optimum-cli** runs in a virtualenv of its own (`requirements/optimum.lock`; torch in its CPU build, without torchvision), with `--task
  feature-extraction --weight-format fp16`, offline, and with OpenVINO's telemetry switched off.
- **Cached targets** are copies of one checkpoint under other names, in one `invoke build-matrix`.
- **Step by step**, bertir's steps are by the containers that were started for them; those that share one have one row. One that was started ahead of its inputs, and then not needed
  as its output was in the store (after a change of a patch), has seconds there too: those that it waited.
- **The floor** reads and hashes the checkpoint, and writes and hashes as many bytes as the IR has, in one Python process.

## What isn't comparable

- bertir also **verifies**: TensorFlow and the IR compute the same sentences in several batches, twice where weights are fp16. Nobody
  else does. It also syncs what it stores to the disk, hashes it, and copies the checkpoint into its store.
- optimum-cli reads Hugging Face's format with PyTorch and another version of OpenVINO, leaves batch and length free, and gives the last
  layer's output; the rest gives the pooled output of 128 tokens. It doesn't check what comes out unless it is asked to.
- `mo` and `convert_model` alone begin with the frozen graph; what it takes to get there is in the other rows.
- The weights are random; no step's time depends on their values. One machine, one day: trust ratios more than seconds.
"""


def page(results: Results, name: str) -> str:
    """Give the whole page. `name` is of the results' file."""
    parts = [
        "# Benchmarks",
        "",
        f"Written by `invoke bench` from [{name}](../benchmarks/results/{name}); don't edit. Run by hand: no test is timed.",
        "",
    ]
    if results.quick:
        parts += [
            "**A quick run**: one repetition of each, of the tiny shape alone. No figure of it means much.",
            "",
        ]
    load = results.machine["load_before"]
    if load > BUSY * results.machine["cores"]:
        parts += [
            f"**The machine was busy** when this run began (load {load}): seconds are too many, and few are comparable.",
            "",
        ]
    parts += [_where(results), "", "![Seconds of each contender](benchmarks-seconds.svg)", ""]
    for group, title in results.groups.items():
        listed = results.of(group)
        if group in (CACHED, MATRIX):
            continue
        parts += [f"## {title}", "", *_table(listed), ""]
        stepped = [result for result in listed if any(run.steps for run in result.runs)]
        if stepped:
            parts += [
                "Of these, step by step (medians; steps may run beside each other):",
                "",
                *_steps(stepped),
                "",
            ]
    parts += _many(results)
    return "\n".join(parts) + "\n" + _METHOD


def text(results: Results) -> str:
    """Give the tables alone, for a terminal."""
    parts = []
    for group, title in results.groups.items():
        parts += [title, "", *_table(results.of(group)), ""]
    return "\n".join(parts).rstrip()


def _many(results: Results) -> list[str]:
    parts = []
    if cached := results.of(CACHED):
        parts += ["## Many targets", "", f"1, 10 and 100 {results.groups[CACHED]}:", "", *_table(cached), ""]
        if each := _each(cached):
            parts += [f"{each} The plot shows whether it stays linear:", ""]
        parts += ["![Seconds by the number of cached targets](benchmarks-cached.svg)", ""]
    if matrix := results.of(MATRIX):
        title = results.groups[MATRIX]
        parts += [f"{title[0].upper()}{title[1:]}, by one job and by two:", "", *_table(matrix), ""]
    return parts


def _each(cached: Sequence[Result]) -> str:
    """Say what one more target costs, from the fewest to the most of them."""
    known = {result.name: result.seconds() for result in cached}
    least, most = (known.get(f"cached-{number}") for number in (NUMBERS[0], NUMBERS[-1]))
    if not least or not most:
        return ""
    seconds = (most.median - least.median) / (NUMBERS[-1] - NUMBERS[0])
    return f"One more costs {1000 * seconds:.0f} ms."


def _where(results: Results) -> str:
    machine, versions = results.machine, results.versions
    hardware = f"{machine['processor']}, {machine['cores']} cores, {machine['memory_bytes'] / 1e9:.0f} GB"
    commit = f"commit {versions['commit'][:12]}" if versions["commit"] else "uncommitted changes"
    image = ", ".join(f"{name} {version}" for name, version in versions["in_image"].items())
    optimum = ", ".join(f"{name} {version}" for name, version in versions["optimum"].items())
    return "\n".join(
        [
            f"- {results.date[:10]}, in {results.seconds / 60:.0f} minutes, bertir {versions['bertir']} ({commit})",
            f"- {hardware}; {machine['system']}, Linux {machine['kernel']}; load before: {machine['load_before']}",
            f"- Docker {versions['engine']}, Python {versions['python']}; in the image {image}",
            f"- beside it: {optimum}",
        ]
    )


def _table(listed: Iterable[Result]) -> list[str]:
    return _lines([_HEADER, *(_row(result) for result in listed)])


def _row(result: Result) -> tuple[str, ...]:
    if not result.runs:
        return (result.title, _plain(result.failed), *[""] * (len(_HEADER) - 2))
    return (
        result.title if not result.failed else f"{result.title} (then {_plain(result.failed)})",
        _spread(result.seconds()),
        _number(result.cpu_seconds()),
        *(_megabytes(found) for found in (result.peak(), result.read(), result.written())),
        str(len(result.runs)),
    )


def _steps(listed: Iterable[Result]) -> list[str]:
    rows: list[tuple[str, ...]] = [("", "step", *_HEADER[1:6])]
    for result in listed:
        for number, step in enumerate(result.of_steps()):
            rows.append(
                (
                    "" if number else result.title,
                    step.title,
                    _number(step.seconds()),
                    _number(step.cpu_seconds()),
                    *(_megabytes(found) for found in (step.peak(), step.read(), step.written())),
                )
            )
    return _lines(rows)


def _lines(rows: Sequence[Sequence[str]]) -> list[str]:
    head, *body = rows
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *body)]


def _spread(found: Summary | None) -> str:
    if found is None:
        return ""
    if found.count == 1:
        return f"{found.median:.2f}"
    return f"{found.median:.2f} ({found.least:.2f}-{found.most:.2f})"


def _number(found: Summary | None) -> str:
    return "" if found is None else f"{found.median:.2f}"


def _megabytes(found: Summary | None) -> str:
    return "" if found is None else f"{found.median / 1e6:.0f}"


def _plain(text: str) -> str:
    """Keep a message within a table's cell."""
    return " ".join(text.split()).replace("|", "/")

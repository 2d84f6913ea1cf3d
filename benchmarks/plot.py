"""The plots of a run, as SVG and PNG; the same bytes for the same results. All use of matplotlib is here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib as mpl

from benchmarks.many import NUMBERS
from benchmarks.suite import CACHED, MATRIX

mpl.use("agg")  # no display
from matplotlib import pyplot as plt

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.figure import Figure

    from benchmarks.results import Result, Results

SECONDS, CACHED_PLOT = "benchmarks-seconds", "benchmarks-cached"
# Text as text, which is small and found by a search; no random ids.
_STYLE: dict[Any, Any] = {
    "svg.hashsalt": "bertir",
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.axisbelow": True,
}
_OURS, _OTHERS = "#2a6f97", "#adb5bd"


def write_plots(results: Results, folder: Path) -> list[Path]:
    """Write the plots into a folder, and give their files."""
    written = []
    with plt.rc_context(_STYLE):
        for name, figure in ((SECONDS, _seconds(results)), (CACHED_PLOT, _cached(results))):
            # matplotlib would write the date and its own version.
            for suffix, metadata in (("svg", {"Date": None, "Creator": None}), ("png", {"Software": None})):
                path = folder / f"{name}.{suffix}"
                figure.savefig(path, metadata=metadata, dpi=100)
                written.append(path)
            plt.close(figure)
    return written


def _seconds(results: Results) -> Figure:
    """A panel for each shape: bars of medians, a dot for each run."""
    groups = [group for group in results.groups if group not in (CACHED, MATRIX)]
    rows = max((len(results.of(group)) for group in groups), default=1)
    figure, panels = plt.subplots(
        len(groups), 1, figsize=(8, (0.6 + 0.26 * rows) * len(groups)), squeeze=False, layout="constrained"
    )
    for panel, group in zip(panels[:, 0], groups, strict=True):
        listed = results.of(group)[::-1]
        for row, result in enumerate(listed):
            found = result.seconds()
            if found is None:
                panel.text(0, row, " failed", va="center")
                continue
            colour = _OURS if result.title.startswith("bertir") else _OTHERS
            panel.barh(row, found.median, color=colour)
            measured = _each(result)
            panel.plot(measured, [row] * len(measured), ".", color="black", markersize=3)
            panel.text(found.most, row, f"  {found.median:.1f}", va="center")
        panel.set_yticks(range(len(listed)), [result.title.replace("`", "") for result in listed])
        panel.set_title(results.groups[group].partition(":")[0], loc="left")
        panel.margins(x=0.12)
        panel.grid(axis="x", alpha=0.4)
        panel.spines[["top", "right"]].set_visible(False)
    panels[-1, 0].set_xlabel("seconds: medians, and each run as a dot")
    return figure


def _each(result: Result) -> list[float]:
    return [run.cost.seconds for run in result.runs if run.cost.seconds is not None]


def _cached(results: Results) -> Figure:
    """Seconds by the number of cached targets."""
    figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
    known = {result.name: result for result in results.of(CACHED)}
    points = []
    for number in NUMBERS:
        result = known.get(f"cached-{number}")
        for seconds in _each(result) if result else ():
            axes.plot([number], [seconds], ".", color="black", markersize=4)
        if result and (found := result.seconds()):
            points.append((number, found.median))
    axes.plot(*zip(*points, strict=True) if points else ([], []), color=_OURS)
    axes.set_xlabel("cached targets in one process")
    axes.set_ylabel("seconds")
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    axes.grid(alpha=0.4)
    axes.spines[["top", "right"]].set_visible(False)
    return figure

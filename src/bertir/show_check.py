"""What `invoke check` prints: a row a rebuild, what was not done and why, and two figures that are not one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bertir.compare import PUBLISHED, VOLATILE
from bertir.show import error_facts, table

if TYPE_CHECKING:
    from bertir.checked import Checked, Result


def check_facts(checked: Checked) -> dict[str, Any]:
    error = checked.error()
    golden = checked.golden
    return {
        "model": checked.model,
        "request": checked.request.facts() | {"model": checked.model},
        "baseline": {
            "seconds": checked.baseline.seconds,
            "stages": {
                stage.name: {name: str(digest) for name, digest in stage.files.items()}
                for stage in checked.baseline.stages
            },
        },
        "rebuilds": [_result_facts(result) for result in checked.results],
        "rebuilt": len(checked.results),
        "equal": sum(result.equal for result in checked.results),
        "not_done": dict(checked.not_done),
        "published": {
            "file": golden.file,
            "compared": golden.compared,
            "equal": golden.compared - len(golden.different),
        }
        if golden
        else None,
        "not_compared": {name: list(paths) for name, paths in VOLATILE.items()},
    } | (error_facts(error) if error else {})


def _result_facts(result: Result) -> dict[str, Any]:
    return {
        "varied": list(result.varied),
        "rebuilt": list(result.rebuilt),
        "from_store": list(result.taken),
        "equal": result.equal,
        "difference": result.difference.to_json() if result.difference else None,
        "diffoscope": result.diffoscope or None,
        "failed": str(result.failed) if result.failed else None,
        "without_effect": list(result.without_effect),
        "measured_equal": result.measured_equal,
        "seconds": result.seconds,
    }


def check_text(checked: Checked) -> str:
    baseline = checked.baseline
    ran = [stage.name for stage in baseline.stages if stage.name != PUBLISHED]
    rows = [
        ("varied", "rebuilt", "result", "seconds"),
        ("(baseline)", ", ".join(ran), "", f"{baseline.seconds:.1f}"),
    ]
    rows += [_row(result) for result in checked.results]
    equal = sum(result.equal for result in checked.results)
    golden = checked.golden
    published = (
        f"{golden.compared - len(golden.different)} of {golden.compared} digests equal ({golden.file})"
        if golden
        else "this checkout publishes no digests of this build"
    )
    summary = [
        ("model", f"{checked.model}, {checked.request.variant}"),
        ("rebuilt here", f"{equal} of {len(checked.results)} equal"),
        ("as published", published),
    ]
    summary += [("not done", f"{name}: {why}") for name, why in checked.not_done.items()]
    return f"{table(rows)}\n\n{table(summary)}"


def _row(result: Result) -> tuple[str, str, str, str]:
    stages = ", ".join(result.rebuilt)
    if result.taken:
        stages += f"{'; ' if stages else ''}from the store: {', '.join(result.taken)}"
    # What failed is told in full by the error at the end; a row has one line.
    said = "failed" if result.failed else result.verdict
    return " + ".join(result.varied) or "(nothing)", stages, said, f"{result.seconds:.1f}"

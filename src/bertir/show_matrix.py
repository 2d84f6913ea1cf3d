"""What `invoke build-matrix` prints: a row a build, in the order of the lists, and every error in full below."""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING, Any

from bertir.redact import line, without_logins
from bertir.room import megabytes
from bertir.show import table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bertir.ended import Ended, Matrix

_HEADER = ("model", "recipe", "precision", "head", "shape", "result", "seconds", "parity", "folder")


def matrix_facts(matrix: Matrix) -> dict[str, Any]:
    error = matrix.error()
    return {
        "targets": [_ended_facts(ended) for ended in matrix.ended],
        "results": dict(collections.Counter(ended.result for ended in matrix.ended)),
        "jobs": matrix.jobs,
        "memory": matrix.memory,
        "seconds": round(matrix.seconds, 3),
        "exit_status": error.exit_status if error else 0,
    }


def _ended_facts(ended: Ended) -> dict[str, Any]:
    target = ended.target
    return {
        "name": target.name,
        "checkpoint": str(target.checkpoint.path) if target.checkpoint else None,
        "request": target.request.facts() | {"model": target.who},
        "result": ended.result,
        "seconds": round(ended.seconds, 3),
        "build": ended.facts,
        "error": ended.error,
    }


def matrix_text(facts: Mapping[str, Any]) -> str:
    targets = facts["targets"]
    results = ", ".join(f"{number} {result}" for result, number in sorted(facts["results"].items()))
    memory = f", in {megabytes(facts['memory'])} of memory" if facts["memory"] is not None else ""
    parts = [
        table([_HEADER, *map(_row, targets)]),
        table(
            [
                ("builds", f"{len(targets)}: {results}"),
                ("seconds", f"{facts['seconds']:.1f}, {facts['jobs']} at once at most{memory}"),
            ]
        ),
    ]
    parts += [_error(target) for target in targets if target["error"]]
    return "\n\n".join(parts)


def _row(target: Mapping[str, Any]) -> tuple[str, ...]:
    request, built, error = target["request"], target["build"], target["error"]
    shape = f"{request['batch']}x{request['seq_len']}" if request["batch"] else "-"
    parity = where = ""
    if built:
        parity = f"{built['parity']['max_abs_difference']:.1e}/{built['parity']['threshold']:.0e}"
        where = built["folder"]
    elif error:
        where = line(without_logins(error["message"]).splitlines()[0])
    return (
        request["model"],
        request["recipe"],
        request["precision"],
        request["head"],
        shape,
        target["result"],
        f"{target['seconds']:.1f}",
        parity or "-",
        where,
    )


def _error(target: Mapping[str, Any]) -> str:
    error = target["error"]
    advice = f"\n{error['advice']}" if error["advice"] else ""
    return f"{target['name']}: exit status {error['exit_status']}\n{error['message']}{advice}"

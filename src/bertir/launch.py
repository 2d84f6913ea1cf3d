"""Run one rebuild (rebuild.py) in a process of its own, and compare each stage with the baseline's as it comes."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from bertir.compare import Difference, Stage, first_difference, published_stage
from bertir.digest import Digest
from bertir.errors import BertirError, error_of
from bertir.interruption import held

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from bertir.prepare import Place
    from bertir.rebuild import Order
    from bertir.vary import Conditions

SECONDS_TO_END = 60.0


@dataclass(frozen=True, kw_only=True)
class Rebuilt:
    """What one rebuild gave, up to the first stage that differs.

    Args:
        place: where it ran; its store has the files of the stages.
        observed: what it saw around it.
        folder: where it published; None if it didn't come so far.
        failed: why it ended early, other than by a difference.
    """

    place: Place
    stages: tuple[Stage, ...]
    observed: Mapping[str, Any]
    seconds: float
    folder: Path | None = None
    difference: Difference | None = None
    failed: BertirError | None = None

    def stage(self, name: str) -> Stage | None:
        return next((stage for stage in self.stages if stage.name == name), None)


def launch(order: Order, conditions: Conditions, place: Place, baseline: Rebuilt | None) -> Rebuilt:
    """Rebuild at `place`; with a baseline, only until something differs."""
    begun = time.monotonic()
    stages: list[Stage] = []
    observed: dict[str, Any] = {}
    folder = difference = failed = None
    with _child(order, conditions, place) as events:
        for event in events:
            match event:
                case {"event": "observed", "facts": facts}:
                    observed |= facts
                case {"event": "stage", "name": name, "cached": cached, "files": files}:
                    digests = {file: Digest.from_str(digest) for file, digest in files.items()}
                    stages.append(Stage(name=name, cached=cached, files=digests))
                case {"event": "published", "folder": path}:
                    folder = Path(path)
                    stages.append(published_stage(folder))
                case {"event": "failed"}:
                    failed = error_of(event["exit_status"], event["message"], advice=event["advice"])
            if stages and baseline and (expected := baseline.stage(stages[-1].name)):
                difference = first_difference(expected, stages[-1])
                if difference:
                    break
    if folder is None and not difference and not failed:
        failed = BertirError(
            "a rebuild ended without a word", advice="Its messages are above, on standard error."
        )
    observed["steps from the store"] = sum(stage.cached for stage in stages)
    return Rebuilt(
        place=place,
        stages=tuple(stages),
        observed=observed,
        seconds=round(time.monotonic() - begun, 1),
        folder=folder,
        difference=difference,
        failed=failed,
    )


@contextlib.contextmanager
def _child(order: Order, conditions: Conditions, place: Place) -> Iterator[Iterator[Any]]:
    """Run the rebuild; it is ended, and its container with it, if the block ends first."""
    changes = {**conditions.environment, **place.environment}
    changes |= {"BERTIR_STORE": str(place.store), "PYTHONPATH": str(place.checkout / "src")}
    unset = {name for name, value in changes.items() if not value}
    environment = {name: value for name, value in {**os.environ, **changes}.items() if name not in unset}
    with contextlib.ExitStack() as stack:
        with held():  # a signal in between would leave a process that nobody ends
            process = subprocess.Popen(
                [*conditions.wrapper, sys.executable, "-m", "bertir.rebuild"],
                cwd=place.checkout,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                encoding="utf-8",
            )
            stack.callback(_end, process)
        with contextlib.suppress(BrokenPipeError), cast("IO[str]", process.stdin) as file:
            json.dump(order.to_json(), file)
        yield (json.loads(line) for line in cast("IO[str]", process.stdout))


def _end(process: subprocess.Popen[str]) -> None:
    with held():
        with contextlib.suppress(BrokenPipeError):
            cast("IO[str]", process.stdin).close()
        process.terminate()
        try:
            process.wait(SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        cast("IO[str]", process.stdout).close()

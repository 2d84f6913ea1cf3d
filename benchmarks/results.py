"""What a run of the suite found, as it is kept in benchmarks/results/."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from benchmarks.accounting import Traffic
from benchmarks.measure import Cost
from benchmarks.runs import Run, Step
from benchmarks.statistics import summary
from bertir.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from benchmarks.statistics import Summary

FORMAT = 1


@dataclass(kw_only=True)
class Result:
    """One contender's runs; `failed` is why there are no more of them."""

    group: str
    name: str
    title: str
    runs: list[Run] = field(default_factory=list)
    failed: str = ""

    def seconds(self) -> Summary | None:
        return summary(run.cost.seconds for run in self.runs)

    def cpu_seconds(self) -> Summary | None:
        return summary(run.cost.cpu_seconds for run in self.runs)

    def peak(self) -> Summary | None:
        return summary(run.cost.peak for run in self.runs)

    def read(self) -> Summary | None:
        return summary(traffic.read for traffic in self._traffic())

    def written(self) -> Summary | None:
        return summary(traffic.written for traffic in self._traffic())

    def _traffic(self) -> list[Traffic]:
        return [run.cost.traffic for run in self.runs if run.cost.traffic is not None]

    def of_steps(self) -> list[Result]:
        """Give each step as a result of its own, in the order in which they first ran."""
        names = dict.fromkeys(step.name for run in self.runs for step in run.steps)
        return [
            Result(
                group=self.group,
                name=name,
                title=name,
                runs=[Run(cost=step.cost) for run in self.runs for step in run.steps if step.name == name],
            )
            for name in names
        ]


@dataclass(frozen=True, kw_only=True)
class Results:
    """All of them.

    Args:
        date: when it began, in UTC.
        quick: one repetition of the tiny shape alone: to see that the suite works, and no more.
        groups: what is compared with one another: name -> what it is.
    """

    date: str
    seconds: float
    quick: bool
    machine: Mapping[str, Any]
    versions: Mapping[str, Any]
    groups: Mapping[str, str]
    results: tuple[Result, ...]

    def of(self, group: str) -> list[Result]:
        return [result for result in self.results if result.group == group]


def dump_results(results: Results) -> str:
    return json.dumps({"format": FORMAT, **asdict(results)}, indent=1, sort_keys=True) + "\n"


def load_results(path: Path) -> Results:
    """Read what `dump_results` wrote.

    Raises:
        ConfigurationError: it is something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if value.pop("format") != FORMAT:
            raise ConfigurationError(f"{path} isn't of format {FORMAT}", advice="Measure anew: invoke bench")
        results = tuple(_result(item) for item in value.pop("results"))
        return Results(results=results, **value)
    except OSError as error:
        raise ConfigurationError(f"can't read {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigurationError(f"{path} holds no results of `invoke bench`") from error


def _result(value: dict[str, Any]) -> Result:
    return Result(**{**value, "runs": [_run(run) for run in value["runs"]]})


def _run(value: dict[str, Any]) -> Run:
    steps = tuple(Step(name=step["name"], cost=_cost(step["cost"])) for step in value["steps"])
    return Run(cost=_cost(value["cost"]), steps=steps)


def _cost(value: dict[str, Any]) -> Cost:
    traffic = value["traffic"] and Traffic(**value["traffic"])
    return Cost(**{**value, "traffic": traffic})

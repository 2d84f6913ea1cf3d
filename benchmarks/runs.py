"""What one repetition of a contender took, and its parts: steps of bertir's, or commands one after the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.accounting import Traffic
from benchmarks.measure import Cost

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.measure import Ended

HOST = "bertir itself"
# Of a step that runs in bertir's own process.
NOTHING = Cost(seconds=None, cpu_seconds=None, peak=None, traffic=None)


@dataclass(frozen=True, kw_only=True)
class Step:
    """A part of a run: a step of bertir's, or one command of several."""

    name: str
    cost: Cost


@dataclass(frozen=True, kw_only=True)
class Run:
    """One repetition of a contender."""

    cost: Cost
    steps: tuple[Step, ...] = ()


def steps_of(ended: Ended, ran: Sequence[tuple[str, float | None]]) -> tuple[Step, ...]:
    """Give what each step of a build took: the seconds as bertir tells them, the rest of its container.

    A container that bears no step's name is told too, under its own.
    """
    containers = dict(ended.containers)
    steps = []
    for name, seconds in ran:
        cost = containers.pop(name, NOTHING)
        steps.append(
            Step(
                name=name,
                cost=Cost(
                    seconds=seconds,
                    cpu_seconds=cost.cpu_seconds,
                    peak=cost.peak,
                    traffic=cost.traffic,
                ),
            )
        )
    steps += [Step(name=name, cost=cost) for name, cost in containers.items()]
    host = ended.host
    itself = Cost(seconds=None, cpu_seconds=host.cpu_seconds, peak=host.peak, traffic=host.traffic)
    return (*steps, Step(name=HOST, cost=itself))


def commands(*parts: tuple[str, Ended]) -> Run:
    """Add up commands that were run one after the other."""
    steps = tuple(Step(name=name, cost=ended.total) for name, ended in parts)
    costs = [step.cost for step in steps]
    cpu = [cost.cpu_seconds for cost in costs if cost.cpu_seconds is not None]
    traffic = [cost.traffic for cost in costs if cost.traffic is not None]
    whole = Cost(
        seconds=sum(cost.seconds or 0.0 for cost in costs),
        cpu_seconds=sum(cpu) if len(cpu) == len(costs) else None,
        peak=max((cost.peak for cost in costs if cost.peak is not None), default=None),
        traffic=sum(traffic, Traffic()) if len(traffic) == len(costs) else None,
    )
    return Run(cost=whole, steps=steps)

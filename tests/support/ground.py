"""Where real builds are killed, and what they stored is damaged: a clone, a store of its own, an older published build."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from running_task import STATUSES, Containers, RunningTask, left_in, running

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from checkout import Checkout

VARIANT = "tiny-bert/reshapable-fp16"


@dataclass(frozen=True, kw_only=True)
class Ground:
    """A clone with an older build published in it, and a store of its own."""

    checkout: Checkout
    store: Path
    containers: Containers
    log: Path
    old: Mapping[str, bytes]

    @property
    def dist(self) -> Path:
        return self.checkout.root / "dist"

    def published(self) -> dict[str, bytes]:
        """Everything under dist/, so that what else lies there is seen too."""
        return {
            str(path.relative_to(self.dist)): path.read_bytes()
            for path in self.dist.rglob("*")
            if path.is_file()
        }

    def kill(
        self, kind: str, ready: Callable[[RunningTask], None], *arguments: str, **environment: str
    ) -> str:
        """Run a task until it is ready, end it so, and see what is left; give what it said."""
        with running(self.checkout, self.log, *(arguments or ("build-ir",)), **environment) as task:
            ready(task)
            status = task.end(kind)
        said = task.said
        assert status == STATUSES[kind], said
        assert "Traceback" not in said
        if kind != "SIGKILL":
            word = "terminated" if kind == "SIGTERM" else "interrupted"
            assert f"{word}; what was finished is in the store" in said
            self.see_nothing_left()
        return said

    def see_nothing_left(self) -> None:
        assert self.containers.steps() == {}
        assert left_in(self.store) == []

    def until_running(self, step: str = "") -> Callable[[RunningTask], None]:
        """Ready when a new container runs, of this step; of one that was killed before nothing is left then.

        One that was started ahead of its inputs doesn't run yet: that a step does is said.
        """
        left = self.containers.steps()

        def new() -> bool:
            found = self.containers.steps(running=True)
            # Several may share one.
            return any(number not in left and step in ("", *found[number].split("+")) for number in found)

        def ready(task: RunningTask) -> None:
            if step:
                task.wait_for(lambda: re.search(rf"\] {step} +running in the container", task.said), step)
            task.wait_for(new, f"a container {step}")
            assert not self.containers.steps().keys() & left

        return ready

"""A live view of a build on a terminal: a row for each stage, with its state, its time, and what it does.

rich is loaded when the first stage begins to run: a build with nothing to do doesn't wait for it.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TextIO

from bertir.progress import Count, State

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

REFRESHES_A_SECOND = 8
LABEL, MOST_LABEL = 10, 48  # columns of what a row is of
# Of each state: a sign, what it is where the terminal's encoding has no such sign, and a colour.
SIGNS = {
    State.WAITING: ("◌", ".", "yellow"),
    State.RUNNING: ("▸", ">", "cyan"),
    State.DONE: ("✓", "+", "green"),
    State.STORED: ("✓", "=", "green"),
}
STOPPED = ("✗", "x", "red")


@dataclass(frozen=True, kw_only=True)
class Row:
    """A stage as it is shown.

    Args:
        began: by the monotonic clock.
        ended: none while it runs.
        count: of bytes that go by; none if none do.
        told: whether its stage says itself what becomes of it, and doesn't end with the last byte.
        log: the last line that its step printed.
    """

    state: State
    text: str
    began: float
    ended: float | None = None
    count: Count | None = None
    told: bool = True
    log: str = ""

    @property
    def seconds(self) -> float:
        return (self.ended or time.monotonic()) - self.began


class LiveView:
    """The rows, and the terminal that they are drawn on by a thread of rich's.

    Its methods are called from the build's thread and from those that read the steps' logs.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.RLock()
        self._rows: dict[str, Row] = {}
        self._is_open = False
        self._live: Live | None = None

    def open(self) -> None:
        with self._lock:
            self._is_open = True
            self._rows = {}

    def close(self) -> None:
        """Draw it a last time, and leave it there. What hadn't ended was stopped."""
        with self._lock:
            self._is_open = False
            live, self._live = self._live, None
            now = time.monotonic()
            self._rows = {
                stage: row if row.ended else replace(row, ended=now, log="")
                for stage, row in self._rows.items()
            }
        if live is not None:  # outside of the lock: it waits for the thread that draws
            live.stop()

    def say(self, stage: str, text: str, state: State | None, fact: str) -> bool:
        with self._lock:
            if not self._is_open or (self._live is None and state not in (State.RUNNING, State.WAITING)):
                return False  # nothing has run yet, and it may be that nothing will
            live = self._started()
            if state is not None:
                now = time.monotonic()
                row = self._rows.get(stage)
                began = row.began if row and row.ended is None else now
                ended = now if state in (State.DONE, State.STORED) else None
                self._rows[stage] = Row(state=state, text=text, began=began, ended=ended)
                return True
        # Outside of the lock: rich's own is taken here, and the thread that draws takes that one first.
        live.console.print(fact, markup=False, highlight=False, soft_wrap=True)
        return True

    def count(self, stage: str, count: Count) -> bool:
        with self._lock:
            if not self._is_open:
                return False
            row = self._rows.get(stage)
            if row is None or row.ended is not None:
                row = Row(state=State.RUNNING, text="", began=time.monotonic(), told=False)
            ended = time.monotonic() if count.size == count.total and not row.told else None
            state = State.DONE if ended else row.state
            self._rows[stage] = replace(row, state=state, ended=ended, count=count)
            self._started()
        return True

    def log(self, stage: str, text: str) -> None:
        with self._lock:
            if text and (row := self._rows.get(stage)) and row.ended is None:
                self._rows[stage] = replace(row, log=text)

    def drop(self, stage: str) -> None:
        with self._lock:
            self._rows.pop(stage, None)

    def _started(self) -> Live:
        if self._live is None:
            from rich.console import Console
            from rich.live import Live

            console = Console(file=self._stream, highlight=False)
            self._live = Live(
                console=console,
                get_renderable=lambda: self.drawn(console),
                refresh_per_second=REFRESHES_A_SECOND,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()
        return self._live

    def drawn(self, console: Console) -> RenderableType:
        """Give the rows as they are now."""
        from rich.table import Table
        from rich.text import Text

        with self._lock:
            rows = dict(self._rows)
            closed = not self._is_open
        width = min(max([LABEL, *map(len, rows)]), MOST_LABEL)
        table = Table(box=None, show_header=False, padding=(0, 1, 0, 0), expand=True)
        table.add_column(width=1)
        table.add_column(width=width, no_wrap=True, overflow="ellipsis")
        table.add_column(justify="right", width=8, no_wrap=True)
        table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
        plain = not console.encoding.lower().startswith("utf")
        for stage, row in rows.items():
            stopped = closed and row.state in (State.RUNNING, State.WAITING)
            sign, ascii_sign, colour = STOPPED if stopped else SIGNS[row.state]
            what = str(row.count) if row.count else row.text
            told = Text("stopped" if stopped else what)
            if row.log:
                told.append(f"  {row.log}", style="dim")
            table.add_row(
                Text(ascii_sign if plain else sign, style=colour),
                Text(stage),
                Text(f"{row.seconds:.1f} s" if row.state is not State.STORED else ""),
                told,
            )
        return table

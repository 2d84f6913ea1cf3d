"""Progress of builds in other processes, shown in this one's view: each is a row, and all of them the first one.

They write into one pipe with a name, an event a line, in one piece (PIPE_BUF, pipe(7)), so that none stands in another. No
build waits for the view: what finds the pipe full isn't shown, and told in a line if it is more than a picture.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import threading
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from bertir.progress import Count, State

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bertir.progress import Progress, View

ALL = "matrix"  # the row of all of them


class Relay:
    """The view of a build whose rows are shown by another process: it tells that one what it is told.

    Args:
        pipe: a descriptor of where the other process listens (`followed`).
        about: which build this is.
    """

    def __init__(self, pipe: int, about: str) -> None:
        self._about = about
        self._pipe = pipe

    def open(self) -> None:
        self._tell(stage="", text="begins", state=State.RUNNING.value, fact="")

    def close(self) -> None:
        self._tell(stage="", drop=True)

    def say(self, stage: str, text: str, state: State | None, fact: str) -> bool:
        return self._tell(stage=stage, text=text, state=state.value if state else None, fact=fact)

    def count(self, stage: str, count: Count) -> bool:
        return self._tell(stage=stage, count=asdict(count))

    def log(self, stage: str, text: str) -> None:
        self._tell(stage=stage, log=text)

    def drop(self, stage: str) -> None:
        """Do nothing: the row is the whole build's, and goes with it."""

    def _tell(self, **event: Any) -> bool:  # noqa: ANN401 - what JSON can say
        data = (
            json.dumps({"about": self._about, **event}, ensure_ascii=False).encode(errors="replace") + b"\n"
        )
        if len(data) > select.PIPE_BUF:
            return False
        try:
            return os.write(self._pipe, data) == len(data)
        except OSError:  # full, or nobody listens any more
            return False


@contextlib.contextmanager
def relayed(pipe: str, about: str) -> Iterator[Relay | None]:
    """Give the view of a build that tells it to a named pipe; none if it has no name, or nobody listens any more."""
    with contextlib.ExitStack() as stack:
        view = None
        with contextlib.suppress(OSError):
            if pipe:
                opened = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
                stack.callback(os.close, opened)
                view = Relay(opened, about)
        yield view


@contextlib.contextmanager
def followed(progress: Progress, folder: Path) -> Iterator[str]:
    """Give the name of a pipe, made in `folder`, whose events are shown within the block; an empty one if there is no view."""
    if progress.view is None:
        yield ""
        return
    path = folder / "progress"
    try:
        os.mkfifo(path, 0o600)
        pipe = os.open(path, os.O_RDWR | os.O_CLOEXEC)  # both, so that it never ends while builds come and go
    except OSError:  # a file system without such pipes: it is told in lines
        yield ""
        return
    reader = threading.Thread(target=_listen, args=(pipe, progress.view), name="progress", daemon=True)
    reader.start()
    try:
        yield str(path)
    finally:
        os.write(pipe, b"\n")  # the last line
        reader.join()
        os.close(pipe)


def _listen(pipe: int, view: View) -> None:
    with open(pipe, encoding="utf-8", errors="replace", closefd=False) as lines:
        while (told := lines.readline()) != "\n":
            # A worker that was killed leaves whole lines; whatever else is one is no reason to stop listening.
            with contextlib.suppress(ValueError, LookupError, TypeError):
                _show(view, json.loads(told))


def _show(view: View, event: dict[str, Any]) -> None:
    about, stage = event["about"], event["stage"]
    if "drop" in event:
        view.drop(about)
    elif "log" in event:
        view.log(about, event["log"])
    elif "count" in event:
        count = Count(**event["count"])
        view.count(about, replace(count, what=f"{stage}, {count.what}"))
    elif event["state"] is None:
        view.say(about, event["text"], None, event["fact"])
    else:
        # A stage that is done is not yet a build that is.
        state = State.WAITING if event["state"] == State.WAITING.value else State.RUNNING
        view.say(about, f"{stage}: {event['text']}" if stage else event["text"], state, event["fact"])


def show_ended(progress: Progress, ended: int, of: int, about: str = "") -> None:
    """Say in the first row how many ended, and take away that of the last one."""
    if progress.view is not None:
        progress.view.drop(about)  # it did so itself, unless it was killed
        progress.view.say(ALL, f"{ended} of {of} ended", State.DONE if ended == of else State.RUNNING, "")

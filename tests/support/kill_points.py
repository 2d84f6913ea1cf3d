"""Kills a piece of work at every point, and looks at what is left: a program that `test_killed.py` runs.

A *kill point* lies just before, or just after, a call that changes files, takes a lock, or reads what has come from a
server. Each case is a fork of this process: it does the work, and at its point it does the deed to itself. Signals
sent after a call reach Python before the caller has its result: the folder is made, and nobody knows its name yet.
"""

from __future__ import annotations

import argparse
import collections
import importlib.util
import io
import json
import os
import shutil
import signal
import sys
import tempfile
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import killable_work
from invoke.exceptions import Exit

import bertir
import bertir.archive  # these, so that a fork needn't
import bertir.checkout
import bertir.download
import bertir.engine
from bertir.errors import BertirError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import FrameType, ModuleType

    from killable_work import Work

TASKS = Path(bertir.__file__).resolve().parents[2] / "tasks.py"
# By the module that has them; of files, by the name of the method.
CALLS = {
    "posix": {
        *("open", "mkdir", "rename", "replace", "unlink", "remove", "rmdir", "link", "symlink", "chmod"),
        *("fchmod", "utime", "fsync", "write", "truncate", "ftruncate"),
    },
    "fcntl": {"flock"},
    "io": {"open"},
    "_io": {"open"},
    "_socket": {"connect"},
}
METHODS = {"write", "flush", "truncate", "close", "__exit__", "read1", "recv_into"}
# What audit hooks see of the same: for the second signal, which comes while the first is being answered.
AUDITED = {
    *("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod", "os.truncate", "fcntl.flock"),
    *("shutil.rmtree", "tempfile.mkdtemp", "tempfile.mkstemp", "os.scandir"),
}
KINDS = {
    "SIGKILL": signal.SIGKILL,
    "SIGTERM": signal.SIGTERM,
    "SIGINT": signal.SIGINT,
    "SIGINT twice": signal.SIGINT,
}
NOT_REACHED = 77  # a server's answer came in fewer pieces this time
MOST_LATER = 6  # how many calls after the first the second signal comes, at most


def load_tasks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tasks", TASKS)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def counts(function: Any) -> bool:
    """Whether a call of this builtin is a kill point."""
    name = function.__name__
    if isinstance(getattr(function, "__self__", None), io.IOBase):
        return name in METHODS
    return name in CALLS.get(function.__module__ or "", ())


@dataclass
class Deed:
    """Counts points, and sends the signals: the first at its point, a second so many audited calls later."""

    number: int | None = None
    point: int = 0
    later: int | None = None
    seen: int = 0
    again: str = ""
    places: list[str] = field(default_factory=list)
    _left: int = -1

    def profile(self, frame: FrameType, event: str, function: Any) -> None:
        if event not in ("c_call", "c_return") or not counts(function):
            return
        self.seen += 1
        if self.number is None:
            when = "before" if event == "c_call" else "after"
            self.places.append(f"{when} {function.__name__} at {_ours(frame)}")
        elif self.seen == self.point:
            if self.later is not None:
                self._left = self.later
            sys.setprofile(None)
            os.kill(os.getpid(), self.number)

    def audit(self, event: str, _: object) -> None:
        if self._left < 0 or event not in AUDITED or self.number is None:
            return
        self._left -= 1
        if self._left < 0:
            self.again = f", again at {event} of {_ours(sys._getframe(1))}"
            os.kill(os.getpid(), self.number)


def _ours(frame: FrameType | None) -> str:
    """The innermost lines of bertir's own in a stack."""
    lines = []
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.parent.name in ("bertir", "support"):
            lines.append(f"{path.name}:{frame.f_lineno}")
        frame = frame.f_back
    return " < ".join(lines[:3])


def in_fork(do: Callable[[], int], errors: Path) -> int:
    """Do it in a fork of this process, its standard error in a file; give how it ended, as a shell says it, or -signal."""
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            descriptor = os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(descriptor, 2)
            status = do()
        except BaseException:  # noqa: BLE001 - a fork must end here, whatever happened
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def work_in_fork(tasks: ModuleType, work: Work, folder: Path, deed: Deed) -> int:
    """Do the work as a task does it, with a deed."""

    def do() -> int:
        sys.addaudithook(deed.audit)
        try:
            with tasks.exit_statuses():
                sys.setprofile(deed.profile)
                work.do(folder)
        except Exit as ended:
            sys.setprofile(None)
            if ended.message:
                sys.stderr.write(f"{ended.message}\n")
            return int(ended.code)
        finally:
            sys.setprofile(None)
            if deed.again:
                (folder.parent / "again").write_text(deed.again, encoding="utf-8")
        return NOT_REACHED if deed.seen < deed.point else 0

    return in_fork(do, folder / "stderr")


# what is there


def files_in(folder: Path) -> dict[str, bytes]:
    found = {}
    for root, _, names in os.walk(folder):
        for name in names:
            with open(f"{root}/{name}", "rb") as file:  # noqa: PTH123 - a million of them
                found[f"{root}/{name}"[len(str(folder)) + 1 :]] = file.read()
    return found


def entries(folder: Path) -> set[str]:
    return {
        f"{root}/{name}"[len(str(folder)) + 1 :]
        for root, folders, names in os.walk(folder)
        for name in (*folders, *names)
    }


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What is in a folder of work."""

    out: Mapping[str, bytes]
    out_entries: frozenset[str]
    objects: frozenset[str]
    records: Mapping[str, str]

    @classmethod
    def of(cls, folder: Path) -> Seen:
        store = folder / "store"
        return cls(
            out=files_in(folder / "out"),
            out_entries=frozenset(entries(folder / "out")),
            objects=frozenset(files_in(store / "objects")),
            records={
                name: json.dumps(json.loads(data), sort_keys=True)
                for name, data in files_in(store / "records").items()
            },
        )


def damaged(folder: Path) -> Iterator[str]:
    """Objects whose bytes aren't what their name says, records that can't be read or name what isn't there."""
    import hashlib

    objects = folder / "store" / "objects"
    for name, data in files_in(objects).items():
        if hashlib.sha256(data).hexdigest() != name.replace("/", ""):
            yield f"object {name} has other bytes"
    for name, data in files_in(folder / "store" / "records").items():
        try:
            listed = json.loads(data)["files"]
        except (ValueError, KeyError):
            yield f"record {name} is half written"
            continue
        for entry in listed.values():
            digest = entry["digest"].removeprefix("sha256:")
            path = objects / digest[:2] / digest[2:]
            if not path.is_file() or path.stat().st_size != entry["size"]:
                yield f"record {name} names an object that isn't there"


def left_over(folder: Path) -> Iterator[str]:
    """Whatever only a process at work may have."""
    for store in ("store", "materials"):
        for name in ("tmp", "locks"):
            for item in sorted(entries(folder / store / name)):
                yield f"{store}/{name}/{item}"
    for item in sorted(entries(folder / "store" / "downloads")):
        if item.endswith(".tmp"):
            yield f"store/downloads/{item}"
    for item in sorted(entries(folder / "out")):
        if _hidden(item):
            yield f"out/{item}"


def _hidden(name: str) -> bool:
    return any(part.startswith(".") for part in Path(name).parts)


def finished(folder: Path) -> set[str]:
    """Names of the steps that have a record."""
    return {Path(name).parts[0] for name in files_in(folder / "store" / "records")}


def runs(folder: Path) -> collections.Counter[str]:
    try:
        return collections.Counter((folder / "runs").read_text(encoding="utf-8").split())
    except FileNotFoundError:
        return collections.Counter()


# the cases


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A piece of work, and what it makes of a prepared folder if nothing happens."""

    tasks: ModuleType
    work: Work
    template: Path
    old: Seen
    new: Seen

    def case(self, folder: Path, kind: str, deed: Deed) -> list[str] | None:
        """Kill it once, look at it, do it again, and look again; give what is wrong, or None if it came to its end."""
        shutil.copytree(self.template, folder)
        status = work_in_fork(self.tasks, self.work, folder, deed)
        return None if status == NOT_REACHED else list(self._problems(folder, kind, status))

    def _problems(self, folder: Path, kind: str, status: int) -> Iterator[str]:
        number = KINDS[kind]
        expected = -signal.SIGKILL if kind == "SIGKILL" else 128 + number
        if status != expected:
            yield f"ended with {status} and not {expected}"
        said = (folder / "stderr").read_text(encoding="utf-8")
        if "Traceback" in said or "Exception ignored" in said:
            yield f"a traceback: {said.strip().splitlines()[-1]}"
        yield from damaged(folder)
        now = Seen.of(folder)
        seen = {name: data for name, data in now.out.items() if not _hidden(name)}
        if seen not in (self.old.out, self.new.out):
            yield f"neither the old nor the new: {sorted(seen)}"
        if kind != "SIGKILL":
            yield from (f"left over: {item}" for item in left_over(folder))
        done, ran = finished(folder), runs(folder)
        try:
            self.work.do(folder)
        except BertirError as error:
            yield f"the next run ended with: {error}"
            return
        yield from (f"left over after the next run: {item}" for item in left_over(folder))
        yield from damaged(folder)
        if Seen.of(folder) != self.new:
            yield "the next run has another result"
        yield from (f"{step} was finished, and ran again" for step in done if runs(folder)[step] != ran[step])


def undisturbed(tasks: ModuleType, work: Work, folder: Path) -> tuple[Trial, list[str], list[str]]:
    """Do it once without a deed; give the points, and what is wrong even so."""
    template, place = folder / "template", folder / "undisturbed"
    template.mkdir()
    work.prepare(template)
    shutil.copytree(template, place)
    deed = Deed()
    sys.setprofile(deed.profile)
    try:
        work.do(place)
    finally:
        sys.setprofile(None)
    trial = Trial(tasks=tasks, work=work, template=template, old=Seen.of(template), new=Seen.of(place))
    return trial, deed.places, [f"undisturbed: {item}" for item in (*damaged(place), *left_over(place))]


def deeds(kind: str, places: list[str]) -> Iterator[Deed]:
    """A deed for every point; of a place in the code that is come to again and again, for the first and the last.

    What a SIGKILL leaves after a call is what it leaves before the next one.
    """
    first = {place: point for point, place in reversed(list(enumerate(places, start=1)))}
    last = {place: point for point, place in enumerate(places, start=1)}
    for point, place in enumerate(places, start=1):
        if kind == "SIGKILL" and place.startswith("after"):
            continue
        if point not in (first[place], last[place]):
            continue
        if (kind == "SIGTERM" and point % 4) or (kind == "SIGINT twice" and point % 4 != 1):
            continue  # what answers them is the same as of SIGINT, which is sent at all points
        later = point // 4 % MOST_LATER if kind == "SIGINT twice" else None
        yield Deed(number=KINDS[kind], point=point, later=later)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("work", choices=("Build", "Download", "Bundle", "Archive"))
    parser.add_argument("kind", choices=tuple(KINDS))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--url", default="")
    given = parser.parse_args()
    make = getattr(killable_work, given.work)
    work: Work = make(url=given.url) if given.url else make()
    trial, places, wrong = undisturbed(load_tasks(), work, given.folder)
    cases = missed = 0
    for deed in deeds(given.kind, places):
        folder = Path(tempfile.mkdtemp(dir=given.folder)) / "case"
        problems = trial.case(folder, given.kind, deed)
        if problems is None:
            missed += 1
        else:
            cases += 1
        noted = folder.parent / "again"
        again = noted.read_text(encoding="utf-8") if noted.exists() else ""
        if problems:
            at = f"point {deed.point}, {places[deed.point - 1]}"
            wrong.append(f"{at}{again}: {'; '.join(problems)}")
        shutil.rmtree(folder.parent)
    sys.stdout.write(json.dumps({"points": len(places), "cases": cases, "missed": missed, "wrong": wrong}))


if __name__ == "__main__":
    main()

"""What a rebuild needs before it can run: a copy of the checkout, a store with materials alone, and its variations' means.

All of it lies in one folder, and whatever is mounted or started ends with the `with` block, or with this process.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bertir.errors import EngineError
from bertir.installed import PACKAGE, PROJECT, is_installed
from bertir.publish import REPORT, SUMS
from bertir.store import Blob, Store
from bertir.variations import OTHER_ID
from bertir.vary import Means

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from bertir.builder import Layout
    from bertir.digest import Digest
    from bertir.vary import Conditions

SECONDS_TO_START = 20.0
ODD_PLACE = "some where élse, quite a bit further down/than 'the' $baseline/was"


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a rebuild runs.

    Args:
        checkout: a copy.
        environment: what its means add to the conditions' own.
    """

    checkout: Path
    store: Path
    output: Path
    environment: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Supplies:
    """What every rebuild starts from.

    Args:
        materials: digests of the objects that it gets from `store`, the user's.
        published: an earlier build's folder, relative to the output, and where that lies; None before there is one.
    """

    layout: Layout
    store: Store
    materials: Iterable[Digest]
    published: tuple[Path, Path] | None = None


@contextlib.contextmanager
def prepared(supplies: Supplies, conditions: Conditions, work: Path) -> Iterator[Place]:
    """Make everything ready in the new folder `work`.

    Raises:
        BertirError: something can't be made ready. EngineError: podman doesn't start.
    """
    means = conditions.means
    with contextlib.ExitStack() as stack:
        work.mkdir(parents=True)
        folder = shown = work
        if Means.DISORDER in means:
            shown = stack.enter_context(_disordered(work))
        if Means.OTHER_PLACE in means:
            folder, shown = folder / ODD_PLACE, shown / ODD_PLACE
        checkout, output = shown / "checkout", shown / "output"
        output.mkdir(parents=True)
        _copy_checkout(supplies.layout, checkout)
        environment = {}
        store = supplies.store.root
        if Means.WARM_STORE not in means:
            store = folder / "store"
            _stock(supplies, store)
        if Means.OTHER_HOME in means:
            home = work / "home of another"
            home.mkdir()
            environment = {"HOME": str(home), **_docker_configuration()}
        if Means.OLD_OUTPUT in means and supplies.published:
            _lay_out_older_build(*supplies.published, output)
        if Means.PODMAN in means:
            environment["DOCKER_HOST"] = stack.enter_context(_podman(work))
            environment["DOCKER_CONTEXT"] = ""
        if Means.OTHER_USER in means:
            _give_away(work)
        yield Place(checkout=checkout, store=store, output=output, environment=environment)


def _copy_checkout(layout: Layout, target: Path) -> None:
    """Copy what a build reads, and no more: a checkout may hold whatever else its user keeps there."""
    ignored = shutil.ignore_patterns("__pycache__")
    for folder in (layout.docker, layout.patches):
        shutil.copytree(folder, target / folder.name, ignore=ignored)
    if is_installed():  # laid out as a checkout all the same
        ignored = shutil.ignore_patterns("__pycache__", PROJECT)
        shutil.copytree(PACKAGE, target / "src" / PACKAGE.name, ignore=ignored)
    else:
        shutil.copytree(layout.root / "src", target / "src", ignore=ignored)
    for file in (layout.root / "models.toml", layout.task_data):
        shutil.copy2(file, target / file.name)


def _stock(supplies: Supplies, root: Path) -> None:
    """Make a store that holds the materials and nothing else. Links, as they are read only and may be 1 GB."""
    store = Store(root)
    for digest in sorted(set(supplies.materials), key=str):
        target = store.path(digest)
        target.parent.mkdir(exist_ok=True, mode=0o755)
        # Looked at first: the copy that a rebuild would find damaged there isn't the one to be made anew.
        found = supplies.store.find(digest)
        source = supplies.store.checked(found or Blob(digest=digest, size=0), what="a material")
        try:
            os.link(source, target)
        except OSError:  # another disk, or a file system that has no links
            shutil.copy2(source, target)


def _docker_configuration() -> dict[str, str]:
    # Which engine is meant may be written there, and is not what is varied.
    folder = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    return {"DOCKER_CONFIG": str(folder)} if folder.is_dir() else {}


def _lay_out_older_build(folder: Path, published: Path, output: Path) -> None:
    shutil.copytree(published, output / folder)
    for path in (output / folder).iterdir():
        if path.name not in (SUMS, REPORT):
            path.write_bytes(path.read_bytes()[:-1] + b"?")


def _give_away(work: Path) -> None:
    """Make the folders, and the copied checkout, another user's. Never an object: it is linked to the user's store."""
    # From the leaves up, and by descriptor: what is another user's already must lead root nowhere, and whoever owns a folder
    # may put a link in the place of one in it.
    for _, _, files, descriptor in os.fwalk(work, topdown=False):
        for name in files:
            if os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_nlink == 1:
                os.chown(name, OTHER_ID, OTHER_ID, dir_fd=descriptor, follow_symlinks=False)
        os.fchown(descriptor, OTHER_ID, OTHER_ID)
    work.parent.chmod(0o711)  # no more than to pass through


@contextlib.contextmanager
def _disordered(work: Path) -> Iterator[Path]:
    """Mount disorderfs, which gives the entries of a directory in another order each time.

    Not for the store: disorderfs looks at the permissions of each folder above a file, so that a step's user would have to
    be let into the store's private ones. Of the store's folders a build lists none but `tmp/`, to sweep it.
    """
    under, mounted = work / "under", work / "disordered"
    under.mkdir()
    mounted.mkdir()
    command = ["disorderfs", "--multi-user=yes", "--shuffle-dirents=yes", "--reverse-dirents=no"]
    # In the foreground, so that it ends with this process; it is unmounted when it ends, however it ends.
    command += ["-f", "-o", "auto_unmount", str(under), str(mounted)]
    with _running(command, work / "disorderfs.log") as process:
        _wait(mounted.is_mount, process, "disorderfs", work / "disorderfs.log")
        yield mounted


@contextlib.contextmanager
def _podman(work: Path) -> Iterator[str]:
    """Serve podman's Docker API from a storage of its own; give it as a DOCKER_HOST."""
    folder = work / "podman"
    folder.mkdir()
    socket = folder / "socket"
    # podman wants a run root of at most 50 characters: it sees the folder under a short name.
    short = next(name for name in ("/media", "/mnt") if not work.is_relative_to(name))
    command = ["podman", "--root", f"{short}/root", "--runroot", f"{short}/run", "--tmpdir", f"{short}/tmp"]  # noqa: S108 - not that one
    command += ["--cgroup-manager", "cgroupfs"]
    if shutil.which("runc"):
        command += ["--runtime", "runc"]  # crun refuses a host that has both versions of cgroups
    command += ["system", "service", "--time", "0", f"unix://{short}/socket"]
    # Its mounts are seen by it alone, and go with it.
    bind = 'mount --bind "$0" "$1" && shift && exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", bind, str(folder), short, *command]
    with _running(command, folder / "log") as process:
        _wait(socket.is_socket, process, "podman system service", folder / "log")
        yield f"unix://{socket}"


@contextlib.contextmanager
def _running(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a service until the block ends, or this process does."""
    with log.open("wb") as file:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", *command],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for who uses it first
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(SECONDS_TO_START)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(ready: Callable[[], bool], process: subprocess.Popen[bytes], what: str, log: Path) -> None:
    until = time.monotonic() + SECONDS_TO_START
    while not ready():
        if process.poll() is not None or time.monotonic() > until:
            said = log.read_text(encoding="utf-8", errors="replace").strip()[-500:]
            raise EngineError(f"{what} doesn't start: {said or 'it says nothing'}")
        time.sleep(0.05)

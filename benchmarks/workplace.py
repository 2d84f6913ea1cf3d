"""Where the suite works: a cache that it keeps between runs, and a folder of this run, which is removed at its end."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import shapes
from benchmarks.containers import docker
from benchmarks.documented import write_source
from benchmarks.measure import Ended, run
from bertir.digest import Digest
from bertir.emptying import remove
from bertir.errors import BertirError, ConfigurationError
from bertir.locking import locked_if_free
from bertir.materials import fetch_source, load_pins
from bertir.session import open_session
from bertir.store import Store
from bertir.store_folder import IDENTITY
from bertir.upstream import load_source_lock, load_upstream

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from benchmarks.containers import Events
    from benchmarks.shapes import Subject
    from bertir.progress import Progress

FROZEN = "inference_graph.pb"
RUN = "run-"
SHOWN = 4


class FailedError(BertirError):
    """A contender can't be measured; the message is the reason, and goes into the table."""


@dataclass(frozen=True, kw_only=True)
class Workplace:
    """What every contender needs.

    Args:
        root: of the checkout.
        cache: kept between runs of the suite.
        folder: of this run.
        token: the label of this run's containers.
        image: the ID by which the engine has the image.
    """

    root: Path
    cache: Path
    folder: Path
    token: str
    image: str
    events: Events
    environment: Mapping[str, str]
    progress: Progress

    def invoke(
        self,
        *arguments: str,
        store: Path,
        root: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Ended:
        """Run a task as a user would.

        Raises:
            FailedError: it ends with another status than 0.
        """
        ended = run(
            [sys.executable, "-m", "invoke", *arguments],
            self.events,
            containers=str(store),
            folder=root or self.root,
            environment={**self.environment, **(environment or {}), "BERTIR_STORE": str(store)},
        )
        return successful(ended, f"invoke {arguments[0]}")

    def command(self, *command: str, folder: Path, environment: Mapping[str, str] | None = None) -> Ended:
        """Run a program of this machine. Raises as above."""
        ended = run(
            command,
            self.events,
            containers=self.token,
            folder=folder,
            environment={**self.environment, **(environment or {})},
        )
        return successful(ended, Path(command[0]).name)

    def in_container(
        self, name: str, command: Sequence[str], *, mounts: Mapping[Path, str], folder: str
    ) -> Ended:
        """Run a program in the image by `docker run`, as the user who runs the suite. Raises as above."""
        container = f"{self.token}-{name}"
        options = ["--rm", "--network=none", f"--name={container}", f"--workdir={folder}"]
        options += [f"--label=bertir.bench={self.token}", f"--label=bertir.step={name}"]
        options += [f"--user={os.getuid()}:{os.getgid()}"]
        options += [f"--volume={source}:{target}" for source, target in mounts.items()]
        try:
            return self.command("docker", "run", *options, self.image, *command, folder=self.folder)
        except BaseException:
            with contextlib.suppress(BertirError):  # it has ended, mostly
                docker("rm", "--force", container)
            raise

    def empty_folder(self, name: str) -> Path:
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder


def successful(ended: Ended, what: str) -> Ended:
    if ended.status == 0:
        return ended
    lines = [line for line in ended.errors.splitlines() if line.strip()]
    # bertir's own message begins so, and says all that there is to say.
    said = next((line for line in lines if line.startswith("error: ")), "") or " / ".join(lines[-SHOWN:])
    raise FailedError(f"{what} ended with status {ended.status}: {said[-400:]}")


@dataclass(kw_only=True)
class Ground:
    """One shape, ready to be converted.

    Args:
        hugging_face, checkpoint: the same weights in both formats, in folders.
        frozen: the folder of the graph that bertir froze; `ir` is what it became.
        documented: the folder of the documentation's source.
        template: a store that holds the source's materials, and nothing else.
        store: the one of the last cold build; None before.
        checkout: a copy of the checkout, of which a patch is changed.
    """

    place: Workplace
    subject: Subject
    hugging_face: Path
    checkpoint: Path
    frozen: Path
    ir: tuple[Path, ...]
    documented: Path
    template: Path
    checkout: Path
    store: Path | None = None
    patches: int = 0


def report_of(ended: Ended, folder: Path) -> dict[str, Any]:
    """Give what a build says in its report.json."""
    published = folder / json.loads(ended.output)["folder"]
    told: dict[str, Any] = json.loads((published / "report.json").read_text(encoding="utf-8"))
    return told


def prepare(place: Workplace, subject: Subject, template: Path, checkout: Path) -> Ground:
    """Make what is converted: a Hugging Face directory, and by bertir its checkpoint, frozen graph and IR.

    Raises:
        BertirError: one of its kinds.
    """
    place.progress.say(subject.name, "making random weights, and by bertir a checkpoint of them")
    given = shapes.hugging_face_folder(subject, place.cache / "shapes")
    store = place.cache / "store"
    output = place.empty_folder(f"{subject.name}-made")
    ended = place.invoke(
        "build-ir", f"--checkpoint={given}", f"--output={output}", "--format=json", store=store
    )
    told = report_of(ended, place.root)
    checkpoint = _copied(store, told["checkpoint"], place.empty_folder(f"{subject.name}-checkpoint"))
    frozen = place.empty_folder(f"{subject.name}-frozen")
    _copied(store, {FROZEN: told["frozen_graph"]}, frozen)
    documented = place.folder / f"{subject.name}-documented"
    upstream = load_upstream(place.root / "patches")
    lock, opened = load_source_lock(place.root / "patches", upstream), Store(template)
    pristine = {name: opened.path(digest).read_bytes() for name, digest in lock.pristine.items()}
    write_source(documented, pristine, upstream.series)
    published = place.root / json.loads(ended.output)["folder"]
    return Ground(
        place=place,
        subject=subject,
        hugging_face=given,
        checkpoint=checkpoint,
        frozen=frozen,
        ir=tuple(published / name for name in sorted(told["ir"])),
        documented=documented,
        template=template,
        checkout=checkout,
    )


def template_store(root: Path, environment: Mapping[str, str], folder: Path) -> Path:
    """Make a store that holds the source's materials, and no record of any step."""
    session = open_session(root, {**environment, "BERTIR_STORE": str(folder)})
    with session.builder() as builder:
        fetch_source(builder, load_pins(builder))
    return folder


def fresh_store(ground: Ground, folder: Path) -> None:
    """Make a store that has what was fetched, and no record or output of any step."""
    shutil.copytree(ground.template, folder, ignore=shutil.ignore_patterns(IDENTITY, "locks", "tmp"))
    folder.chmod(0o700)


def _copied(store: Path, digests: Mapping[str, str], folder: Path) -> Path:
    opened = Store(store)
    for name, digest in digests.items():
        # A copy: no contender may reach what the store keeps.
        shutil.copyfile(opened.path(Digest.from_str(digest)), folder / name)
    return folder


@contextlib.contextmanager
def run_folder(cache: Path) -> Iterator[Path]:
    """Give a folder for one run of the suite, removed at its end; what killed runs left goes first.

    Raises:
        ConfigurationError: another run is at it: both would measure each other.
    """
    cache.mkdir(parents=True, exist_ok=True)
    with locked_if_free(cache / "lock") as free:
        if not free:
            raise ConfigurationError(
                f"another benchmark runs, in {cache}",
                advice="Wait for its end: two at once measure each other.",
            )
        for left in cache.glob(f"{RUN}*"):
            remove(left)
        with tempfile.TemporaryDirectory(prefix=RUN, dir=cache, ignore_cleanup_errors=True) as name:
            yield Path(name)

"""One rebuild, in a process of its own: `python -m bertir.rebuild < order.json`, of the checkout that it lies in.

It tells on standard output what it does, a line of JSON an event, as soon as it is done; so whoever asked for it can
compare each stage at once, and needn't wait for the stages after one that differs:

    {"event": "observed", "facts": {…}}                     what it sees around it, on the host and in the container
    {"event": "stage", "name", "cached", "files": {name: digest}}
    {"event": "published", "folder"}
    {"event": "failed", "stage", "message", "advice", "exit_status"}
"""

from __future__ import annotations

import json
import locale
import os
import signal
import socket
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertir import pipeline
from bertir.builder import Builder, Layout
from bertir.container_step import ContainerStep
from bertir.errors import BertirError
from bertir.fetch import Fetcher
from bertir.interruption import Interrupted, end_with_parent, interruptions
from bertir.local_checkpoint import Options, find_checkpoint
from bertir.progress import Progress
from bertir.report import Request
from bertir.store import Store
from bertir.store_folder import default_root
from bertir.surroundings import Surroundings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from bertir.derivation import Derivation, Outcome, Realised

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, kw_only=True)
class Order:
    """What to rebuild.

    Args:
        output: the folder to publish under.
        image: assemble the image too.
    """

    request: Request
    checkpoint: Options | None
    output: str
    image: bool
    surroundings: Surroundings

    def to_json(self) -> dict[str, Any]:
        checkpoint = None
        if self.checkpoint:
            given = asdict(self.checkpoint)
            checkpoint = {
                name: str(value) if isinstance(value, Path) else value for name, value in given.items()
            }
        return {
            "request": asdict(self.request),
            "checkpoint": checkpoint,
            "output": self.output,
            "image": self.image,
            "surroundings": self.surroundings.to_json(),
        }

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Order:
        checkpoint = None
        if given := raw["checkpoint"]:
            paths = {
                name: Path(given[name]) if given[name] else None for name in ("vocab_file", "bert_config")
            }
            checkpoint = Options(path=Path(given["path"]), case=given["case"], **paths)
        return cls(
            request=Request(**raw["request"]),
            checkpoint=checkpoint,
            output=raw["output"],
            image=raw["image"],
            surroundings=Surroundings(**raw["surroundings"]),
        )


def tell(event: str, **facts: object) -> None:
    sys.stdout.write(json.dumps({"event": event, **facts}) + "\n")
    sys.stdout.flush()


class Telling(Builder):
    """A builder that tells each stage as soon as it is realised."""

    def realise(
        self, derivation: Derivation, run: Callable[[], Outcome], *, locked: bool = False
    ) -> Realised:
        result = super().realise(derivation, run, locked=locked)
        files = {name: str(blob.digest) for name, blob in result.artifact.files.items()}
        tell("stage", name=derivation.step, cached=result.cached, files=files)
        return result

    def observe(self) -> dict[str, object]:
        """Say what a step sees around it; asked anew, whatever is in the store."""
        program = self.store.add_bytes((self.layout.steps / "observe.py").read_bytes())
        step = ContainerStep(
            name="observe",
            arguments=("/usr/bin/python3", "/step/observe.py", "/out/observed.json"),
            inputs={"/step/observe.py": program},
            outputs=("observed.json",),
        )
        [blob] = self._run(step, self.runtime.provide).artifact.files.values()
        seen = json.loads(self.store.checked(blob, what="what a step sees").read_bytes())
        return {f"container {name}": value for name, value in seen.items()}


def observe(builder: Telling, order: Order) -> dict[str, object]:
    """Say what this process sees around it. Every variation has a witness among these (`vary.py`)."""
    mask = os.umask(0)
    os.umask(mask)
    output = Path(order.output)
    return {
        "host umask": f"{mask:03o}",
        "host zone": time.strftime("%z", time.localtime(0)),
        "host locale": locale.setlocale(locale.LC_CTYPE),
        "host clock": time.gmtime().tm_year,
        "host home": os.environ.get("HOME"),
        "host name": socket.gethostname(),
        "host checkout": str(ROOT),
        "host store": str(builder.store.root),
        "host device": ROOT.stat().st_dev,
        "host cpus": len(os.sched_getaffinity(0)),
        "host noise": os.environ.get("NOISE"),
        "host hash": hash("bertir"),
        "host user": os.geteuid(),
        "host output": sorted(str(path.relative_to(output)) for path in output.rglob("*")),
        "host engine": builder.engine.facts().name,
    }


def rebuild(builder: Telling, order: Order) -> None:
    """Build anew, telling each stage.

    Raises:
        BertirError: one of its kinds.
    """
    tell("observed", facts=observe(builder, order))
    if order.image:
        image = builder.assemble_anew()
        builder.store.add_bytes(image.config, what="the image's configuration")
        files = {f"{layer.name}.tar": str(layer.digest) for layer in image.layers}
        tell("stage", name="image", cached=False, files={**files, "image ID": str(image.id)})
    tell("observed", facts=builder.observe())
    local = find_checkpoint(order.checkpoint) if order.checkpoint else None
    _, published = pipeline.build_ir(builder, order.request, Path(order.output), local)
    tell("published", folder=str(published.folder))


def main() -> int:
    # If whoever asked is killed, nobody wants this any more.
    end_with_parent(signal.SIGTERM)
    locale.setlocale(locale.LC_ALL, "")
    order = Order.from_json(json.load(sys.stdin))
    environment = dict(os.environ)
    layout = Layout(root=ROOT, models=Path(environment.get("BERTIR_MODELS") or ROOT / "models.toml"))
    progress = Progress(stream=sys.stderr)
    try:
        with interruptions():
            store = Store(default_root(environment), paranoid=True)
            fetcher = Fetcher(store=store, environment=environment, progress=progress, offline=True)
            with Telling(
                layout=layout,
                store=store,
                fetcher=fetcher,
                environment=environment,
                progress=progress,
                surroundings=order.surroundings,
            ) as builder:
                rebuild(builder, order)
    except Interrupted as error:
        return error.exit_status
    except BertirError as error:
        tell("failed", message=str(error), advice=error.advice, exit_status=error.exit_status)
        return error.exit_status
    except OSError as error:
        where = f"{error.filename}: " if error.filename is not None else ""
        tell("failed", message=f"{where}{error.strerror or error}", advice="", exit_status=1)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The contenders: each is a way from a checkpoint to IR, or a part of it, run once a round."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks import optimum
from benchmarks.documented import OUTPUT, freeze_command, mo_command
from benchmarks.patched import change_comment
from benchmarks.runs import HOST, Run, commands, steps_of
from benchmarks.shapes import SEQ_LEN
from benchmarks.workplace import FROZEN, FailedError, fresh_store, report_of, successful

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from benchmarks.measure import Ended
    from benchmarks.workplace import Ground

IN_TURN = "1G"  # of memory: less than a build's steps take beside one another, of any shape
# Without `input`: convert_model refuses to cut a graph, and finds the iterator's outputs by itself.
_CONVERT = f"""
import openvino
model = openvino.convert_model("/frozen/{FROZEN}")
openvino.save_model(model, "/out/model.xml", compress_to_fp16=True)
"""
# By a program of its own, so that its memory and its traffic are measured as every other's.
_FLOOR = """
import hashlib, pathlib, sys
target, written, *read = sys.argv[1:]
for name in read:
    with open(name, "rb") as file:
        hashlib.file_digest(file, "sha256")
data = bytes(1 << 20)
digest, left = hashlib.sha256(), int(written)
with open(target, "wb") as file:
    while left:
        chunk = data[:left]
        file.write(chunk)
        digest.update(chunk)
        left -= len(chunk)
"""


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One way, and how often it is run.

    Args:
        times: repetitions of a whole run of the suite; a quick one has one of each.
    """

    name: str
    title: str
    run: Callable[[Ground], Run]
    times: int


def documented(ground: Ground) -> Run:
    """Freeze and convert by hand, with `--output` added, without which today's frontend fails."""
    return _by_hand(ground, f"--output={OUTPUT}")


def documented_legacy(ground: Ground) -> Run:
    """Freeze and convert by hand, with the frontend that takes the line as it is written."""
    return _by_hand(ground, "--use_legacy_frontend")


def _by_hand(ground: Ground, option: str) -> Run:
    place = ground.place
    # The documented commands run where the source lies, and leave the graph there.
    work = place.empty_folder("by-hand")
    shutil.copytree(ground.documented, work, dirs_exist_ok=True)
    mounts = {ground.checkpoint: "/checkpoint:ro", work: "/work"}
    frozen = place.in_container("freeze", freeze_command(SEQ_LEN), mounts=mounts, folder="/work")
    if not (work / FROZEN).is_file():
        raise FailedError(f"run_classifier.py wrote no {FROZEN}: {frozen.errors[-400:]}")
    converted = place.in_container("mo", mo_command(FROZEN, option), mounts=mounts, folder="/work")
    _require(work / FROZEN.replace(".pb", ".xml"), converted)
    return commands(("freeze", frozen), ("mo", converted))


def cold(ground: Ground) -> Run:
    """Build from TensorFlow's checkpoint in a store that has no record of any step."""
    return _cold(ground, ground.checkpoint)


def cold_in_turn(ground: Ground) -> Run:
    """Build so too, with less memory than steps beside one another may take: they run one after another."""
    return _cold_beside(ground, ground.checkpoint, f"--memory={IN_TURN}")


def cold_hugging_face(ground: Ground) -> Run:
    """Build from the Hugging Face directory, which is imported first."""
    return _cold_beside(ground, ground.hugging_face)


def _cold_beside(ground: Ground, checkpoint: Path, *options: str) -> Run:
    """Build in a store of its own, which isn't what other contenders build on."""
    kept = ground.store
    try:
        return _cold(ground, checkpoint, *options)
    finally:
        ground.store = kept


def _cold(ground: Ground, checkpoint: Path, *options: str) -> Run:
    # What a user of bertir has after a build of another checkpoint, but for the image's layers, which the engine has.
    store = ground.place.folder / f"{ground.subject.name}-store-{checkpoint.name}{''.join(options)}"
    for left in (store, output_of(store)):
        shutil.rmtree(left, ignore_errors=True)
    fresh_store(ground, store)
    ground.store = store
    return _build(ground, *options, checkpoint=checkpoint)


def warm(ground: Ground) -> Run:
    """Build once more, with nothing to do."""
    run = _build(ground)
    if ran := [step.name for step in run.steps if step.name != HOST]:
        raise FailedError(f"there was something to do: {', '.join(ran)}")
    return run


def precision_changed(ground: Ground) -> Run:
    """Build with the other precision of the weights."""
    return _build(ground, "--precision=fp32")


def patch_changed(ground: Ground) -> Run:
    """Build after a comment of a patch was changed and the source locked anew, which isn't measured."""
    store = _store_of(ground)
    ground.patches += 1
    change_comment(
        ground.checkout / "patches", f"{ground.place.token}, {ground.subject.name} {ground.patches}"
    )
    ground.place.invoke("lock", "--only=source", store=store, root=ground.checkout)
    # Published elsewhere: the next build with nothing to do is of the other source, and has nothing to publish either.
    output = ground.place.folder / f"{ground.subject.name}-patched"
    return _build(ground, root=ground.checkout, output=output)


def _store_of(ground: Ground) -> Path:
    if ground.store is None:
        raise FailedError("there was no cold build before")
    return ground.store


def output_of(store: Path) -> Path:
    """Give where the builds of a store are published."""
    return store.with_name(f"{store.name}-output")


def _build(
    ground: Ground,
    *options: str,
    checkpoint: Path | None = None,
    root: Path | None = None,
    output: Path | None = None,
) -> Run:
    store = _store_of(ground)
    ended = ground.place.invoke(
        "build-ir",
        f"--checkpoint={checkpoint or ground.checkpoint}",
        f"--output={output or output_of(store)}",
        "--format=json",
        *options,
        store=store,
        root=root,
    )
    told = report_of(ended, root or ground.place.root)
    ran = [step["name"] for step in json.loads(ended.output)["steps"] if not step["cached"]]
    seconds = {step["name"]: step["facts"].get("seconds") for step in told["steps"]}
    return Run(cost=ended.total, steps=steps_of(ended, [(name, seconds.get(name)) for name in ran]))


def mo_alone(ground: Ground) -> Run:
    """Convert the graph that bertir froze, by the command `mo`."""
    out = ground.place.empty_folder("mo")
    command = mo_command(
        f"/frozen/{FROZEN}", f"--output={OUTPUT}", "--compress_to_fp16=True", "--output_dir=/out"
    )
    mounts = {ground.frozen: "/frozen:ro", out: "/out"}
    ended = ground.place.in_container("mo", command, mounts=mounts, folder="/out")
    _require(out / FROZEN.replace(".pb", ".xml"), ended)
    return Run(cost=ended.total)


def convert_model(ground: Ground) -> Run:
    """Convert the same graph by OpenVINO's `convert_model` and `save_model`."""
    out = ground.place.empty_folder("convert")
    mounts = {ground.frozen: "/frozen:ro", out: "/out"}
    ended = ground.place.in_container(
        "convert", ["/usr/bin/python3", "-c", _CONVERT], mounts=mounts, folder="/out"
    )
    _require(out / "model.xml", ended)
    return Run(cost=ended.total)


def optimum_cli(programs: Path) -> Callable[[Ground], Run]:
    """Export the Hugging Face directory by optimum-cli."""

    def export(ground: Ground) -> Run:
        out = ground.place.empty_folder("optimum")
        command = optimum.export_command(programs, ground.hugging_face, out)
        # A home of its own, with a file by which OpenVINO's telemetry is told to send nothing.
        home = ground.place.empty_folder("home")
        (home / "intel").mkdir()
        (home / "intel" / "openvino_telemetry").write_text("0", encoding="ascii")
        alone = {"HOME": str(home), "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
        ended = ground.place.command(*command, folder=ground.place.folder, environment=alone)
        _require(out / "openvino_model.xml", ended)
        return Run(cost=ended.total)

    return export


def floor(ground: Ground) -> Run:
    """Read the checkpoint, write as many bytes as the IR has, and hash both."""
    out = ground.place.empty_folder("floor")
    read = sorted(ground.checkpoint.iterdir())
    size = sum(path.stat().st_size for path in ground.ir)
    command = [sys.executable, "-c", _FLOOR, str(out / "ir"), str(size), *(str(path) for path in read)]
    return Run(cost=ground.place.command(*command, folder=ground.place.folder).total)


def _require(path: Path, ended: Ended) -> None:
    successful(ended, path.name)
    if not path.is_file():
        raise FailedError(f"it wrote no {path.name}: {ended.errors[-400:]}")


def contenders(programs: Path | None, reason: str) -> list[Contender]:
    """Give all of them, in the order of a round.

    Args:
        programs: of optimum-cli's virtualenv; None if there is none.
        reason: why there is none.
    """

    def missing(_: Ground) -> Run:
        raise FailedError(reason)

    return [
        Contender(name="documented", title="documented commands, `--output` added", run=documented, times=3),
        Contender(
            name="documented-legacy",
            title="documented commands, `--use_legacy_frontend`",
            run=documented_legacy,
            times=1,
        ),
        Contender(name="cold", title="bertir, cold store", run=cold, times=3),
        Contender(
            name="cold-in-turn",
            title=f"bertir, cold store, `--memory {IN_TURN}`: steps one after another",
            run=cold_in_turn,
            times=3,
        ),
        Contender(name="mo", title="`mo` alone, of a frozen graph", run=mo_alone, times=3),
        Contender(name="warm", title="bertir, nothing to do", run=warm, times=7),
        Contender(
            name="convert-model",
            title="`openvino.convert_model` alone, of a frozen graph",
            run=convert_model,
            times=3,
        ),
        Contender(name="precision", title="bertir, precision changed", run=precision_changed, times=3),
        Contender(
            name="optimum",
            title="`optimum-cli export openvino`",
            run=optimum_cli(programs) if programs else missing,
            times=3,
        ),
        Contender(name="patch", title="bertir, a patch changed", run=patch_changed, times=3),
        Contender(
            name="cold-hugging-face",
            title="bertir, cold store, from Hugging Face's format",
            run=cold_hugging_face,
            times=3,
        ),
        Contender(name="floor", title="the floor: read, write, hash", run=floor, times=7),
    ]

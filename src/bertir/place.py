"""What the first difference belongs to: looked up in the container, as a graph may be a stranger's program."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

from bertir.compare import PUBLISHED, VOLATILE, first_offset, settled
from bertir.container import Command
from bertir.errors import BertirError
from bertir.store import Store

if TYPE_CHECKING:
    from pathlib import Path

    from bertir.builder import Builder
    from bertir.compare import Difference
    from bertir.launch import Rebuilt

DIFFOSCOPE_SECONDS = 120
# Of larger files diffoscope makes a hexadecimal dump first, and compares that for hours.
DIFFOSCOPE_BYTES = 64 << 20
MOST_PLACE = 400


def located(builder: Builder, difference: Difference, baseline: Rebuilt, rebuilt: Rebuilt) -> Difference:
    """Add to a difference where in the file it begins, and what lies there.

    Raises:
        EngineError, StepError: the container that looks can't be run.
    """
    if difference.expected is None or difference.found is None:
        return difference
    with builder.store.temporary_folder() as scratch:
        left = _files(baseline, difference, scratch / "left")
        right = _files(rebuilt, difference, scratch / "right")
        offset = first_offset(left[difference.file], right[difference.file])
        if offset is None:  # the digest of what is no file
            return difference
        (scratch / "step").mkdir()
        command = Command(
            name="locate",
            arguments=(
                "/usr/bin/python3",
                "/step/locate.py",
                difference.file,
                str(offset),
                "/out/place.json",
            ),
            inputs={"/step/locate.py": builder.layout.steps / "locate.py"}
            | {f"/in/left/{name}": path for name, path in left.items()}
            | {f"/in/right/{name}": path for name, path in right.items()},
            outputs=("place.json",),
        )
        with builder.engine.run(builder.runtime.provide(), command, scratch / "step") as finished:
            place = str(json.loads(finished.outputs["place.json"].read())["place"])
    # A name in a stranger's graph may be anything; what reaches the terminal is plain.
    plain = "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in place)
    return replace(difference, offset=offset, place=plain[:MOST_PLACE])


def diffoscope(
    difference: Difference, baseline: Rebuilt, rebuilt: Rebuilt, report: Path, scratch: Path
) -> bool:
    """Write diffoscope's report of a difference, if it is installed and the files aren't too large for it."""
    if shutil.which("diffoscope") is None or difference.expected is None or difference.found is None:
        return False
    pair = []
    for side, build in (("left", baseline), ("right", rebuilt)):
        path = _files(build, difference, scratch / side)[difference.file]
        if path.stat().st_size > DIFFOSCOPE_BYTES:
            return False
        # Under its own name, by which diffoscope knows what it is.
        named = scratch / f"{side}-named" / difference.file
        named.parent.mkdir()
        shutil.copyfile(path, named)
        pair.append(str(named))
    try:
        subprocess.run(
            ["diffoscope", "--text", str(report), "--max-text-report-size", "1000000", *pair],
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=DIFFOSCOPE_SECONDS,
        )
    except (subprocess.TimeoutExpired, OSError):
        return False
    return report.exists()


def _files(build: Rebuilt, difference: Difference, folder: Path) -> dict[str, Path]:
    """Give the files of the stage that differs, by name; of published ones without what is volatile."""
    stage = build.stage(difference.stage)
    if stage is None:
        raise BertirError(f"the baseline has no stage {difference.stage}")
    if difference.stage != PUBLISHED:
        store = Store(build.place.store)
        return {name: store.path(digest) for name, digest in stage.files.items()}
    if build.folder is None:
        raise BertirError("nothing was published")
    files = {name: build.folder / name for name in stage.files}
    folder.mkdir(exist_ok=True)
    for name in stage.files.keys() & VOLATILE.keys():
        (folder / name).write_bytes(settled(name, files[name].read_bytes()))
        files[name] = folder / name
    return files

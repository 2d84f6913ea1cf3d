"""Compile Python sources for the image: `precompile.py SOURCES.tar PYC.tar`.

SOURCES.tar holds `.py` files under the paths that they have in the image (without the leading slash), in order.
PYC.tar gets a `__pycache__/….pyc` for each, with that path in its code objects, so that tracebacks are right, and
with an unchecked hash (PEP 552), so that neither times nor the source are looked at when it is imported.
A file that this interpreter can't compile (Python 2, templates) is left out and named on standard error.

The bytes must be the same on every machine. Which objects `marshal` takes for shared depends on what else the
process holds (bpo-34093). So the list is cut into parts of a fixed size, whatever the number of processors, and
each part is compiled by a new interpreter that has done nothing else.
"""

from __future__ import annotations

import importlib.util
import json
import marshal
import os
import subprocess
import sys
import tarfile
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

FILES_PER_PART = 250
UNCHECKED_HASH = (0b01).to_bytes(4, "little")

SourceFile = tuple[str, int, int]  # name, offset in SOURCES.tar, size


def main(arguments: list[str]) -> int:
    match arguments:
        case [sources, "--part"]:
            write_part(Path(sources), json.load(sys.stdin), sys.stdout.buffer)
        case [sources, target]:
            write_all(Path(sources), Path(target))
        case _:
            print("usage: precompile.py SOURCES.tar PYC.tar", file=sys.stderr)
            return 2
    return 0


def write_all(sources: Path, target: Path) -> None:
    with tarfile.open(sources, "r:") as tar:
        files = [(member.name, member.offset_data, member.size) for member in tar if member.isreg()]
    parts = [files[first : first + FILES_PER_PART] for first in range(0, len(files), FILES_PER_PART)]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool, target.open("wb") as file:
        for part in pool.map(lambda part: run_part(sources, part), parts):
            file.write(part)
        file.write(bytes(2 * tarfile.BLOCKSIZE))


def run_part(sources: Path, files: list[SourceFile]) -> bytes:
    # -I: nothing of the environment or the working folder; -S: nothing of site-packages.
    command = [sys.executable, "-I", "-S", __file__, str(sources), "--part"]
    run = subprocess.run(command, input=json.dumps(files).encode(), stdout=subprocess.PIPE, check=True)
    return run.stdout


def write_part(sources: Path, files: list[SourceFile], sink: BinaryIO) -> None:
    """Write a tar without the end mark, so that parts may stand one after another."""
    warnings.simplefilter("ignore")  # invalid escapes and the like, in other people's code
    with sources.open("rb") as tar:
        for name, offset, size in files:
            tar.seek(offset)
            try:
                data = compiled(tar.read(size), name)
            except (SyntaxError, ValueError, RecursionError) as error:
                print(f"left out: /{name}: {type(error).__name__}", file=sys.stderr)
                continue
            header = tarfile.TarInfo(importlib.util.cache_from_source(name))
            header.size = len(data)
            sink.write(header.tobuf(tarfile.PAX_FORMAT))
            sink.write(data + bytes(-len(data) % tarfile.BLOCKSIZE))


def compiled(source: bytes, name: str) -> bytes:
    code = compile(source, f"/{name}", "exec", dont_inherit=True, optimize=0)
    source_hash = importlib.util.source_hash(source)
    return importlib.util.MAGIC_NUMBER + UNCHECKED_HASH + source_hash + marshal.dumps(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

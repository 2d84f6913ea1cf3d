"""Runs in the container: has TensorFlow run operations that no published graph may have, and writes down what came of each.

run_anyway.py HOST_FILE: a file that lies on the host and isn't mounted. /out/tried.json gets name → `done: …` or `refused: …`.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tensorflow.compat.v1 as tf

if TYPE_CHECKING:
    from collections.abc import Callable


def run(make: Callable[[], Any]) -> str:
    with tf.Graph().as_default(), tf.Session() as session:
        try:
            value = session.run(make())
        except tf.errors.OpError as error:
            return f"refused: {error.message}"
    return f"done: {value!r}"


def read(name: str) -> str:
    return run(lambda: tf.raw_ops.ReadFile(filename=name))


def write(name: str) -> str:
    return run(lambda: tf.raw_ops.WriteFile(filename=name, contents="x"))


def connect(host: str, port: int) -> str:
    def function() -> str:
        with socket.create_connection((host, port), timeout=2):
            return "connected"

    return run(lambda: tf.py_function(function, [], tf.string))


def dataset() -> Any:
    rows = tf.data.TFRecordDataset("http://127.0.0.1:9/rows")
    return tf.data.make_one_shot_iterator(rows).get_next()


def main(host_file: str) -> None:
    tf.disable_eager_execution()
    tried = {
        "read shadow": read("/etc/shadow"),
        "read environ": read("/proc/1/environ"),
        "read host": read(host_file),
        "read socket": read("/var/run/docker.sock"),
        "read http": read("http://127.0.0.1:9/file"),
        "read rows": run(dataset),
        "list host": run(lambda: tf.raw_ops.MatchingFiles(pattern=f"{Path(host_file).parent}/*")),
        "write usr": write("/usr/planted"),
        "write root": write("/planted"),
        "write input": write("/in/secret"),
        "write new input": write("/in/planted"),
        "write program": write("/step/program.py"),
        "write above": write("/out/../planted"),
        "write host": write(f"{host_file}-planted"),
        "write out": write("/out/planted"),
        "delete inputs": run(
            lambda: tf.raw_ops.MergeV2Checkpoints(
                checkpoint_prefixes=["/in/secret"], destination_prefix="/out/merged", delete_old_dirs=True
            )
        ),
        "python of another process": run(
            lambda: tf.raw_ops.PyFunc(input=[], token="pyfunc_7", Tout=[tf.string])  # noqa: S106 - a name
        ),
        "python writes": run(
            lambda: tf.py_function(lambda: Path("/usr/planted").write_text("x"), [], tf.int64)
        ),
        "python links": run(
            lambda: tf.py_function(lambda: os.symlink("/etc", "/out/link"), [], [])  # noqa: PTH211 - gives something
        ),
        "connect loopback": connect("127.0.0.1", 22),
        "connect bridge": connect("172.17.0.1", 22),
    }
    Path("/out/tried.json").write_text(json.dumps(tried), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])

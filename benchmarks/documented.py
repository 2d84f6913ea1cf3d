"""The recipe of OpenVINO's documentation by hand: its insertion, and the least that makes it run on TensorFlow 2.15."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from bertir.errors import SourceError
from bertir.task_data import mrpc_dev_tsv

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from bertir.upstream import Patch

OUTPUT = "bert/pooler/dense/Tanh"
# The documented deletion, and what TensorFlow 2 needs. Not 0002, which is bertir's insertion, nor what comes after 0009.
NEEDED = ("0001", "0003", "0004", "0005", "0006", "0007", "0008", "0009")
# After the call of create_model in model_fn, as documented; before this line it is after that one.
_BEFORE = "    tvars = tf.trainable_variables()\n    initialized_variable_names = {}\n"
# Written from the documentation's description, in TensorFlow 1's names.
INSERTION = f"""\
    import sys
    from tensorflow.python.framework import graph_io
    with tf.Session(graph=tf.get_default_graph()) as sess:
      (assignment_map, _) = modeling.get_assignment_map_from_checkpoint(
          tf.trainable_variables(), init_checkpoint)
      tf.train.init_from_checkpoint(init_checkpoint, assignment_map)
      sess.run(tf.global_variables_initializer())
      frozen = tf.graph_util.convert_variables_to_constants(
          sess, sess.graph_def, ["{OUTPUT}"])
      graph_io.write_graph(frozen, "./", "inference_graph.pb", as_text=False)
    sys.exit(0)

"""
MO_INPUT = ",".join(f"IteratorGetNext:{number}{{i32}}[1 128]" for number in (0, 1, 4))


def write_source(folder: Path, pristine: Mapping[str, bytes], series: Sequence[Patch]) -> None:
    """Write the source as somebody would have it who follows the documentation, and two rows to read.

    Raises:
        SourceError: a patch is gone, or doesn't apply without those before it.
    """
    folder.mkdir()
    for name, data in pristine.items():
        (folder / name).write_bytes(data)
    by_number = {patch.name[:4]: patch for patch in series}
    for number in NEEDED:
        if number not in by_number:
            raise SourceError(f"there is no patch {number}, which the documented source needs")
        _apply(folder, by_number[number])
    path = folder / "run_classifier.py"
    path.write_text(inserted(path.read_text(encoding="utf-8")), encoding="utf-8")
    (folder / "task").mkdir()
    (folder / "task" / "dev.tsv").write_bytes(mrpc_dev_tsv())


def inserted(text: str) -> str:
    """Give run_classifier.py with the insertion.

    Raises:
        SourceError: it has no one place for it.
    """
    if text.count(_BEFORE) != 1:
        raise SourceError(
            "run_classifier.py isn't the one that the documentation's insertion was written for"
        )
    return text.replace(_BEFORE, INSERTION + _BEFORE)


def freeze_command(sequence: int) -> list[str]:
    """Give the documented line, run in the folder of the source, with the checkpoint in /checkpoint."""
    return [
        "/usr/bin/python3",
        "run_classifier.py",
        "--task_name=MRPC",
        "--do_eval=true",
        "--data_dir=task",
        "--vocab_file=/checkpoint/vocab.txt",
        "--bert_config_file=/checkpoint/bert_config.json",
        "--init_checkpoint=/checkpoint/bert_model.ckpt",
        f"--max_seq_length={sequence}",
        "--output_dir=output",
    ]


def mo_command(graph: str, *options: str) -> list[str]:
    return ["mo", f"--input_model={graph}", f"--input={MO_INPUT}", *options]


def _apply(folder: Path, patch: Patch) -> None:
    # No repository around the folder has a say.
    environment = dict(os.environ) | {"GIT_CEILING_DIRECTORIES": str(folder.parent), "LC_ALL": "C"}
    done = subprocess.run(
        ["git", "apply", str(patch.path.resolve())],
        cwd=folder,
        env=environment,
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise SourceError(f"{patch.name} doesn't apply to the documented source: {done.stderr.strip()}")

"""Run BERT in TensorFlow on real sentences, and write what it gave for each: what an IR is then held against.

Runs inside the container and writes one file of arrays (.npz), without OpenVINO. Nothing of the freeze or the conversion has a
part: the model is built from google-research/bert's source and fed with the checkpoint, or it is the published graph with its
checkpoint restored. A refusal is exit status 1, one message on stderr whose lines start with `bertir-step: `, and no file.

The model that is built takes any length, and is run on the rows **without their padding**, but for what makes those of like length
as long as the longest of them, which has none. A token that is masked gets a weight of exp(-10000), which float32 has as 0: what
BERT says of a sentence doesn't depend on how much padding follows it, and the IR, which gets the padding, has to say the same.
The published graph is run on the rows as they are: it may take no other length.

For each length, `LENGTH/` before the names:

    columns     int32 [3, rows, tokens]: input ids, input mask, segment ids
    outputs     float32 [rows, …]: what the head gives; with --rounded, by weights that were rounded to fp16
    exact       with --rounded: the same by the weights as they are, of the rows in which two sentences are paired
    refused     in place of outputs: why TensorFlow can't be run at this length

and beside them `paired`, bool [rows], which rows hold two sentences, and `sentences`, how many there were. Of the length that is
asked for there is one row more, the last, which isn't in `paired` and isn't compared with the IR: the twin of row `twin`, an
int, with other words (rows.py's `with_other_words`), by which it is seen whether the model reads any. Of a vocabulary without
words there is neither.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arguments import numbers, positive
from model import INPUTS, Model
from published import restored_session
from rows import SHORTEST, encode_all, load_tokenizer, read_sentences, texts, with_other_words
from said import fail, one_line
from said import run as run_program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    import numpy.typing as npt

    Ids = npt.NDArray[np.int32]
    Vectors = npt.NDArray[np.float32]
    # input_ids, input_mask, segment_ids (each [batch, sequence]) → the head's output [batch, …]
    Run = Callable[[list[Ids]], Vectors]

GROUP = 16  # rows that TensorFlow gets at once: the fewest runs within a bearable memory


class Refused(Exception):  # noqa: N818 - it isn't an error where a length is only tried
    """The graph can't be run at a length; says why."""


@dataclass(frozen=True, kw_only=True)
class Side:
    """A session to run rows in.

    Args:
        name: of what it gives.
        inputs: names of the tensors of input ids, mask and segments.
        output: name of the head's operation.
        fed: weights that it is fed with, beside the rows.
        any_length: whether it takes rows of any length.
    """

    name: str
    session: Any
    inputs: list[str]
    output: str
    fed: dict[str, Vectors] = field(default_factory=dict)
    any_length: bool = False

    def run(self, columns: list[Ids]) -> Vectors:
        """The head's outputs.

        Raises:
            Refused: the graph takes no such shape.
        """
        import tensorflow.compat.v1 as tf

        try:
            result: Vectors = self.session.run(
                f"{self.output}:0", self.fed | dict(zip(self.inputs, columns, strict=True))
            )
        except (tf.errors.OpError, ValueError) as error:
            raise Refused(f"TensorFlow: {one_line(error)}") from error
        return result


def run_all(run: Run, columns: list[Ids], batch: int) -> Vectors:
    """The outputs of all rows, in groups of `batch`; the last group is filled with the first rows again."""
    import numpy as np

    rows = len(columns[0])
    filled = np.arange(-(-rows // batch) * batch) % rows
    groups = filled.reshape(-1, batch)
    return np.concatenate([run([column[group] for column in columns]) for group in groups])


def run_without_padding(run: Run, columns: list[Ids]) -> Vectors:
    """The outputs of all rows, those of like length run together, no longer than the longest of them.

    What is given for each token is 0 where a row has padding.
    """
    import numpy as np

    _, mask, _ = columns
    length = mask.shape[1]

    def outputs(group: list[int]) -> Vectors:
        longest = int(mask[group].sum(axis=1).max())
        found = run([column[group, :longest] for column in columns])
        if found.ndim == 2:  # noqa: PLR2004 - [rows, numbers]
            return found
        return np.pad(
            found * mask[group, :longest, None].astype(found.dtype), ((0, 0), (0, length - longest), (0, 0))
        )

    groups = alike(mask.sum(axis=1).tolist())
    ordered: Vectors = np.concatenate([outputs(group) for group in groups])[
        np.argsort(np.concatenate(groups))
    ]
    return ordered


def alike(lengths: list[int]) -> list[list[int]]:
    """The places of rows of which none is more than twice as long as another, `GROUP` at most."""
    groups: dict[int, list[int]] = {}
    for place, length in enumerate(lengths):
        groups.setdefault((length - 1).bit_length(), []).append(place)
    return [group[at : at + GROUP] for group in groups.values() for at in range(0, len(group), GROUP)]


def sides(arguments: argparse.Namespace) -> Iterator[Side]:
    """What runs the rows: with the weights as they are, and then rounded. Its session is open until the next is asked for."""
    wanted = [("exact", False), ("outputs", True)] if arguments.rounded else [("outputs", False)]
    if arguments.meta:
        names = [*arguments.inputs, arguments.output_node]
        for name, rounded in wanted:
            with restored_session(
                arguments.meta, arguments.checkpoint, names, arguments.output_node, rounded=rounded
            ) as session:
                yield Side(name=name, session=session, inputs=arguments.inputs, output=arguments.output_node)
        return
    model = Model(
        source=arguments.source,
        config=arguments.config,
        checkpoint=arguments.checkpoint,
        head=arguments.head,
    )
    session = model.session()
    for name, rounded in wanted:
        if rounded and model.round():
            session.close()
            session = model.session()
        yield Side(
            name=name,
            session=session,
            inputs=[f"{name}:0" for name in INPUTS],
            output=model.output,
            fed=model.weights,
            any_length=True,
        )


def measure(arguments: argparse.Namespace) -> dict[str, npt.NDArray[Any]]:
    """Encode the rows of every length, and run TensorFlow on them."""
    import numpy as np

    sentences = read_sentences(arguments.sentences)
    tokenizer = load_tokenizer(arguments.source, arguments.vocab, lower_case=arguments.lower_case == "true")
    rows = texts(sentences)
    paired = np.array([second is not None for _, second in rows])
    arrays: dict[str, npt.NDArray[Any]] = {"paired": paired, "sentences": np.array(len(sentences))}
    for length in (arguments.seq_len, *arguments.try_lengths):
        # Of another length two rows are enough: see verify.py's `measure`.
        some = rows if length == arguments.seq_len else rows[: max(2, arguments.batch)]
        arrays[f"{length}/columns"] = encode_all(tokenizer, some, length)
    asked = arrays[f"{arguments.seq_len}/columns"]
    if found := with_other_words(tokenizer, asked):
        row, twin = found
        arrays["twin"] = np.array(row)
        arrays[f"{arguments.seq_len}/columns"] = np.concatenate([asked, twin], axis=1)
    for side in sides(arguments):
        for length in (arguments.seq_len, *arguments.try_lengths):
            columns = arrays[f"{length}/columns"]
            if side.name == "exact":
                compared = columns[:, : len(paired)]
                columns = compared[:, paired[: compared.shape[1]]]
            try:
                arrays[f"{length}/{side.name}"] = outputs_of(side, list(columns), arguments)
            except Refused as error:
                arrays[f"{length}/refused"] = np.array(str(error))
    return arrays


def outputs_of(side: Side, columns: list[Ids], arguments: argparse.Namespace) -> Vectors:
    """The head's outputs of all rows. Raises `Refused` as `Side.run`."""
    if side.any_length:
        return run_without_padding(side.run, columns)
    rows = len(columns[0])
    return run_all(side.run, columns, arguments.batch if arguments.fixed_batch else min(GROUP, rows))[:rows]


def write(path: Path, arrays: dict[str, npt.NDArray[Any]]) -> None:
    import numpy as np

    partial = path.with_name(f"{path.name}.partial")
    with partial.open("xb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    partial.replace(path)


def fit_to_graph(arguments: argparse.Namespace) -> None:
    """Add what examine.py found of a published graph: its names, and the sizes that it takes no others than."""
    arguments.fixed_batch = False
    if not arguments.graph:
        return
    graph = json.loads(arguments.graph.read_text(encoding="utf-8"))
    arguments.inputs, arguments.output_node = graph["inputs"], graph["output"]
    if graph["batch"]:
        arguments.batch, arguments.fixed_batch = graph["batch"], True
    if graph["sequence"]:
        if graph["sequence"] < SHORTEST:
            fail(
                f"the graph takes {graph['sequence']} tokens, which hold no sentence pair; at least {SHORTEST} do."
            )
        arguments.seq_len, arguments.try_lengths = graph["sequence"], []


def length(text: str) -> int:
    number = positive(text)
    if number < SHORTEST:
        raise argparse.ArgumentTypeError(f"{number} holds no sentence pair, at least {SHORTEST} does")
    return number


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", type=Path, required=True, help="the prefix of .index and .data")
    parser.add_argument("--config", type=Path, help="bert_config.json: the model is built from the source")
    parser.add_argument("--head", choices=("pooled", "sequence", "classifier"), help="with --config")
    parser.add_argument("--meta", type=Path, help="bert_model.ckpt.meta: the published graph is run, instead")
    parser.add_argument(
        "--graph", type=Path, help="with --meta: what examine.py wrote of it, its names and fixed sizes"
    )
    parser.add_argument("--vocab", type=Path, required=True, help="vocab.txt")
    parser.add_argument("--source", type=Path, required=True, help="directory of the patched source")
    parser.add_argument("--sentences", type=Path, required=True, help="text file, one sentence a line")
    parser.add_argument(
        "--batch", type=positive, required=True, help="rows, as the IR is made for, if the graph takes any"
    )
    parser.add_argument("--seq-len", type=length, required=True, help="tokens a row, likewise")
    parser.add_argument("--try-lengths", type=numbers, default=[], help="others that are tried")
    parser.add_argument("--lower-case", choices=("true", "false"), required=True)
    parser.add_argument("--rounded", action="store_true", help="with weights rounded to fp16 too")
    parser.add_argument("--reference", type=Path, required=True, help="file to write")
    arguments = parser.parse_args()
    anew = (arguments.config, arguments.head)
    published = (arguments.meta, arguments.graph)
    if not any(all(one) and not any(other) for one, other in ((anew, published), (published, anew))):
        parser.error("give --config and --head, or --meta and --graph")
    fit_to_graph(arguments)
    write(arguments.reference, measure(arguments))


if __name__ == "__main__":
    run_program(main, "numpy", "lazy_tensorflow", keeps_memory=True)

"""Compare an OpenVINO IR with what TensorFlow gave for the same rows (reference.py), in several shapes.

Runs inside the container, without TensorFlow, and writes one JSON report. It measures and doesn't decide: the host holds
the figures against its thresholds. A refusal is exit status 1, one message on stderr whose lines start with
`bertir-step: `, and no report.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arguments import add_graph, numbers, positive
from said import await_inputs, fail, one_line
from said import run as run_program

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    import numpy.typing as npt

    Ids = npt.NDArray[np.int32]
    Vectors = npt.NDArray[np.float32]
    # input_ids, input_mask, segment_ids (each [batch, sequence]) → the head's output [batch, …]
    Run = Callable[[list[Ids]], Vectors]

REASON_LENGTH = 300
LEAST_PROBABILITY = 1e-30  # its logarithm is finite, and still tells more than a float32's last place
THREADS = 2  # sums are split by threads: a fixed number keeps the figures the same on every machine
FREE = -1  # a dimension that is to take any size


class Refused(Exception):  # noqa: N818 - it isn't an error where a shape is only tried
    """TensorFlow or the IR can't be run in a shape; says who refused, and why."""


def port_names(port: Any) -> set[str]:  # noqa: ANN401
    """Tensor names and the friendly name: conversion keeps a TensorFlow name as either or both."""
    return {*port.get_names(), port.get_node().get_friendly_name()}


def find_port(ports: list[Any], wanted: set[str], file: str) -> Any:  # noqa: ANN401
    """The port with one of these names. Never by position: an IR orders its inputs as it likes."""
    found = [port for port in ports if port_names(port) & wanted]
    if len(found) != 1:
        listing = "; ".join(", ".join(sorted(port_names(port))) for port in ports)
        fail(
            f"{file} has {len(found)} ports named {' or '.join(sorted(wanted))}, expected 1; it has: {listing}."
        )
    return found[0]


def input_names(name: str) -> set[str]:
    """An output of an iterator keeps its number; a placeholder, which has one output, is named without."""
    return {name} if name.startswith("IteratorGetNext:") else {name, name.removesuffix(":0")}


class Ir:
    """The IR on the CPU plugin in f32, which else takes bf16 where the host has it.

    Args:
        unfused: without the kernels that the plugin makes of several operations, attention's among them.
    """

    def __init__(self, path: Path, inputs: list[str], output: str, *, unfused: bool = False) -> None:
        import openvino as ov

        self._core = ov.Core()
        self._settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": THREADS}
        if unfused:
            self._settings["SNIPPETS_MODE"] = "DISABLE"
        self._path = path
        self._inputs = inputs
        self._outputs = {output, f"{output}:0"}
        self._prepared: dict[tuple[int, int], Run] = {}
        try:
            self._model = self._core.read_model(path)
        except RuntimeError as error:
            fail(f"{path.name} cannot be read: {one_line(error)}")

    def signature(self) -> dict[str, list[dict[str, object]]]:
        """Inputs and outputs as model.xml has them; `?` is a free dimension."""

        def describe(port: Any) -> dict[str, object]:  # noqa: ANN401
            return {
                "element_type": port.get_element_type().get_type_name(),
                "names": sorted(port_names(port)),
                "partial_shape": str(port.get_partial_shape()),
            }

        return {
            "inputs": sorted(map(describe, self._model.inputs), key=lambda port: str(port["names"])),
            "outputs": list(map(describe, self._model.outputs)),
        }

    def reshaped(self, batch: int, length: int) -> Any:  # noqa: ANN401 - a Model
        """The model with other sizes of its inputs, inferred through the graph; weights are shared, not copied.

        Raises:
            Refused: some operation doesn't take them, or the output doesn't follow.
        """
        model = self._model.clone()
        ports = [find_port(model.inputs, input_names(name), self._path.name) for name in self._inputs]
        try:
            model.reshape({port: [batch, length] for port in ports})
        except RuntimeError as error:
            raise Refused(f"OpenVINO: {one_line(error)}") from error
        rows = find_port(model.outputs, self._outputs, self._path.name).get_partial_shape()[0]
        if batch != FREE and (rows.is_dynamic or rows.get_length() != batch):
            raise Refused(f"OpenVINO: of {batch} rows of inputs the output has {rows}")
        return model

    def prepare(self, *shapes: tuple[int, int]) -> None:
        """Compile the model for shapes before there is anything to run, all of them at once: OpenVINO does it on one thread each.

        What is amiss with one is said when it is wanted.
        """
        models: dict[tuple[int, int], Any] = {}
        for shape in shapes:
            with contextlib.suppress(Refused):
                models[shape] = self.reshaped(*shape)
        if not models:
            return
        with ThreadPoolExecutor(len(models)) as pool:
            begun = {shape: pool.submit(self._compiled, model) for shape, model in models.items()}
        for shape, run in begun.items():
            with contextlib.suppress(Refused):
                self._prepared[shape] = run.result()

    def compiled(self, batch: int, length: int) -> Run:
        """What runs the model in a shape; as much memory as it takes goes with it.

        Raises:
            Refused: see `reshaped`; or it can't be compiled. What is given raises it too.
        """
        if prepared := self._prepared.pop((batch, length), None):
            return prepared
        return self._compiled(self.reshaped(batch, length))

    def _compiled(self, model: Any) -> Run:  # noqa: ANN401 - a Model
        try:
            compiled = self._core.compile_model(model, "CPU", self._settings)
        except RuntimeError as error:
            raise Refused(f"OpenVINO: {one_line(error)}") from error
        # By number: an inference that was given ports as keys keeps the compiled model for good.
        ports = list(compiled.inputs)
        inputs = [ports.index(find_port(ports, input_names(name), self._path.name)) for name in self._inputs]
        outputs = list(compiled.outputs)
        output = outputs.index(find_port(outputs, self._outputs, self._path.name))

        def run(columns: list[Ids]) -> Vectors:
            try:
                result: Vectors = compiled(dict(zip(inputs, columns, strict=True)))[output].copy()
            except RuntimeError as error:
                raise Refused(f"OpenVINO: {one_line(error)}") from error
            return result

        return run


def figure(number: np.floating[Any]) -> float | None:
    """JSON has no NaN and no infinity."""
    import numpy as np

    return float(number) if np.isfinite(number) else None


def without_padding(outputs: Vectors, mask: Ids, head: str) -> Vectors:
    """The last layer's output with 0 where there is no token, for the sums of both sides alike.

    Nothing reads what a model says there, and nothing was trained on it: of a sound IR of all-MiniLM-L6-v2 it differs
    by twenty times as much as what it says of tokens.
    """
    return outputs * mask[:, :, None] if head == "sequence" else outputs


def comparable(outputs: Vectors, head: str) -> npt.NDArray[np.float64]:
    """[rows, numbers] in float64, so that the comparison adds no error of its own.

    Probabilities are compared as centred logarithms, that is as the logits: a classifier that is sure of itself
    says 0.9999 to all, and an IR that is wrong would too.
    """
    import numpy as np

    rows: npt.NDArray[np.float64] = outputs.reshape(len(outputs), -1).astype(np.float64)
    if head != "classifier":
        return rows
    logarithms = np.log(np.maximum(rows, LEAST_PROBABILITY))  # keeps NaN
    centred: npt.NDArray[np.float64] = logarithms - logarithms.mean(axis=1, keepdims=True)
    return centred


def compare(expected: Vectors, found: Vectors, head: str) -> dict[str, float | None]:
    import numpy as np

    left, right = comparable(expected, head), comparable(found, head)
    difference = np.abs(left - right)
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        cosine = (left * right).sum(axis=1) / norms
    return {
        "max_abs_difference": figure(difference.max()),
        "mean_abs_difference": figure(difference.mean()),
        "min_cosine": figure(cosine.min()),
    }


def discrimination(rows: Rows, head: str) -> float | None:
    """How far apart TensorFlow's outputs of a row and its twin are, which differ in nothing but their words: max-abs.

    Near 0, the model says the same whatever it reads, and equality with its IR means nothing. Rows that differ in
    length too, or in segments, could be told apart by a model that reads no words at all. None if the vocabulary
    has no words, so that no row has others.
    """
    import numpy as np

    if rows.twin is None:
        return None
    mask = rows.columns[1][[rows.twin.row]]
    one, other = (
        comparable(without_padding(output[None], mask, head), head)
        for output in (rows.outputs[rows.twin.row], rows.twin.output)
    )
    return figure(np.abs(one - other).max())


class Reference:
    """What reference.py wrote."""

    def __init__(self, path: Path) -> None:
        import numpy as np

        try:
            with np.load(path, allow_pickle=False) as arrays:
                self._arrays: dict[str, Any] = dict(arrays)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            fail(f"{path.name} cannot be read: {one_line(error)}", "Make it by the step before this one.")
        self.sentences = int(self._arrays["sentences"])
        self.rounded = any(name.endswith("/exact") for name in self._arrays)

    def finite(self) -> bool:
        """Whether all that TensorFlow gave by the weights as they are, at any length, are numbers."""
        return self._all_finite("exact" if self.rounded else "outputs")

    def rounded_finite(self) -> bool | None:
        """Whether all that it gave by rounded weights are numbers; None if there are none."""
        return self._all_finite("outputs") if self.rounded else None

    def _all_finite(self, wanted: str) -> bool:
        import numpy as np

        given = (array for name, array in self._arrays.items() if name.endswith(f"/{wanted}"))
        return all(bool(np.isfinite(array).all()) for array in given)

    def rows(self, length: int) -> Rows:
        """The rows of a length.

        Raises:
            Refused: TensorFlow can't be run at it.
        """
        if f"{length}/refused" in self._arrays:
            raise Refused(str(self._arrays[f"{length}/refused"]))
        columns, outputs = (self._arrays[f"{length}/{name}"] for name in ("columns", "outputs"))
        rows = len(self._arrays["paired"])  # and the twin, if this length has it
        return Rows(
            columns=columns[:, :rows],
            outputs=outputs[:rows],
            paired=self._arrays["paired"][: columns.shape[1]],
            exact=self._arrays[f"{length}/exact"] if self.rounded else None,
            twin=Twin(int(self._arrays["twin"]), outputs[rows]) if len(outputs) > rows else None,
        )


@dataclass(frozen=True)
class Twin:
    """A row with other words, otherwise as the one of this number, and TensorFlow's output of it."""

    row: int
    output: Vectors


class Rows:
    """The inputs of all rows of a length, and TensorFlow's outputs of them.

    Args:
        columns: [3, rows, tokens].
        outputs: [rows, …].
        paired: [rows], whether a row holds two sentences.
        exact: outputs of the paired rows by weights that weren't rounded, if those of `outputs` were.
        twin: of one of the rows.
    """

    def __init__(
        self,
        *,
        columns: Ids,
        outputs: Vectors,
        paired: npt.NDArray[np.bool_],
        exact: Vectors | None,
        twin: Twin | None,
    ) -> None:
        import numpy as np

        self.columns = columns
        self.outputs = outputs
        self.paired = paired
        self.exact = exact
        self.twin = twin
        self._place = np.cumsum(paired) - 1  # of a paired row in `exact`

    def __len__(self) -> int:
        return len(self.outputs)

    @property
    def length(self) -> int:
        return int(self.columns.shape[2])

    def exact_of(self, some: npt.NDArray[np.int64]) -> Vectors | None:
        """The exact outputs of those of some rows that have one, in their order."""
        return None if self.exact is None else self.exact[self._place[some[self.paired[some]]]]


def compare_rows(run: Run, rows: Rows, some: Sequence[int], batch: int, head: str) -> dict[str, Any]:
    """Run some rows in groups of `batch`, the last of them filled with the first of these rows again.

    Raises:
        Refused: the IR can't be run so.
    """
    import numpy as np

    of = np.array(some)[np.arange(-(-len(some) // batch) * batch) % len(some)]
    groups = of.reshape(-1, batch)
    found = np.concatenate([run(list(rows.columns[:, group])) for group in groups])
    expected = rows.outputs[of]
    if expected.shape != found.shape:
        fail(f"outputs differ in shape: TensorFlow {expected.shape}, OpenVINO {found.shape}.")
    mask = rows.columns[1][of]
    seen = without_padding(found, mask, head)
    figures = compare(without_padding(expected, mask, head), seen, head)
    finite = bool(np.isfinite(found).all() and np.isfinite(expected).all())
    shape = {"batch": batch, "sequence": rows.length, "rows": len(of)}
    exact = rows.exact_of(of)
    if exact is None:
        return {"all_finite": finite} | shape | figures
    rounded = {"max_abs_difference_rounded": figures["max_abs_difference"]}
    if len(exact) == 0:
        return {"all_finite": finite} | shape | rounded
    finite = finite and bool(np.isfinite(exact).all())
    with_exact = rows.paired[of]
    figures = compare(
        without_padding(exact, mask[with_exact], head),
        without_padding(found[with_exact], mask[with_exact], head),
        head,
    )
    return {"all_finite": finite} | shape | figures | rounded


def refusal(batch: int, length: int, error: Refused) -> dict[str, Any]:
    return {"batch": batch, "sequence": length, "refused_by": str(error)[:REASON_LENGTH]}


def largest(shapes: list[dict[str, Any]], figure_: str) -> float | None:
    figures = [shape[figure_] for shape in shapes if figure_ in shape]
    return None if None in figures else max(figures)


def deal(rows: int, batch: int, others: list[int]) -> dict[int, list[int]]:
    """Say which rows are run in which batch: each in one of them, if that can be.

    A fault in a weight or an operation shows on some row at any batch; what another batch can break is a size that was
    taken for a constant, and that shows on any group of rows.
    """
    waiting, everything = list(range(rows)), list(range(rows))
    dealt: dict[int, list[int]] = {}
    for size in (batch, *others):
        dealt[size] = (waiting + everything)[:size]
        waiting = waiting[size:]
    return dealt | {batch: dealt[batch] + waiting}


class Measurement:
    """Runs the IR in one shape after another, and keeps what came of it."""

    def __init__(self, ir: Ir, head: str) -> None:
        self._ir = ir
        self._head = head
        self.shapes: list[dict[str, Any]] = []
        self.inferred: list[dict[str, int]] = []
        self.refused: list[dict[str, Any]] = []

    def infer(self, batch: int, length: int) -> bool:
        """Infer a shape through the graph, without running it; keep the refusal, if it is one."""
        try:
            self._ir.reshaped(batch, length)
        except Refused as error:
            self.refused.append(refusal(batch, length, error))
            return False
        return True

    def run(self, rows: Rows, some: list[int], batch: int) -> None:
        """Run rows by a model of which all sizes are known.

        Raises:
            Refused: it can't be.
        """
        compiled = self._ir.compiled(batch, rows.length)
        self.shapes.append(compare_rows(compiled, rows, some, batch, self._head))

    def others(self, rows: Rows, dealt: dict[int, list[int]]) -> list[int]:
        """Run rows in other batches, by one model whose batch is free; give the rows whose batch was refused."""
        lost: list[int] = []
        run: Run | None = None
        for batch, some in dealt.items():
            try:
                run = run or self._ir.compiled(FREE, rows.length)
                self.shapes.append(compare_rows(run, rows, some, batch, self._head))
            except Refused as error:
                self.refused.append(refusal(batch, rows.length, error))
                lost += some
        return lost

    def length(self, reference: Reference, length: int, batch: int) -> bool:
        """Run the rows of another length."""
        try:
            rows = reference.rows(length)
            self.run(rows, list(range(len(rows))), batch)
        except Refused as error:
            self.refused.append(refusal(batch, length, error))
            return False
        return True


def measure(arguments: argparse.Namespace) -> dict[str, object]:
    import numpy as np

    ir = Ir(arguments.model, arguments.inputs, arguments.output_node, unfused=arguments.unfused)
    tried = Measurement(ir, arguments.head)
    batch, length = arguments.batch, arguments.seq_len
    others = [other for other in arguments.try_batches if other != batch and tried.infer(other, length)]
    ir.prepare((batch, length), *([(FREE, length)] if others else []))
    await_inputs()  # what TensorFlow gave may take longer than the IR
    reference = Reference(arguments.reference)
    try:
        rows = reference.rows(length)
        # A batch of more rows than there are isn't run.
        run = [other for other in others if other <= len(rows)]
        tried.inferred += [{"batch": other, "sequence": length} for other in others if other not in run]
        dealt = deal(len(rows), batch, run)
        tried.run(rows, dealt.pop(batch), batch)
        if lost := tried.others(rows, dealt):
            tried.run(rows, lost, batch)
    except Refused as error:
        fail(f"{arguments.model.name} cannot be compared at {[batch, length]}: {error}")
    free = {"batch": bool(others) and not tried.refused}
    lengths = [
        tried.length(reference, other, max(2, batch) if free["batch"] else batch)
        for other in arguments.try_lengths
    ]
    free["sequence"] = bool(lengths) and all(lengths)
    shapes = tried.shapes
    sized = rows.outputs[rows.columns[1] > 0] if arguments.head == "sequence" else rows.outputs
    base = {"batch": batch, "sequence": length}
    return {
        "all_finite": all(shape["all_finite"] for shape in shapes),
        "discrimination": discrimination(rows, arguments.head),
        "fixed_dimensions": {name: size for name, size in base.items() if not free[name]},
        "free_dimensions": [name for name in free if free[name]],
        "inferred": tried.inferred,
        "max_abs_difference": largest(shapes, "max_abs_difference"),
        "max_abs_difference_rounded": largest(shapes, "max_abs_difference_rounded")
        if reference.rounded
        else None,
        "refused": tried.refused,
        "rounded_finite": reference.rounded_finite(),
        "rms": figure(np.sqrt(np.mean(comparable(sized, arguments.head) ** 2))),
        "sentences": reference.sentences,
        "shapes": shapes,
        "signature": ir.signature(),
        "tensorflow_finite": reference.finite(),
    }


def processor() -> str:
    """What runs the IR, by the name that the CPU plugin gives it."""
    import openvino as ov

    return str(ov.Core().get_property("CPU", "FULL_DEVICE_NAME")).strip()


def write_report(path: Path, report: dict[str, object]) -> None:
    text = json.dumps(report, indent=2, sort_keys=True, allow_nan=False) + "\n"
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True, help="model.xml, with model.bin beside it")
    parser.add_argument("--reference", type=Path, required=True, help="what reference.py wrote")
    parser.add_argument("--batch", type=positive, required=True, help="rows, as the IR was made for")
    parser.add_argument(
        "--seq-len", type=positive, required=True, help="tokens a row, as the IR was made for"
    )
    parser.add_argument("--try-batches", type=numbers, default=[], help="others that are tried")
    parser.add_argument("--try-lengths", type=numbers, default=[], help="others that are tried")
    parser.add_argument("--head", choices=("pooled", "sequence", "classifier"), required=True)
    add_graph(parser)
    parser.add_argument(
        "--unfused",
        action="store_true",
        help="without OpenVINO's fused kernels; the report names the processor too",
    )
    parser.add_argument("--report", type=Path, required=True, help="JSON file to write")
    arguments = parser.parse_args()
    report = measure(arguments)
    if arguments.unfused:
        report["processor"] = processor()
    write_report(arguments.report, report)
    print(f"largest difference {report['max_abs_difference']}")


if __name__ == "__main__":
    run_program(main, "numpy", "openvino", some=True)

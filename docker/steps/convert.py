"""Run `mo`, the converter, in this process, without TensorFlow, and give it the frozen graph node by node.

`mo` starts itself in a second process, which imports TensorFlow, to see whether the model that it was given is one of
Python's objects. Given a file it isn't, and OpenVINO's frontend reads that by itself. Without TensorFlow's Python bindings
`mo` does the same without looking: that is what it is told here. It also starts a process to see whether OpenVINO can be
imported, which it has been here. And where it hands the file to the frontend, that gets the file's nodes instead, as `mo` hands on
the iterator over a graph's nodes that a caller from Python may give it (frozen_graph.py). If anything comes of that but a model,
the program begins anew, and `mo` reads the file. What comes out is the same, bit by bit (docs/decisions.md).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from said import run as run_program

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from frozen_graph import FrozenGraph

    # The options, and the frontend → OpenVINO's model
    Pipeline = Callable[[argparse.Namespace, Any], Any]
    Transformations = Callable[..., None]

BY_THE_FILE = "BERTIR_BY_THE_FILE"


def node_by_node(pipeline: Pipeline, graphs: list[FrozenGraph]) -> Pipeline:
    """Give the part of `mo` that has a frontend make the model, which hands it a frozen graph's nodes in place of the file.

    It keeps the graph in `graphs`, as the model's constants lie there.
    """
    from frozen_graph import graph_of

    def run(options: argparse.Namespace, frontend: Any) -> Any:  # noqa: ANN401 - OpenVINO's bindings have no types
        path = options.input_model
        graph = graph_of(Path(path)) if path else None
        if graph is None:
            return pipeline(options, frontend)
        graphs.append(graph)
        options.input_model = graph
        try:
            return pipeline(options, frontend)
        except MemoryError:  # by the file it would take more
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is: of the file, mo may do it, and else says best what is amiss
            print(f"mo reads the graph itself, as this came of its nodes: {error}", flush=True)  # for the log
            again_by_the_file()
        finally:
            options.input_model = path

    return run


def then_given_back(transformations: Transformations, graphs: list[FrozenGraph]) -> Transformations:
    """Give the transformations in which weights are transposed, behind which the file's are needed no more, but for the embeddings."""

    def run(*arguments: Any, **options: Any) -> None:  # noqa: ANN401 - OpenVINO's bindings have no types
        transformations(*arguments, **options)
        for graph in graphs:
            graph.give_back()

    return run


def again_by_the_file() -> NoReturn:
    """Begin anew, in a fresh process: OpenVINO counts what it makes, and gives layers names by that."""
    os.environ[BY_THE_FILE] = "1"
    os.execv(sys.executable, sys.orig_argv)  # noqa: S606 - this program again, with its own arguments


def main() -> None:
    from openvino import _offline_transformations as offline
    from openvino.tools.mo import convert_impl
    from openvino.tools.mo.main import main as mo
    from openvino.tools.mo.utils.cli_parser import get_all_cli_parser
    from openvino.tools.mo.utils.version import VersionChecker

    # Of a release which asks otherwise, one of these wouldn't be there: then the step fails, and isn't slow.
    for holder, name in (
        (convert_impl, "tf_frontend_with_python_bindings_installed"),
        (convert_impl, "moc_pipeline"),
        (offline, "apply_moc_transformations"),
        (VersionChecker(), "runtime_checked"),
    ):
        if not hasattr(holder, name):
            message = f"this mo has no {name}"
            raise RuntimeError(message)
    convert_impl.tf_frontend_with_python_bindings_installed = False
    if BY_THE_FILE not in os.environ:
        graphs: list[FrozenGraph] = []  # what is patched here keeps them to the end of the process
        convert_impl.moc_pipeline = node_by_node(convert_impl.moc_pipeline, graphs)
        offline.apply_moc_transformations = then_given_back(offline.apply_moc_transformations, graphs)
    VersionChecker().runtime_checked = True
    sys.exit(mo(get_all_cli_parser(), None))


if __name__ == "__main__":
    run_program(main, "openvino.tools.mo.main", "openvino.tools.mo.utils.cli_parser", "frozen_graph")

"""Run `mo`, the converter, in this process, and without TensorFlow.

`mo` starts itself in a second process, which imports TensorFlow, to see whether the model that it was given is one of
Python's objects. Given a file it isn't, and OpenVINO's frontend reads that by itself. Without TensorFlow's Python bindings
`mo` does the same without looking: that is what it is told here. It also starts a process to see whether OpenVINO can be
imported, which it has been here. What comes out is the same, bit by bit (docs/decisions.md).
"""

from __future__ import annotations

import sys

from said import run as run_program


def main() -> None:
    from openvino.tools.mo import convert_impl
    from openvino.tools.mo.main import main as mo
    from openvino.tools.mo.utils.cli_parser import get_all_cli_parser
    from openvino.tools.mo.utils.version import VersionChecker

    # Of a release which asks otherwise, one of these wouldn't be there: then the step fails, and isn't slow.
    for holder, name in (
        (convert_impl, "tf_frontend_with_python_bindings_installed"),
        (VersionChecker(), "runtime_checked"),
    ):
        if not hasattr(holder, name):
            message = f"this mo has no {name}"
            raise RuntimeError(message)
    convert_impl.tf_frontend_with_python_bindings_installed = False
    VersionChecker().runtime_checked = True
    sys.exit(mo(get_all_cli_parser(), None))


if __name__ == "__main__":
    run_program(main, "openvino.tools.mo.main", "openvino.tools.mo.utils.cli_parser")

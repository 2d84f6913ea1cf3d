"""Values of the command line that several programs take. Imported by the programs beside it, in the container."""

from __future__ import annotations

import argparse


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not positive")
    return number


def numbers(text: str) -> list[int]:
    """Positive numbers with commas between; none is an empty list."""
    return [positive(part) for part in text.split(",") if part]


def add_graph(parser: argparse.ArgumentParser) -> None:
    """Add what names a graph's inputs and its output, as TensorFlow does."""
    parser.add_argument(
        "--inputs",
        type=lambda text: text.split(","),
        required=True,
        help="TensorFlow's names of input ids, mask and segment ids",
    )
    parser.add_argument("--output-node", required=True, help="TensorFlow's name of the node, without :0")

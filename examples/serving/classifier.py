"""A folder that `invoke build-ir --head classifier` has published: from sentences to probabilities."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import openvino as ov

from tokens import Tokens

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

# What run_classifier.py's graph calls input ids, mask and segment ids.
INPUTS = ("IteratorGetNext:0", "IteratorGetNext:1", "IteratorGetNext:4")


class UnfitFolderError(Exception):
    """The folder can't be served; the message says why."""


class Classifier:
    """Its model, compiled for the CPU.

    Args:
        folder: with model.xml, model.bin, vocab.txt and report.json.

    Raises:
        UnfitFolderError: it is no such folder, or its head is another.
    """

    def __init__(self, folder: Path) -> None:
        try:
            report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
            head, tokens = report["request"]["head"], report["fixed_dimensions"]["sequence"]
            if head != "classifier":
                raise UnfitFolderError(f"{folder} has the head {head}: build it with --head classifier")
            self._tokens = Tokens(
                folder / "vocab.txt", lower_case=report["from"]["model"]["lower_case"], length=tokens
            )
            core = ov.Core()
            model = core.read_model(folder / "model.xml")
            model.reshape({name: [-1, tokens] for name in INPUTS})  # any number of rows
            # Plugins round to bf16 where the processor can; f32 is what parity was measured with.
            self._model = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            told = f"{type(error).__name__}: {' '.join(str(error).split())}"  # OpenVINO's has several lines
            raise UnfitFolderError(
                f"{folder} is no published folder of a classifier that can be loaded: {told}"
            ) from error
        self.tokens: int = tokens
        self.classes: int = self._model.output(0).partial_shape[1].get_length()

    def probabilities(self, sentences: Sequence[str]) -> list[list[float]]:
        """Give the probability of each class, a row for each sentence. Threads may call it at once."""
        request = self._model.create_infer_request()
        rows = dict(zip(INPUTS, self._tokens.rows(sentences), strict=True))
        found: list[list[float]] = request.infer(rows)[0].tolist()
        return found

"""Run the patched run_classifier.py, which freezes the graph, once TensorFlow is imported and the inputs are there."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from said import run as run_program
from session import as_in_tensorflow_1

if TYPE_CHECKING:
    from collections.abc import Callable

# Beside /step, where this program is, also where that isn't at the root.
SCRIPT = Path(__file__).parents[1] / "in/source/run_classifier.py"


class Evaluation:
    """What run_classifier.py has of `tf.estimator.tpu.TPUEstimator` to evaluate by, where it freezes instead.

    It makes the graph as that does: the iterator of the rows, on the CPU, and then the model, whose function writes the frozen
    graph and ends the program. All else that an Estimator makes for a run is for a run, and there is none.

    Args:
        model_fn: makes the model, of features, labels, mode and parameters.
        eval_batch_size: rows of the iterator.
    """

    def __init__(self, *, model_fn: Callable[..., object], eval_batch_size: int, **_: object) -> None:
        self._model_fn = model_fn
        self._parameters = {"batch_size": eval_batch_size}

    def evaluate(self, *, input_fn: Callable[[dict[str, int]], Any], steps: int | None) -> None:
        """Make the graph. Whatever number of `steps` it is to run, it doesn't."""
        import tensorflow.compat.v1 as tf

        del steps
        with tf.Graph().as_default():
            with tf.device("/device:CPU:0"):
                features = tf.data.make_initializable_iterator(input_fn(self._parameters)).get_next()
            self._model_fn(features, None, MODES.EVAL, self._parameters)


def nothing(**_: object) -> None:
    """Give no configuration: it would be of a run."""


MODES = SimpleNamespace(TRAIN="train", EVAL="eval")
ESTIMATOR = SimpleNamespace(
    ModeKeys=MODES,
    tpu=SimpleNamespace(
        InputPipelineConfig=SimpleNamespace(PER_HOST_V2=None),
        RunConfig=nothing,
        TPUConfig=nothing,
        TPUEstimator=Evaluation,
    ),
)


def main() -> None:
    import tensorflow.compat.v1 as tf

    tf.estimator = ESTIMATOR
    sys.path.insert(0, str(SCRIPT.parent))
    sys.argv[0] = str(SCRIPT)
    as_in_tensorflow_1(runpy.run_path)(str(SCRIPT), run_name="__main__")


if __name__ == "__main__":
    run_program(main, "numpy", "lazy_tensorflow")

"""`tensorflow.compat.v1`, each of whose names is imported when it is asked for. To be imported before TensorFlow is.

`import tensorflow` imports all that there is, Keras among it: 2,820 modules, of which a program that builds a BERT's graph and
runs it needs 1,085. What a name is and where it comes from is read from TensorFlow's own lists, the generated files of its
package `_api`. So a name is the same function or class either way, but for the wrappers that TensorFlow puts around some of them in
a module that nothing here imports (weak_tensor_ops.py); and a test holds what a program gives to what it gives otherwise.

What TensorFlow has from elsewhere isn't there: `tf.estimator`, `tf.keras`, `tf.app.flags`, the layers of `tf.layers`. Of the few
names of Keras's that are listed (`tf.nn.rnn_cell`) it is TensorFlow's own old copy that is given.

Imported by the programs beside it, in the container.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType

LISTED = re.compile(r"^from (tensorflow[\w.]*) import (\w+)(?: as (\w+))?", re.MULTILINE)
LISTS = "tensorflow._api."
# The lists have these from a module that imports all optimizers, and Keras's, for what other modules define.
TRAINING = "tensorflow.python.training.training"
DEFINED = {"Example": "tensorflow.core.example.example_pb2"} | dict.fromkeys(
    ("Feature", "Features", "Int64List"), "tensorflow.core.example.feature_pb2"
)
# What is imported at once, before there is anything to do: most of all that google-research/bert asks for.
AT_ONCE = (
    *("Session", "get_variable", "placeholder", "import_graph_def", "raw_ops.RestoreV2", "make_tensor_proto"),
    *("nn.bias_add", "nn.batch_normalization", "nn.dropout", "one_hot", "matmul", "gfile.GFile"),
    *("train.Optimizer", "train.load_checkpoint", "graph_util.extract_sub_graph", "autograph.experimental"),
    *("flags", "logging", "app.run", "assert_less_equal", "truncated_normal_initializer", "errors.OpError"),
)


class Names(ModuleType):
    """A module of TensorFlow's API, by the file that lists its names.

    Args:
        name: the module's, below `tensorflow._api`.
    """

    def __init__(self, name: str, package: Path) -> None:
        super().__init__(name)
        self._package = package
        file = package.joinpath(*name.split(".")[1:], "__init__.py")
        self._listed = {
            found[3] or found[2]: (found[1], found[2])
            for found in LISTED.finditer(file.read_text(encoding="utf-8"))
        }

    def __getattr__(self, name: str) -> object:
        if name not in self._listed:
            raise AttributeError(f"{self.__name__} lists no {name}")
        module, original = self._listed[name]
        if module == TRAINING:
            module = DEFINED.get(original, module)
        value: object
        if module.startswith(LISTS):
            value = Names(f"{module}.{original}", self._package)
        else:
            there = vars(importlib.import_module(module))
            # What isn't there is a module of this package, which isn't imported with it.
            value = there[original] if original in there else importlib.import_module(f"{module}.{original}")
        setattr(self, name, value)
        return value


def install() -> None:
    """Put it where `import tensorflow.compat.v1` finds it, and do what `import tensorflow` does beside."""
    found = PathFinder.find_spec("tensorflow")
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError("No module named 'tensorflow'", name="tensorflow")
    [package] = found.submodule_search_locations
    tensorflow, compat = ModuleType("tensorflow"), ModuleType("tensorflow.compat")
    names = Names(f"{LISTS}v2.compat.v1", Path(package))
    tensorflow.__path__, compat.__path__ = [package], []
    tensorflow.compat, compat.v1 = compat, names  # type: ignore[attr-defined]
    sys.modules |= {"tensorflow": tensorflow, "tensorflow.compat": compat, "tensorflow.compat.v1": names}
    # As tensorflow/__init__.py has it: first this, which other modules ask for when they are imported, and in the end the rest.
    os.environ["TF2_BEHAVIOR"] = "1"
    importlib.import_module("tensorflow.python.tf2").enable()
    importlib.import_module("tensorflow.python.compat.v2_compat").enable_v2_behavior()
    for path in AT_ONCE:
        value: object = names
        for name in path.split("."):
            value = getattr(value, name)


install()

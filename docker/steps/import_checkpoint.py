"""Import a Hugging Face BertModel as a TensorFlow checkpoint with Google's variable names.

A BertForSequenceClassification's head becomes run_classifier.py's. Runs inside the container. From `model.safetensors`, `config.json` and `vocab.txt` it writes what a
published BERT of google-research/bert consists of: `bert_model.ckpt.{data-00000-of-00001,index,meta}`,
`bert_config.json` and `vocab.txt`. The same inputs give the same bytes.

A refusal is exit status 1, one message on stderr whose lines start with `bertir-step: `, and no output.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from said import fail, run

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Weights = dict[str, npt.NDArray[np.float32]]

CHECKPOINT = "bert_model.ckpt"
OUTPUTS = (
    f"{CHECKPOINT}.data-00000-of-00001",
    f"{CHECKPOINT}.index",
    f"{CHECKPOINT}.meta",
    "bert_config.json",
    "vocab.txt",
)

# Hugging Face's name of an activation → the patched modeling.py's. "gelu" is the exact form (erf) there and
# the tanh form at Google, so the two must not be passed through by name.
ACTIVATIONS = {
    "gelu": "gelu_erf",
    "gelu_new": "gelu",
    "gelu_pytorch_tanh": "gelu",
    "gelu_google": "gelu",
    "relu": "relu",
    "tanh": "tanh",
    "linear": "linear",
}
INTEGERS = (
    "hidden_size",
    "intermediate_size",
    "max_position_embeddings",
    "num_attention_heads",
    "num_hidden_layers",
    "type_vocab_size",
    "vocab_size",
)
# They act in training only; the defaults are those of modeling.BertConfig and of Hugging Face's BertConfig.
TRAINING = {"attention_probs_dropout_prob": 0.1, "hidden_dropout_prob": 0.1, "initializer_range": 0.02}
# What google-research/bert computes, whatever bert_config.json says → why another value can't be carried over.
FIXED: dict[str, tuple[object, str]] = {
    "layer_norm_eps": (1e-12, "google-research/bert fixes the epsilon of its layer norms and reads none"),
    "position_embedding_type": ("absolute", "google-research/bert has no relative positions"),
    "is_decoder": (False, "google-research/bert has no causal mask"),
    "add_cross_attention": (False, "google-research/bert has no cross attention"),
}
SPECIAL_TOKENS = ("[UNK]", "[CLS]", "[SEP]")
# A registered buffer of older transformers releases (0, 1, 2, …), not a weight.
BUFFERS = frozenset({"embeddings.position_ids"})
# Heads of Hugging Face's classes that google-research/bert's run_classifier.py has nothing of.
OTHER_HEADS = ("cls.", "qa_outputs.")
# BertForSequenceClassification's head is run_classifier.py's: probabilities of softmax(pooled · weightsᵀ + bias).
CLASSIFIER = {"classifier.weight": "output_weights", "classifier.bias": "output_bias"}
# Other classes keep theirs under the same names, and apply it to something else than the pooled output.
CLASSIFIER_CLASS = "BertForSequenceClassification"
# transformers' names of old, which google-bert/bert-base-uncased and others still have, and it still reads.
OLD_NAMES = {".LayerNorm.gamma": ".LayerNorm.weight", ".LayerNorm.beta": ".LayerNorm.bias"}
FLOATS = frozenset({"F32", "F16", "BF16"})
LAYER = re.compile(r"encoder\.layer\.(\d{1,9})\.")


def read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        fail(f"{path.name} cannot be read: {error}")
    if not isinstance(config, dict):
        fail(f"{path.name} is not a JSON object.")
    return config


def architecture_problems(config: dict[str, Any]) -> list[str]:
    architectures = config.get("architectures") or []
    if not isinstance(architectures, list):
        return [f"architectures is {architectures!r}, must be a list."]
    if config.get("model_type") == "bert" and all(str(name).startswith("Bert") for name in architectures):
        return []
    found = ", ".join(map(str, architectures)) or "none"
    return [
        f"model_type is {config.get('model_type')!r} (architectures: {found}), only 'bert' can be imported."
    ]


def config_problems(config: dict[str, Any]) -> list[str]:
    """What in Hugging Face's configuration google-research/bert can't compute."""
    problems = architecture_problems(config)
    for key, (value, why) in FIXED.items():
        if config.get(key, value) != value:
            problems.append(f"{key} is {config[key]!r}, must be {value!r}: {why}.")
    for key in INTEGERS:
        if type(config.get(key)) is not int or config[key] < 1:
            problems.append(f"{key} is {config.get(key)!r}, must be a positive integer.")
    if not problems and config["hidden_size"] % config["num_attention_heads"]:
        problems.append(
            f"hidden_size {config['hidden_size']} is not a multiple of "
            f"num_attention_heads {config['num_attention_heads']}."
        )
    for key in TRAINING:
        number = config.get(key, 0.0)
        if not isinstance(number, int | float) or not 0 <= number <= 1:  # nor is NaN
            problems.append(f"{key} is {number!r}, must be a number from 0 to 1.")
    if config.get("hidden_act") not in [*ACTIVATIONS]:
        known = ", ".join(sorted(ACTIVATIONS))
        problems.append(f"hidden_act is {config.get('hidden_act')!r}, must be one of {known}.")
    return problems


def google_config(config: dict[str, Any]) -> dict[str, Any]:
    """The keys of modeling.BertConfig, and nothing else."""
    problems = config_problems(config)
    if problems:
        fail("config.json describes no model that google-research/bert can compute.", *problems)
    return (
        {key: config[key] for key in INTEGERS}
        | {key: config.get(key, default) for key, default in TRAINING.items()}
        | {"hidden_act": ACTIVATIONS[config["hidden_act"]]}
    )


def check_vocab(path: Path, vocab_size: int) -> None:
    """A tokenizer must not give ids beyond the embedding table; a table padded at its end is common."""
    try:
        # As tokenization.load_vocab reads it: a line ends at "\n" only, and its ends are stripped.
        lines = path.read_bytes().decode("utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        fail(f"{path.name} cannot be read: {error}")
    tokens = [line.strip() for line in (lines[:-1] if lines[-1] == "" else lines)]
    if len(tokens) > vocab_size:
        fail(
            f"{path.name} has {len(tokens)} lines but config.json's vocab_size is {vocab_size}.",
            "Give the vocabulary that belongs to this model.",
        )
    missing = [token for token in SPECIAL_TOKENS if token not in tokens]
    if missing:
        fail(f"{path.name} lacks {', '.join(missing)}.", "Give the vocabulary that belongs to this model.")


def hugging_face_name(variable: str) -> str:
    """Name in a BertModel's state dict of one of modeling.BertModel's variables."""
    name = re.sub(r"/layer_(\d+)/", r"/layer/\1/", variable.removeprefix("bert/"))
    head, _, leaf = name.replace("/", ".").rpartition(".")
    if leaf in {"kernel", "gamma"}:
        return f"{head}.weight"
    if leaf == "beta":
        return f"{head}.bias"
    return f"{head}.{leaf}" if leaf == "bias" else f"{head}.{leaf}.weight"


def is_kernel(variable: str) -> bool:
    """A dense kernel is [in, out] in TensorFlow; the weight of torch.nn.Linear is [out, in]."""
    return variable.endswith("/kernel")


def stored_shape(variable: str, shape: list[int]) -> list[int]:
    return shape[::-1] if is_kernel(variable) else shape


def open_safetensors(path: Path) -> Any:  # noqa: ANN401 - the library's own type is untyped
    import safetensors

    try:
        return safetensors.safe_open(path, framework="numpy")
    except (OSError, safetensors.SafetensorError) as error:
        fail(f"{path.name} cannot be read: {error}")


def today(key: str) -> str:
    """Today's name of a tensor."""
    for old, new in OLD_NAMES.items():
        if key.endswith(old):
            return key.removesuffix(old) + new
    return key


def takes_classifier(config: dict[str, Any]) -> bool:
    """Whether `classifier.*` is what run_classifier.py's head is; a file that doesn't say its class may be."""
    return (config.get("architectures") or [CLASSIFIER_CLASS]) == [CLASSIFIER_CLASS]


class Tensors:
    """The tensors of a safetensors file by Hugging Face's names, with or without the prefix `bert.`."""

    def __init__(self, path: Path, config: dict[str, Any]) -> None:
        self._file = open_safetensors(path)
        self._stored: dict[str, str] = {}
        for key in map(str, self._file.keys()):
            if (other := self._stored.setdefault(today(key), key)) != key:
                fail(f"{path.name} holds one tensor under two names: {other} and {key}.")
        self.keys = frozenset(self._stored)
        self.prefix = "bert." if any(key.startswith("bert.") for key in self.keys) else ""
        self.ignorable = frozenset(
            key
            for key in self.keys
            if key.removeprefix(self.prefix) in BUFFERS
            or (self.prefix and key.startswith(OTHER_HEADS))
            or (key in CLASSIFIER and not takes_classifier(config))
        )

    def key(self, variable: str) -> str:
        head = {name: key for key, name in CLASSIFIER.items()}
        return head.get(variable) or self.prefix + hugging_face_name(variable)

    def dtype(self, key: str) -> str:
        return str(self._file.get_slice(self._stored[key]).get_dtype())

    def shape(self, key: str) -> list[int]:
        return list(self._file.get_slice(self._stored[key]).get_shape())

    def read(self, key: str) -> npt.NDArray[np.float32]:
        """As float32, which holds every float16 and bfloat16 exactly."""
        import numpy as np

        tensor: npt.NDArray[np.float32] = self._file.get_tensor(self._stored[key]).astype(
            np.float32, copy=False
        )
        return tensor


def require_sizes(path: Path, config: dict[str, Any]) -> None:
    """Refuse a configuration of another size than the file's tensors before a graph of that size is built."""
    tensors = Tensors(path, config)
    hidden = config["hidden_size"]
    wanted = {
        f"embeddings.{table}_embeddings.weight": [config[size], hidden]
        for table, size in (
            ("word", "vocab_size"),
            ("position", "max_position_embeddings"),
            ("token_type", "type_vocab_size"),
        )
    } | {"encoder.layer.0.intermediate.dense.weight": [config["intermediate_size"], hidden]}
    found = {
        name: tensors.shape(tensors.prefix + name) for name in wanted if tensors.prefix + name in tensors.keys
    }
    problems = [
        f"misshapen: {tensors.prefix}{name} is {shape}, config.json takes {wanted[name]}"
        for name, shape in found.items()
        if shape != wanted[name]
    ]
    layers = {match[1] for key in tensors.keys if (match := LAYER.match(key.removeprefix(tensors.prefix)))}
    if config["num_hidden_layers"] > len(layers):
        problems.append(f"missing: of num_hidden_layers {config['num_hidden_layers']}, it has {len(layers)}")
    if problems:
        fail(
            f"{path.name} does not hold exactly the tensors of the BertModel in config.json.",
            *problems,
            "Give the config.json that belongs to this model.",
        )


def labels(path: Path, config: dict[str, Any]) -> int:
    """How many labels the file's classifier tells apart; 0 if it has none that run_classifier.py could have."""
    tensors = Tensors(path, config)
    if not takes_classifier(config) or not CLASSIFIER.keys() <= tensors.keys:
        return 0
    shape = tensors.shape("classifier.weight")
    if len(shape) != 2 or shape[1] != config["hidden_size"]:  # noqa: PLR2004
        fail(
            f"misshapen: classifier.weight of {path.name} is {shape}, config.json takes"
            f" [labels, {config['hidden_size']}]"
        )
    if config.get("problem_type") not in {None, "single_label_classification"} or shape[0] < 2:  # noqa: PLR2004
        fail(
            f"the classifier of {path.name} is none of run_classifier.py's: problem_type is"
            f" {config.get('problem_type')!r}, labels {shape[0]}.",
            "Only single_label_classification is a softmax. Save the encoder alone (model.bert.save_pretrained).",
        )
    return shape[0]


def tensor_problems(tensors: Tensors, shapes: dict[str, list[int]]) -> list[str]:
    """Whether the file holds exactly the model's variables, told without reading a tensor."""
    wanted = {tensors.key(name): stored_shape(name, shape) for name, shape in shapes.items()}
    problems = [f"missing: {key}" for key in sorted(wanted.keys() - tensors.keys)]
    problems += [f"extra: {key}" for key in sorted(tensors.keys - wanted.keys() - tensors.ignorable)]
    for key in sorted(wanted.keys() & tensors.keys):
        if tensors.shape(key) != wanted[key]:
            problems.append(f"misshapen: {key} is {tensors.shape(key)}, config.json takes {wanted[key]}")
        if tensors.dtype(key) not in FLOATS:
            problems.append(
                f"type: {key} is {tensors.dtype(key)}, must be one of {', '.join(sorted(FLOATS))}"
            )
    return problems


def read_weights(path: Path, shapes: dict[str, list[int]], config: dict[str, Any]) -> Weights:
    """The value of each variable, in TensorFlow's layout. One tensor at a time is held twice."""
    import numpy as np

    tensors = Tensors(path, config)
    problems = tensor_problems(tensors, shapes)
    if problems:
        fail(
            f"{path.name} does not hold exactly the tensors of the BertModel in config.json.",
            *problems,
            # transformers would save random numbers for what is missing: that is no advice then.
            "Give the whole model that it was made from: what is missing can't be made up."
            if any(problem.startswith("missing: ") for problem in problems)
            else "Save the encoder alone (BertModel.save_pretrained), with the config.json that belongs to it.",
        )
    weights: Weights = {}
    not_finite = []
    for name in sorted(shapes):
        tensor = tensors.read(tensors.key(name))
        if not np.isfinite(tensor).all():
            not_finite.append(tensors.key(name))
        weights[name] = np.ascontiguousarray(tensor.T) if is_kernel(name) else tensor
    if not_finite:
        fail(
            f"{path.name} holds NaN or infinite numbers.",
            *(f"not finite: {key}" for key in not_finite),
            "Such a model computes nothing; look for a copy that is whole.",
        )
    return weights


def build_graph(config: dict[str, Any], source: Path, label_count: int) -> dict[str, Any]:
    """Builds the inference graph in TensorFlow's default graph; returns its variables by name.

    With labels, also the variables of run_classifier.py's head (and its graph, by the same names).

    Inputs have the published graphs' names: `Placeholder` (input_ids), `Placeholder_1` (input_mask),
    `Placeholder_2` (segment_ids); batch and sequence length are free.
    """
    import tensorflow.compat.v1 as tf

    sys.path.insert(0, str(source))
    import modeling

    tf.disable_eager_execution()
    tf.disable_resource_variables()  # as published: VariableV2, not handles
    inputs = [tf.placeholder(tf.int32, [None, None]) for _ in range(3)]
    model = modeling.BertModel(
        config=modeling.BertConfig.from_dict(config),
        is_training=False,
        input_ids=inputs[0],
        input_mask=inputs[1],
        token_type_ids=inputs[2],
    )
    if label_count:
        shape = [label_count, config["hidden_size"]]
        weights = tf.get_variable("output_weights", shape, initializer=tf.zeros_initializer())
        bias = tf.get_variable("output_bias", shape[:1], initializer=tf.zeros_initializer())
        with tf.variable_scope("loss"):
            logits = tf.nn.bias_add(tf.matmul(model.get_pooled_output(), weights, transpose_b=True), bias)
            tf.nn.softmax(logits, axis=-1)
    return {variable.op.name: variable for variable in tf.global_variables()}


def write_checkpoint(directory: Path, variables: dict[str, Any], weights: Weights) -> None:
    """Write the three files that a Saver writes.

    Its `checkpoint` (the state) isn't among them, which holds paths and a time, nor its own .meta, whose maps are in hash
    order. And the tensors are written by the operation that it has for that, fed with them: to give them to the variables
    first would take as much memory again, and longer than all else.
    """
    import tensorflow.compat.v1 as tf

    saver = tf.train.Saver(variables)
    prefix = str(directory / CHECKPOINT)
    meta = tf.train.export_meta_graph(saver_def=saver.as_saver_def())
    Path(f"{prefix}.meta").write_bytes(meta.SerializeToString(deterministic=True))
    names = sorted(weights)  # as a Saver has them
    with tf.Graph().as_default() as graph:
        tensors = [tf.placeholder(tf.float32, weights[name].shape) for name in names]
        write = tf.raw_ops.SaveV2(
            prefix=prefix, tensor_names=names, shape_and_slices=[""] * len(names), tensors=tensors
        )
    with tf.Session(graph=graph) as session:
        session.run(write, {tensor: weights[name] for tensor, name in zip(tensors, names, strict=True)})


def write_outputs(
    output: Path, config: dict[str, Any], vocab: Path, variables: dict[str, Any], weights: Weights
) -> None:
    """Writes all five files beside their final places, then renames them: a fault leaves none behind."""
    partial = output / ".partial"
    partial.mkdir(parents=True)
    try:
        write_checkpoint(partial, variables, weights)
        text = json.dumps(config, indent=2, sort_keys=True) + "\n"
        (partial / "bert_config.json").write_text(text, encoding="utf-8")
        (partial / "vocab.txt").write_bytes(vocab.read_bytes())
        for name in OUTPUTS:
            (partial / name).replace(output / name)
    finally:
        shutil.rmtree(partial)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True, help="model.safetensors")
    parser.add_argument("--config", type=Path, required=True, help="config.json of a Hugging Face BertModel")
    parser.add_argument("--vocab", type=Path, required=True, help="vocab.txt")
    parser.add_argument("--source", type=Path, required=True, help="directory of the patched modeling.py")
    parser.add_argument("--output", type=Path, required=True, help="directory of the five files to write")
    arguments = parser.parse_args()

    given = read_config(arguments.config)
    config = google_config(given)
    check_vocab(arguments.vocab, config["vocab_size"])
    require_sizes(arguments.model, given)
    variables = build_graph(config, arguments.source, labels(arguments.model, given))
    shapes = {name: variable.shape.as_list() for name, variable in variables.items()}
    weights = read_weights(arguments.model, shapes, given)
    write_outputs(arguments.output, config, arguments.vocab, variables, weights)
    print(f"imported {len(weights)} tensors")


if __name__ == "__main__":
    run(main, "numpy", "lazy_tensorflow", keeps_memory=True)

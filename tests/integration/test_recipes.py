"""Both recipes, all heads, and checkpoints of the user's own, with a tiny BERT that run_classifier.py fine-tunes."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from builds import given, read_bytes
from checkout import ROOT
from tiny_bert import HIDDEN, LAYERS, POSITIONS, SENTENCES, classifier, config, files, weights

from bertir.container_step import ContainerStep
from bertir.digest import Digest
from bertir.errors import ConfigurationError, ParityError, StepError
from bertir.graph import read_graph
from bertir.local_checkpoint import Options, find_checkpoint
from bertir.pipeline import build_ir
from bertir.report import Request
from bertir.steps import convert_published, examine, freeze, import_checkpoint, read
from bertir.store import Artifact

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from builds import TinyBuild

    from bertir.builder import Builder
    from bertir.report import Build
    from bertir.store import Blob

pytestmark = pytest.mark.engine

TOKENS = 64
TUNED = "model.ckpt-40"
HEADER = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"


def pairs() -> list[tuple[str, str]]:
    sentences = [line for line in SENTENCES.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [(first, sentences[3 * i % len(sentences)]) for i, first in enumerate(sentences)]


def rows(label: Callable[[int], object]) -> bytes:
    lines = (f"{label(i)}\t1\t2\t{first}\t{second}\n" for i, (first, second) in enumerate(pairs()))
    return (HEADER + "".join(lines)).encode()


def run_classifier(
    builder: Builder, build: TinyBuild, *arguments: str, inputs: dict[str, Blob], outputs: Iterable[str]
) -> Artifact:
    """Run the patched script as its authors meant it to be run: nothing is frozen."""
    checkpoint = build.checkpoint
    step = ContainerStep(
        name="run-classifier",
        arguments=(
            "/usr/bin/python3",
            "/in/source/run_classifier.py",
            "--task_name=MRPC",
            "--data_dir=/in/task",
            "--vocab_file=/in/vocab.txt",
            "--bert_config_file=/in/bert_config.json",
            f"--max_seq_length={TOKENS}",
            "--output_dir=/out",
            *arguments,
        ),
        inputs={f"/in/{name}": checkpoint[name] for name in ("vocab.txt", "bert_config.json")}
        | {f"/in/source/{name}": blob for name, blob in build.source.artifact.files.items()}
        | inputs,
        outputs=tuple(outputs),
    )
    return builder.run(step).artifact


@pytest.fixture(scope="module")
def tuned(builder: Builder, tiny_build: TinyBuild, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory as run_classifier.py leaves it after fine-tuning, with vocabulary and configuration."""
    folder = tmp_path_factory.mktemp("fine") / "tuned"
    folder.mkdir()
    checkpoint = tiny_build.checkpoint
    names = [f"{TUNED}.{part}" for part in ("data-00000-of-00001", "index", "meta")]
    trained = run_classifier(
        builder,
        tiny_build,
        "--do_train=true",
        "--init_checkpoint=/in/bert_model.ckpt",
        "--train_batch_size=5",
        "--num_train_epochs=20",
        "--learning_rate=1e-4",  # a larger one may end in a classifier that gives every row the same
        inputs={f"/in/{name}": blob for name, blob in checkpoint.files.items() if ".ckpt." in name}
        | {"/in/task/train.tsv": builder.store.add_bytes(rows(lambda i: i % 2))},
        outputs=[*names, "checkpoint"],
    )
    for name in (*names, "checkpoint"):
        builder.store.copy_out(trained[name], folder / name, what=name)
    for name in ("vocab.txt", "bert_config.json"):
        builder.store.copy_out(checkpoint[name], folder / name, what=name)
    return folder


def build(builder: Builder, folder: Path, output: Path, **request: Any) -> tuple[Build, Path]:
    done, published = build_ir(builder, Request(**request), output, find_checkpoint(Options(path=folder)))
    return done, published.folder


def report_of(folder: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return value


def shapes(report: dict[str, Any]) -> list[tuple[int, int]]:
    return [(shape["batch"], shape["sequence"]) for shape in report["parity"]["shapes"]]


@pytest.mark.usefixtures("tiny_build")
def test_golden_digests_of_the_recipe_meta_graph(
    builder: Builder, tmp_path: Path, golden: Callable[[str, dict[str, str]], None]
) -> None:
    digests: dict[str, str] = {}
    for head in ("pooled", "sequence"):
        request = Request(model="tiny-bert", recipe="meta-graph", precision="fp32", head=head)
        done, published = build_ir(builder, request, tmp_path)
        digests |= {f"{head}/{name}": str(blob.digest) for name, blob in done.ir.files.items()}
        report = report_of(published.folder)
        assert [port["partial_shape"] for port in report["inputs"]] == ["[?,?]"] * 3
        assert (report["free_dimensions"], report["fixed_dimensions"]) == (["batch", "sequence"], {})
        assert shapes(report) == [(1, 128), (2, 128), (4, 128), (2, 64), (2, 160)]
    golden("tiny-bert-meta-graph", digests)


@pytest.mark.usefixtures("tiny_build")
def test_golden_digests_of_a_head_that_is_frozen(
    builder: Builder, tmp_path: Path, golden: Callable[[str, dict[str, str]], None]
) -> None:
    request = Request(model="tiny-bert", precision="fp32", head="sequence")
    done, published = build_ir(builder, request, tmp_path)
    assert done.frozen_graph is not None
    report = report_of(published.folder)
    assert report["outputs"][0]["partial_shape"] == f"[1,128,{HIDDEN}]"
    assert "bert/sequence_output:0" in report["outputs"][0]["names"]
    digests = {name: str(blob.digest) for name, blob in done.ir.files.items()}
    golden("tiny-bert-sequence", digests | {"frozen_graph": str(done.frozen_graph.digest)})


@pytest.mark.usefixtures("tiny_build")
def test_a_reshapable_ir_agrees_at_every_batch_and_says_that_its_tokens_are_fixed(
    builder: Builder, tmp_path: Path
) -> None:
    _, published = build_ir(builder, Request(model="tiny-bert", precision="fp32"), tmp_path)
    report = report_of(published.folder)
    assert (report["free_dimensions"], report["fixed_dimensions"]) == (["batch"], {"sequence": 128})
    assert shapes(report) == [(1, 128), (2, 128), (4, 128)]
    assert report["parity"]["refused"] == []  # a graph that was frozen for one length is tried at no other
    assert all(
        shape["max_abs_difference"] <= report["parity"]["threshold"] for shape in report["parity"]["shapes"]
    )


# a fine-tuned checkpoint


def test_a_fine_tuned_checkpoint_gives_the_probabilities_that_run_classifier_predicts(
    builder: Builder, tiny_build: TinyBuild, tuned: Path, tmp_path: Path, run_program: Callable[..., Any]
) -> None:
    done, folder = build(builder, tuned, tmp_path, head="classifier", precision="fp32", seq_len=TOKENS)
    assert folder == tmp_path / "tuned" / "reshapable-fp32-classifier-1x64"
    report = report_of(folder)
    assert report["outputs"][0]["names"] == ["loss/Softmax:0"]
    assert report["from"]["model"]["prefix"] == TUNED
    assert report["from"]["model"]["files"]["bert_model.ckpt.index"] == str(
        Digest.of_file(tuned / f"{TUNED}.index")
    )
    predicted = run_classifier(
        builder,
        tiny_build,
        "--do_predict=true",
        "--init_checkpoint=/in/bert_model.ckpt",
        inputs={f"/in/{name}": blob for name, blob in done.checkpoint.files.items() if ".ckpt." in name}
        | {"/in/task/test.tsv": builder.store.add_bytes(rows(str))},
        outputs=["test_results.tsv", "predict.tf_record"],
    )
    expected = np.array(
        [
            [float(number) for number in line.split("\t")]
            for line in read_bytes(builder, predicted["test_results.tsv"]).decode().splitlines()
        ]
    )
    # The same rows, as run_classifier.py itself has encoded them.
    program = (ROOT / "tests/support/steps/probabilities.py").read_text(encoding="utf-8")
    ran = run_program(
        program,
        "/in/model.xml",
        "/in/predict.tf_record",
        "/out/probabilities.json",
        inputs={
            f"/in/{name}": read_bytes(builder, blob)
            for name, blob in {**done.ir.files, "predict.tf_record": predicted["predict.tf_record"]}.items()
        },
        outputs=["probabilities.json"],
    )
    found = np.array(json.loads(read_bytes(builder, ran.artifact["probabilities.json"])))
    assert expected.shape == found.shape == (len(pairs()), 2)
    assert np.ptp(expected[:, 0]) > 0.1  # a classifier that tells rows apart
    assert np.abs(expected - found).max() < 1e-6


def test_the_same_checkpoint_under_another_name_is_the_same_ir_and_nothing_to_do(
    builder: Builder, tuned: Path, tmp_path: Path
) -> None:
    first, _ = build(builder, tuned, tmp_path, precision="fp32", seq_len=TOKENS)
    other = tmp_path / "other"
    other.mkdir()
    for item in tuned.iterdir():
        if item.name != "checkpoint":
            (other / item.name.replace(TUNED, "renamed")).write_bytes(item.read_bytes())
    again, folder = build(builder, other / "renamed", tmp_path, precision="fp32", seq_len=TOKENS)
    assert again.ir == first.ir
    assert all(step.cached for step in again.steps)
    assert folder == tmp_path / "other-renamed" / "reshapable-fp32-1x64"


def test_a_training_graph_ends_in_one_message_for_meta_graph_and_works_for_reshapable(
    builder: Builder, tuned: Path, tmp_path: Path
) -> None:
    with pytest.raises(StepError) as caught:
        build(builder, tuned, tmp_path, recipe="meta-graph")
    said = str(caught.value)
    for part in (
        "bert_model.ckpt.meta is a training graph",
        "IteratorGetNext",
        "slots adam_m",
        "drops numbers out",
    ):
        assert part in said
    assert "--recipe reshapable" in said
    build(builder, tuned, tmp_path, precision="fp32", seq_len=TOKENS)


def test_a_training_graph_of_another_tensorflow_is_told_too(
    builder: Builder, tiny_build: TinyBuild, run_program: Callable[..., Any]
) -> None:
    checkpoint = tiny_build.checkpoint
    program = (ROOT / "tests/support/steps/training_meta.py").read_text(encoding="utf-8")
    made = run_program(
        program,
        "/in/bert_model.ckpt.meta",
        "/out/bert_model.ckpt.meta",
        inputs={"/in/bert_model.ckpt.meta": read_bytes(builder, checkpoint["bert_model.ckpt.meta"])},
        outputs=["bert_model.ckpt.meta"],
    )
    strange = Artifact(files=dict(checkpoint.files) | dict(made.artifact.files))
    with pytest.raises(StepError) as caught:
        builder.run(examine(builder, Request(recipe="meta-graph"), strange))
    said = str(caught.value)
    for part in (
        "training graph",
        "no input: Placeholder",
        "TPUReplicateMetadata (1)",
        "unknown to this TensorFlow: OldOperation",
    ):
        assert part in said


def test_what_only_training_reads_does_not_keep_a_graph_from_being_converted(
    builder: Builder, tiny_build: TinyBuild, run_program: Callable[..., Any]
) -> None:
    # Adam's slots and an operation that is gone, beside a path from the placeholders to the output.
    checkpoint = tiny_build.checkpoint
    program = (ROOT / "tests/support/steps/training_meta.py").read_text(encoding="utf-8")
    made = run_program(
        program,
        "/in/bert_model.ckpt.meta",
        "/out/bert_model.ckpt.meta",
        "aside",
        inputs={"/in/bert_model.ckpt.meta": read_bytes(builder, checkpoint["bert_model.ckpt.meta"])},
        outputs=["bert_model.ckpt.meta"],
    )
    strange = Artifact(files=dict(checkpoint.files) | dict(made.artifact.files))
    request = Request(recipe="meta-graph")
    graph = read_graph(read(builder, builder.run(examine(builder, request, strange)), "graph.json"))
    assert graph.output == "bert/pooler/dense/Tanh"
    assert set(builder.run(convert_published(builder, request, strange, graph)).artifact.files) == {
        "model.xml",
        "model.bin",
    }


def test_a_graph_of_another_checkpoint_is_refused_with_all_that_does_not_fit(
    builder: Builder, tiny_build: TinyBuild
) -> None:
    tensors = weights() | {"embeddings.position_embeddings.weight": np.zeros((32, HIDDEN), np.float32)}
    contents = files(tensors, config(max_position_embeddings=32))
    given = Artifact(files={name: builder.store.add_bytes(data) for name, data in contents.items()})
    other = builder.run(import_checkpoint(builder, given, tiny_build.source.artifact)).artifact
    mixed = dict(tiny_build.checkpoint.files) | {"bert_model.ckpt.meta": other["bert_model.ckpt.meta"]}
    with pytest.raises(StepError) as caught:
        builder.run(examine(builder, Request(recipe="meta-graph"), Artifact(files=mixed)))
    assert "misshapen: bert/embeddings/position_embeddings is [160, 128], the graph takes [32, 128]" in str(
        caught.value
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_hidden_layers": 3}, ["num_hidden_layers 3, the graph has 2"]),
        (
            {"vocab_size": 4},
            ["bert_config.json takes bert/embeddings/word_embeddings as [4, 128], the graph has"],
        ),
        (
            {"hidden_size": 64},
            [
                f"bert_config.json takes bert/embeddings/{table}_embeddings as [{size}, 64], the graph has [{size}, 128]"
                for table, size in (("position", POSITIONS), ("token_type", 2))
            ],
        ),
    ],
    ids=["layers", "vocabulary", "hidden"],
)
def test_a_published_graph_is_held_against_the_configuration_that_is_published_with_it(
    builder: Builder, tiny_build: TinyBuild, changes: dict[str, int], said: list[str]
) -> None:
    own = json.loads(read_bytes(builder, tiny_build.checkpoint["bert_config.json"]))
    other = builder.store.add_bytes(json.dumps(own | changes).encode())
    mixed = Artifact(files=dict(tiny_build.checkpoint.files) | {"bert_config.json": other})
    with pytest.raises(
        StepError, match=r"is not of the model that bert_model\.ckpt\.meta computes"
    ) as caught:
        builder.run(examine(builder, Request(recipe="meta-graph"), mixed))
    for line in said:
        assert line in str(caught.value)


# variables that are not the model's


def with_variables(builder: Builder, checkpoint: Artifact, *names: str) -> Artifact:
    """The checkpoint with more variables in it."""
    program = (ROOT / "tests/support/steps/checkpoint_with.py").read_bytes()
    parts = [f"bert_model.ckpt.{part}" for part in ("data-00000-of-00001", "index")]
    step = ContainerStep(
        name="checkpoint-with",
        arguments=("python3", "/step/program.py", "/in/bert_model.ckpt", "/out/bert_model.ckpt", *names),
        inputs={"/step/program.py": builder.store.add_bytes(program)}
        | {f"/in/{name}": checkpoint[name] for name in parts},
        outputs=parts,
    )
    return Artifact(files=dict(checkpoint.files) | dict(builder.run(step).artifact.files))


def test_a_variable_of_berts_that_the_graph_has_no_place_for_is_refused_by_both_recipes(
    builder: Builder, tiny_build: TinyBuild
) -> None:
    strange = [
        "bert/embeddings/position_embeddings_2",
        "bert/encoder/layer_0/adapter/LayerNorm/gamma",
        "bert/encoder/layer_5/output/dense/bias",
    ]
    slot = "bert/encoder/layer_5/output/dense/bias/adam_m"  # of one that is named already
    checkpoint = with_variables(builder, tiny_build.checkpoint, *strange, slot)
    recipes: dict[str, Callable[[], object]] = {
        "reshapable": lambda: builder.run(
            freeze(builder, tiny_build.request, tiny_build.weights, tiny_build.source.artifact, checkpoint)
        ),
        "meta-graph": lambda: builder.run(examine(builder, Request(recipe="meta-graph"), checkpoint)),
    }
    for run in recipes.values():
        with pytest.raises(StepError) as caught:
            run()
        named = [line.strip() for line in str(caught.value).splitlines() if "unused:" in line]
        assert named == [f"unused: {name}" for name in strange]


def test_what_training_and_other_heads_leave_in_a_checkpoint_changes_nothing(
    builder: Builder, tiny_build: TinyBuild
) -> None:
    checkpoint = with_variables(
        builder,
        tiny_build.checkpoint,
        "bert/embeddings/LayerNorm/gamma/Adam_1",
        "bert/encoder/layer_0/output/dense/kernel/adam_m",
        "bert/encoder/layer_0/output/dense/kernel/adam_v",
        "cls/predictions/output_bias",
        "cls/seq_relationship/output_weights",
        "global_step",
        "output_weights",
    )
    frozen = builder.run(
        freeze(builder, tiny_build.request, tiny_build.weights, tiny_build.source.artifact, checkpoint)
    )
    assert not frozen.cached
    assert frozen.artifact == tiny_build.frozen.artifact
    assert not builder.run(examine(builder, Request(recipe="meta-graph"), checkpoint)).cached


@pytest.mark.usefixtures("tiny_build")
def test_a_checkpoint_without_a_classifier_has_no_probabilities(builder: Builder, tmp_path: Path) -> None:
    with pytest.raises(
        StepError, match="the checkpoint has no classifier: its variable output_weights is missing"
    ):
        build_ir(builder, Request(model="tiny-bert", head="classifier"), tmp_path)
    with pytest.raises(StepError, match="no node loss/Softmax, which the head classifier needs") as caught:
        build_ir(builder, Request(model="tiny-bert", head="classifier", recipe="meta-graph"), tmp_path)
    assert "Nor has the checkpoint a classifier" in str(caught.value)
    assert "--recipe reshapable" not in str(caught.value)  # which has just refused it
    assert not list(tmp_path.iterdir())


def test_a_classifier_that_the_published_graph_lacks_can_be_had_by_the_other_recipe(
    builder: Builder, tiny_build: TinyBuild
) -> None:
    checkpoint = with_variables(builder, tiny_build.checkpoint, "output_weights")
    with pytest.raises(StepError, match="no node loss/Softmax") as caught:
        builder.run(examine(builder, Request(recipe="meta-graph", head="classifier"), checkpoint))
    assert "Use --recipe reshapable" in str(caught.value)


def test_without_a_meta_there_is_no_meta_graph(builder: Builder, tuned: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for item in tuned.iterdir():
        if not item.name.endswith(".meta"):
            (bare / item.name).write_bytes(item.read_bytes())
    with pytest.raises(ConfigurationError, match="there is none beside it") as caught:
        build(builder, bare, tmp_path, recipe="meta-graph")
    assert "--recipe reshapable" in caught.value.advice


# a Hugging Face directory


def hugging_face(folder: Path, tensors: dict[str, np.ndarray], **changes: object) -> Path:
    folder.mkdir()
    for name, data in files(tensors, config(**changes)).items():
        (folder / name).write_bytes(data)
    return folder


def test_a_hugging_face_classifier_keeps_its_head_whatever_its_number_of_labels(
    builder: Builder, tmp_path: Path
) -> None:
    prefixed = {f"bert.{name}": tensor for name, tensor in weights().items()} | classifier(5)
    folder = hugging_face(tmp_path / "hf", prefixed, architectures=["BertForSequenceClassification"])
    outputs = {}
    for recipe in ("reshapable", "meta-graph"):
        _, published = build(
            builder, folder, tmp_path / "dist", head="classifier", precision="fp32", recipe=recipe
        )
        outputs[recipe] = report_of(published)["outputs"][0]["partial_shape"]
    assert outputs == {"reshapable": "[1,5]", "meta-graph": "[?,5]"}


def test_a_classifier_that_reads_no_words_is_refused(builder: Builder, tmp_path: Path) -> None:
    prefixed = {f"bert.{name}": tensor for name, tensor in weights().items()} | classifier(5)
    words = "bert.embeddings.word_embeddings.weight"
    prefixed[words] = np.zeros_like(prefixed[words])
    folder = hugging_face(tmp_path / "hf", prefixed, architectures=["BertForSequenceClassification"])
    for recipe in ("reshapable", "meta-graph"):
        with pytest.raises(ParityError, match="agreement proves nothing"):
            build(builder, folder, tmp_path / "dist", head="classifier", recipe=recipe)
    assert not (tmp_path / "dist").exists()


def by_all_of_tensorflow(builder: Builder, step: ContainerStep) -> ContainerStep:
    """The step with all that `import tensorflow` imports, and an Estimator of TensorFlow's for the freeze."""
    path = step.arguments[1]
    program = read_bytes(builder, step.inputs[path]).decode()
    other = program.replace('"lazy_tensorflow"', '"tensorflow.compat.v1"').replace(
        "tf.estimator = ESTIMATOR", ""
    )
    assert other != program
    return replace(step, inputs=dict(step.inputs) | {path: builder.store.add_bytes(other.encode())})


@pytest.mark.parametrize("head", ["pooled", "sequence", "classifier"])
def test_names_that_are_imported_when_they_are_asked_for_give_what_all_of_tensorflow_gives(
    builder: Builder, tiny_build: TinyBuild, head: str
) -> None:
    tensors = {f"bert.{name}": tensor for name, tensor in weights().items()} | classifier(3)
    chain = tiny_build.chain(builder, Request(model="tiny-bert", head=head))
    importing = chain.importing(given(builder, tensors, architectures=["BertForSequenceClassification"]))
    checkpoint = builder.run(importing).artifact
    published = tiny_build.chain(builder, Request(model="tiny-bert", head=head, recipe="meta-graph"))
    examining = published.examining(checkpoint)
    steps = [
        *(importing, examining, chain.freezing(checkpoint)),
        *(chain.expecting(checkpoint), published.expecting(checkpoint, builder.run(examining).artifact)),
    ]
    for step in steps:
        other = by_all_of_tensorflow(builder, step)
        assert builder.run(other).artifact == builder.run(step).artifact, step.name


# Where each name that TensorFlow lists is from, without the wrappers around it; nested lists are `Names`, or modules.
WALK = """
import importlib, json, re, sys
from pathlib import Path
importlib.import_module(sys.argv[1])
import tensorflow.compat.v1 as tf

def kind(value):
    while (inner := getattr(value, "__wrapped__", None)) is not None:
        value = inner
    code = getattr(value, "__code__", None)
    if code is not None:
        return [code.co_filename, code.co_firstlineno, value.__name__]
    if isinstance(value, type):
        return [value.__module__, value.__qualname__]
    return [type(value).__name__, str(value)] if isinstance(value, (int, str, float, tuple)) else type(value).__name__

listed = re.compile(r"^from (tensorflow[\\w.]*) import (\\w+)(?: as (\\w+))?", re.MULTILINE)
[package] = [Path(path) for path in sys.modules["tensorflow"].__path__ if path.endswith("/tensorflow")]

def walk(holder, folder, before):
    for module, original, name in listed.findall((folder / "__init__.py").read_text()):
        name = name or original
        try:
            value = getattr(holder, name)
        except Exception as error:
            told[before + name] = type(error).__name__
            continue
        if module.startswith("tensorflow._api."):
            inner = package.joinpath(*module.split(".")[1:], original)
            if inner not in seen:  # some name one another
                seen.add(inner)
                walk(value, inner, f"{before}{name}.")
        else:
            told[before + name] = kind(value)

count, told, seen = len(sys.modules), {}, set()
for name in "Example", "Feature", "Features", "Int64List":
    getattr(tf.train, name)
optimizers = "tensorflow.python.training.training" in sys.modules
others = sorted({name.partition(".")[0] for name in sys.modules} & {"keras", "tensorflow_estimator"})
try:
    tf.no_such_name
except AttributeError as error:
    missing = "no_such_name" in str(error)
walk(tf, package / "_api/v2/compat/v1", "")
json.dump(
    {"told": told, "count": count, "others": others, "missing": missing, "optimizers": optimizers},
    open("/out/told.json", "w"),
)
"""


def test_names_of_tensorflow_are_those_that_it_lists_and_take_less_than_half_of_its_modules(
    run_program: Callable[..., Any], builder: Builder
) -> None:
    lazy = (ROOT / "docker/steps/lazy_tensorflow.py").read_bytes()
    asked, whole = (
        json.loads(
            read(
                builder,
                run_program(WALK, module, outputs=["told.json"], inputs={"/step/lazy_tensorflow.py": lazy}),
                "told.json",
            )
        )
        for module in ("lazy_tensorflow", "tensorflow.compat.v1")
    )
    assert len(whole["told"]) > 3000
    others = {
        name.rpartition(".")[0] for name, found in asked["told"].items() if found != whole["told"][name]
    }
    assert others == {
        "compat.v1.layers",
        "compat.v1.nn.rnn_cell",
    }  # Keras's: of two that TensorFlow has, the other
    assert asked["missing"]
    assert whole["missing"]
    assert asked["others"] == []
    assert (asked["optimizers"], whole["optimizers"]) == (False, True)
    assert asked["count"] < whole["count"] / 2


def test_the_encoder_is_the_same_with_the_prefix_bert_and_without(
    builder: Builder, tiny_build: TinyBuild, tmp_path: Path
) -> None:
    prefixed = {f"bert.{name}": tensor for name, tensor in weights().items()}
    prefixed["cls.seq_relationship.bias"] = np.zeros(2, np.float32)
    folder = hugging_face(tmp_path / "hf", prefixed, architectures=["BertForPreTraining"])
    done, _ = build(builder, folder, tmp_path / "dist", precision="fp32")
    assert done.ir == tiny_build.ir.artifact


@pytest.mark.parametrize(
    ("changes", "labels", "said"),
    [
        ({"problem_type": "multi_label_classification"}, 3, "multi_label_classification"),
        ({}, 1, "labels 1"),
    ],
)
def test_a_classifier_that_is_no_softmax_is_refused(
    builder: Builder, tmp_path: Path, changes: dict[str, object], labels: int, said: str
) -> None:
    tensors = {f"bert.{name}": tensor for name, tensor in weights().items()}
    tensors |= {
        "classifier.weight": np.ones((labels, HIDDEN), np.float32),
        "classifier.bias": np.ones(labels, np.float32),
    }
    folder = hugging_face(
        tmp_path / "hf", tensors, architectures=["BertForSequenceClassification"], **changes
    )
    with pytest.raises(StepError, match=said):
        build(builder, folder, tmp_path / "dist")


def test_a_head_of_the_same_name_that_reads_every_token_is_no_classifier(
    builder: Builder, tiny_build: TinyBuild, tmp_path: Path
) -> None:
    tensors = {f"bert.{name}": tensor for name, tensor in weights().items()} | classifier(5)
    folder = hugging_face(tmp_path / "hf", tensors, architectures=["BertForTokenClassification"])
    done, _ = build(builder, folder, tmp_path / "dist", precision="fp32")
    assert done.ir == tiny_build.ir.artifact
    with pytest.raises(StepError, match="the checkpoint has no classifier"):
        build(builder, folder, tmp_path / "dist", head="classifier")


def imported(
    builder: Builder, build: TinyBuild, tensors: dict[str, np.ndarray], **changes: object
) -> Artifact:
    step = import_checkpoint(builder, given(builder, tensors, **changes), build.source.artifact)
    return builder.run(step).artifact


def test_layer_norms_under_their_names_of_old_are_the_same_checkpoint(
    builder: Builder, tiny_build: TinyBuild
) -> None:
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): tensor
        for name, tensor in weights().items()
    }
    assert sum(name.endswith((".gamma", ".beta")) for name in old) == 2 * (1 + 2 * LAYERS)
    assert imported(builder, tiny_build, old) == tiny_build.checkpoint


def test_who_lacks_tensors_is_not_told_to_save_the_model_again_with_random_ones(
    builder: Builder, tiny_build: TinyBuild
) -> None:
    without = {name: tensor for name, tensor in weights().items() if not name.startswith("pooler.")}
    with pytest.raises(StepError) as caught:
        imported(builder, tiny_build, without)
    said = str(caught.value)
    assert "missing: pooler.dense.bias" in said
    assert "what is missing can't be made up" in said
    assert "save_pretrained" not in said
    more = weights() | {"encoder.layer.9.output.dense.bias": np.zeros(HIDDEN, np.float32)}
    with pytest.raises(StepError, match=r"extra: encoder\.layer\.9") as caught:
        imported(builder, tiny_build, more)
    assert "save_pretrained" in str(caught.value)  # nothing is random then

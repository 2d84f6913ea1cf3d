"""Runs in the container: gives the steps' own programs hostile models by the hundred, each in a process of its own.

hostile_models.py SEED GRAPHS CHECKPOINTS SAFETENSORS OUTPUT: the numbers say how many random cases there are of each kind,
beside those that are written down. In /in lie a sound checkpoint, the Hugging Face model that it was made from, and the
patched source. OUTPUT gets a JSON object: kind → list of [case, outcome, what was said, seconds, megabytes].

An outcome is `right` (it ended well, and the weights are those of the files), `wrong` (it ended well with other weights),
`said` (refused, in the step's own words), `unforeseen` (refused by what catches what nobody foresaw), `traceback` (it ended
badly, without a word of the step's), `crashed SIG…` or `hung`.
"""

# ruff: noqa: E402, I001 - the steps' own modules are found once their folders are named
from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import struct
import sys
import time
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path[:0] = ["/in/steps", "/in/source"]

import examine
import hostile_graphs  # type: ignore[import-not-found]
import import_checkpoint
import numpy as np
import model
import published
import reference
import run_classifier
import said
import tensorflow.compat.v1 as tf
from modeling import BertConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Case = tuple[str, dict[str, bytes], str]  # name, files, what must be said (empty: nothing in particular)

SECONDS = 60
CHECKPOINT, MODEL = Path("/in/checkpoint"), Path("/in/model")
PREFIX = "bert_model.ckpt"
META, INDEX, DATA = f"{PREFIX}.meta", f"{PREFIX}.index", f"{PREFIX}.data-00000-of-00001"
TENSORS = "model.safetensors"
WORKER = 0 if os.fork() else 1  # one of two, each with every other case
WORK = Path(f"/tmp/case{WORKER}")
OUTPUT = hostile_graphs.OUTPUT


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


SOUND, GIVEN = files_of(CHECKPOINT), files_of(MODEL)


def weights_of(prefix: Path) -> dict[str, bytes]:
    reader = tf.train.load_checkpoint(str(prefix))
    return {name: reader.get_tensor(name).tobytes() for name in reader.get_variable_to_shape_map()}


# damage


def damaged(data: bytes, chance: random.Random) -> tuple[str, bytes]:
    """Damage bytes as disks, networks and people do."""
    kind = chance.choice(("cut", "bytes", "block", "shuffled", "random", "doubled", "zeros", "inserted"))
    if kind == "cut":
        return kind, data[: chance.randrange(len(data))]
    if kind == "random":
        return kind, chance.randbytes(chance.choice((0, 1, 48, 1000, len(data))))
    changed = bytearray(data)
    at = chance.randrange(len(data))
    size = chance.choice((1, 4, 64, 4096))
    if kind == "bytes":
        for _ in range(chance.choice((1, 2, 20))):
            changed[chance.randrange(len(data))] = chance.randrange(256)
    elif kind == "block":
        changed[at : at + size] = chance.randbytes(len(changed[at : at + size]))
    elif kind == "zeros":
        changed[at : at + size] = bytes(len(changed[at : at + size]))
    elif kind == "doubled":
        changed[at:at] = changed[at : at + size]
    elif kind == "inserted":
        changed[at:at] = chance.randbytes(size)
    else:
        blocks = (
            [data[i : i + 4096] for i in range(0, len(data), 4096)]
            if len(data) > 8192
            else [data[:512], data[512:]]
        )
        chance.shuffle(blocks)
        changed = bytearray(b"".join(blocks))
    return kind, bytes(changed)


def rewired(chance: random.Random) -> tuple[str, bytes]:
    """Change a node of the graph, so that the file is sound and the graph isn't."""
    meta = tf.MetaGraphDef.FromString(SOUND[META])
    nodes = meta.graph_def.node
    node, another = chance.choice(nodes), chance.choice(nodes)
    kind = chance.choice(("op", "input", "no input", "attribute", "attributes", "value", "name", "control"))
    if kind == "op":
        node.op = chance.choice(
            (another.op, "WriteFile", "PyFunc", "ReadFile", "Placeholder", "RandomUniform", "\u00e9")
        )
    elif kind == "input":
        node.input.insert(
            chance.randrange(len(node.input) + 1), f"{another.name}{chance.choice(('', ':1', ':99'))}"
        )
    elif kind == "no input":
        del node.input[:1]
    elif kind == "attribute":
        for name in [*node.attr][:1]:
            del node.attr[name]
    elif kind == "attributes":
        for name in another.attr:
            node.attr[name].CopyFrom(another.attr[name])
    elif kind == "value":
        tensor = node.attr["value"].tensor
        tensor.dtype = chance.randrange(24)
        tensor.tensor_shape.dim.add(size=chance.choice((-1, 0, 3, 1 << 62)))
    elif kind == "name":
        node.name = another.name
    else:
        node.input.append(f"^{another.name}")
    return kind, meta.SerializeToString(deterministic=True)


def graphs(count: int, chance: random.Random) -> Iterator[Case]:
    for index in range(count):
        kind, data = rewired(chance) if index % 2 else damaged(SOUND[META], chance)
        yield f"{index} {kind}", SOUND | {META: data}, ""


def written_graphs() -> Iterator[Case]:
    for name, (change, words) in hostile_graphs.REFUSED.items():
        meta = tf.MetaGraphDef.FromString(SOUND[META])
        change(meta)
        yield name, SOUND | {META: meta.SerializeToString()}, words
    name = hostile_graphs.KERNEL.encode()
    yield (
        "names that aren't UTF-8",
        SOUND | {META: SOUND[META].replace(name, name[:-1] + b"\xff")},
        "cannot be read",
    )
    yield "a file of 40 MB", SOUND | {META: SOUND[META] + bytes(40 << 20)}, "has more than 32 MiB"
    yield "an empty file", SOUND | {META: b""}, "holds no graph"


def sound_graphs() -> Iterator[Case]:
    for name, change in hostile_graphs.ACCEPTED.items():
        meta = tf.MetaGraphDef.FromString(SOUND[META])
        change(meta)
        yield name, SOUND | {META: meta.SerializeToString()}, ""


def checkpoints(count: int, chance: random.Random) -> Iterator[Case]:
    for index in range(count):
        file = INDEX if index % 3 else DATA
        kind, data = damaged(SOUND[file], chance)
        yield f"{index} {file.rpartition('.')[2][:5]} {kind}", SOUND | {file: data}, ""


def saved(values: dict[str, Any]) -> dict[str, bytes]:
    """Give the files of a checkpoint with these variables."""
    folder = Path(f"/tmp/saved{WORKER}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    pid = os.fork()  # no session in this process: its threads would be missing from the others
    if not pid:
        with tf.Graph().as_default(), tf.Session() as session:
            tf.disable_resource_variables()
            variables = [tf.get_variable(name, initializer=value) for name, value in values.items()]
            session.run(tf.global_variables_initializer())
            tf.train.Saver(variables).save(
                session, str(folder / PREFIX), write_meta_graph=False, write_state=False
            )
        os._exit(0)
    os.waitpid(pid, 0)
    return files_of(folder)


def vast_index() -> bytes:
    """Give an index, its checksums right, that tells of one variable more, of 2^40 numbers."""
    from tensorflow.core.framework import types_pb2
    from tensorflow.core.protobuf.tensor_bundle_pb2 import BundleEntryProto, BundleHeaderProto

    entry = BundleEntryProto(dtype=types_pb2.DT_FLOAT, size=4 << 40)
    entry.shape.dim.add(size=1 << 20)
    entry.shape.dim.add(size=1 << 20)
    return table(
        {
            b"": BundleHeaderProto(num_shards=1, version={"producer": 1}).SerializeToString(),
            b"bert/vast": entry.SerializeToString(),
        }
    )


def varint(number: int) -> bytes:
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def masked_crc(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def table(entries: dict[bytes, bytes]) -> bytes:
    """Write a table as LevelDB and TensorFlow's checkpoints have it."""
    out = b""

    def block(pairs: dict[bytes, bytes]) -> bytes:
        nonlocal out
        body = b"".join(
            b"\0" + varint(len(key)) + varint(len(value)) + key + value for key, value in pairs.items()
        )
        body += struct.pack("<II", 0, 1) + b"\0"
        handle = varint(len(out)) + varint(len(body) - 1)
        out += body + struct.pack("<I", masked_crc(body))
        return handle

    data = block(entries)
    meta = block({})
    index = block({max(entries) + b"z": data})
    return out + (meta + index).ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)


def written_checkpoints() -> Iterator[Case]:
    reader = tf.train.load_checkpoint(str(CHECKPOINT / PREFIX))
    values = {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
    kernel = hostile_graphs.KERNEL
    less = saved({name: value for name, value in values.items() if name != kernel})
    yield "one variable less", SOUND | less, kernel
    yield "another .index", SOUND | {INDEX: less[INDEX]}, ""
    yield "another .data", SOUND | {DATA: less[DATA]}, ""
    yield "a wrong shape", SOUND | saved(values | {kernel: values[kernel][:64]}), kernel
    yield "a wrong type", SOUND | saved(values | {kernel: values[kernel].astype(np.float64)}), ""
    yield "texts for numbers", SOUND | saved(values | {kernel: np.full((128, 128), b"x", object)}), ""
    yield "short data", SOUND | {DATA: SOUND[DATA][:-1]}, ""
    yield "no data", SOUND | {DATA: b""}, ""
    yield "a variable of 2^40 numbers", SOUND | {INDEX: vast_index()}, ""
    named = SOUND | saved(values | {"bert/aa/../../../out/x": values[kernel]})
    yield "a variable that is named as a path", named, "unused: bert/aa/../../../out/x"


def safetensors(count: int, chance: random.Random) -> Iterator[Case]:
    data = GIVEN[TENSORS]
    (size,) = struct.unpack("<Q", data[:8])
    for index in range(count):
        if index % 8 == 0:  # most bytes are weights, and every one of those is a weight
            kind, changed = damaged(data, chance)
        else:
            kind, header = damaged(data[: 8 + size], chance)
            changed = header + data[8 + size :]
        yield f"{index} {kind}", GIVEN | {TENSORS: changed}, ""


def with_header(change: Callable[[dict[str, Any]], object]) -> bytes:
    data = GIVEN[TENSORS]
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    text = json.dumps(change(header) or header).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + size :]


def changed_to(name: str, key: str, value: object) -> Callable[[dict[str, Any]], object]:
    return lambda header: header[name].update({key: value})


def written_safetensors() -> Iterator[Case]:  # noqa: C901 - a list
    data = GIVEN[TENSORS]
    (size,) = struct.unpack("<Q", data[:8])
    name = "pooler.dense.weight"

    def header(words: str, case: str, change: Callable[[dict[str, Any]], object]) -> Case:
        return case, GIVEN | {TENSORS: with_header(change)}, words

    for length in (0, 1, len(data), 1 << 63, (1 << 64) - 1):
        yield (
            f"a header of {length} bytes",
            GIVEN | {TENSORS: struct.pack("<Q", length) + data[8:]},
            "cannot be read",
        )
    for begin, end in (
        (-1, 10),
        (0, 1 << 70),
        (0, 65536),
        (1 << 40, (1 << 40) + 65536),
        (65536, 0),
        (0.5, 1),
    ):
        yield header("", f"offsets {begin} to {end}", changed_to(name, "data_offsets", (begin, end)))
    for shape in ([128], [64, 256], [1 << 40, 1 << 40], [-1], [128, 128, 1], [1 << 70], "x", None):
        yield header("", f"a shape {shape}", changed_to(name, "shape", shape))
    for kind in ("I32", "F64", "BF16", "F4", "", 7, None):
        yield header("", f"a type {kind}", changed_to(name, "dtype", kind))
    yield header("", "a name less", lambda h: h.pop(name) and None)
    yield header("", "a list", lambda h: [h])
    text = data[8 : 8 + size].replace(b'"pooler.dense.bias"', b'"pooler.dense.weight"')
    yield "a name twice", GIVEN | {TENSORS: struct.pack("<Q", len(text)) + text + data[8 + size :]}, ""
    deep = b'{"a":' * 100_000
    yield "deep JSON", GIVEN | {TENSORS: struct.pack("<Q", len(deep)) + deep}, "cannot be read"
    value: Any
    for number in (float("nan"), float("inf"), float("-inf")):
        changed = bytearray(data)
        changed[-4:] = struct.pack("<f", number)
        yield f"a weight {number}", GIVEN | {TENSORS: bytes(changed)}, "holds NaN or infinite numbers"
    config = json.loads(GIVEN["config.json"])
    for key in (
        *import_checkpoint.INTEGERS,
        *import_checkpoint.TRAINING,
        "hidden_act",
        "architectures",
        "layer_norm_eps",
    ):
        for value in (
            10**9,
            10**400,
            -1,
            0,
            1.5,
            "x" * 100_000,
            None,
            float("nan"),
            float("inf"),
            [],
            {},
            True,
        ):
            if key in import_checkpoint.TRAINING and value in (0, True):
                continue
            if key == "architectures" and not value:
                continue
            changed_config = json.dumps(config | {key: value}).encode()
            words = "config.json" if value is not True or key != "layer_norm_eps" else ""
            yield f"{key} {str(value)[:9]}", GIVEN | {"config.json": changed_config}, words
    for case, text in (
        ("deep", b"[" * 100_000),
        ("no JSON", b"\xff\xfe"),
        ("a list", b"[]"),
        ("a digit too many", b'{"vocab_size": ' + b"9" * 10_000 + b"}"),
    ):
        yield f"config.json {case}", GIVEN | {"config.json": text}, "config.json"
    vocab = GIVEN["vocab.txt"]
    yield "a vocabulary of NULs", GIVEN | {"vocab.txt": bytes(1000)}, "vocab.txt lacks"
    yield "a vocabulary of one line", GIVEN | {"vocab.txt": b"x" * 10_000_000}, "vocab.txt lacks"
    yield "a vocabulary of many lines", GIVEN | {"vocab.txt": vocab + b"\n" * 1_000_000}, "vocab.txt has"
    yield "a vocabulary that isn't UTF-8", GIVEN | {"vocab.txt": vocab + b"\xff"}, "vocab.txt cannot be read"


# what is run of the steps


def publish_graph() -> str:
    """Do what examine.py does, and what reference.py does after it; give `right` if the weights are the checkpoint's."""
    examine.examine(WORK / META, WORK / PREFIX, WORK / "bert_config.json", "pooled")
    session = published.restored_session(WORK / META, WORK / PREFIX, ["Placeholder"], OUTPUT, rounded=False)
    inputs = ["Placeholder:0", "Placeholder_1:0", "Placeholder_2:0"]
    try:
        side = reference.Side(name="outputs", session=session, inputs=inputs, output=OUTPUT)
        side.run([np.ones((1, 8), np.int32)] * 3)
    except reference.Refused as error:
        said.fail(error)  # as the program does
    values = {
        node.name: session.run(f"{node.name}:0").tobytes()
        for node in session.graph.as_graph_def().node
        if node.op in {"Variable", "VariableV2"}
    }
    return "right" if values.items() <= EXPECTED.items() else "wrong"


def feed() -> str:
    """Do what reference.py does with a checkpoint from which the graph is made anew."""
    config = CHECKPOINT / "bert_config.json"
    anew = model.Model(source=Path("/in/source"), config=config, checkpoint=WORK / PREFIX, head="pooled")
    found = {name.removesuffix(":0"): values.tobytes() for name, values in anew.weights.items()}
    return "right" if found and found.items() <= EXPECTED.items() else "wrong"


def freeze() -> str:
    """Do what the patched run_classifier.py does once it has built its graph."""
    frozen = WORK / "frozen.pb"
    with FROZEN.as_default(), contextlib.suppress(SystemExit):
        run_classifier.freeze_and_exit(str(WORK / PREFIX), OUTPUT, str(frozen))
    if not frozen.exists():
        sys.exit(1)
    found = {
        node.name: tf.make_ndarray(node.attr["value"].tensor).tobytes()
        for node in tf.GraphDef.FromString(frozen.read_bytes()).node
        if node.op == "Const" and node.name in EXPECTED
    }
    return (
        "right"
        if found == {name: EXPECTED[name] for name in found} and len(found) == len(EXPECTED)
        else "wrong"
    )


def import_model() -> str:
    """Run import_checkpoint.py; what it wrote is compared with the file, which is read by other means."""
    arguments = {"model": TENSORS, "config": "config.json", "vocab": "vocab.txt"}
    sys.argv = ["import_checkpoint.py", *(f"--{key}={WORK / name}" for key, name in arguments.items())]
    sys.argv += ["--source=/in/source", f"--output={WORK / 'out'}"]
    (WORK / "out").mkdir()
    import_checkpoint.main()
    data = (WORK / TENSORS).read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    for variable, value in weights_of(WORK / "out" / PREFIX).items():
        told = header[import_checkpoint.hugging_face_name(variable)]
        begin, end = told["data_offsets"]
        if told["dtype"] == "BF16":
            flat = (np.frombuffer(body[begin:end], np.uint16).astype(np.uint32) << 16).view(np.float32)
        else:
            flat = np.frombuffer(body[begin:end], {"F32": np.float32, "F16": np.float16}[told["dtype"]])
        array = flat.astype(np.float32).reshape(told["shape"])
        if (array.T if variable.endswith("/kernel") else array).tobytes() != value:
            return "wrong"
    return "right"


def tell(outcome: str) -> None:
    os.write(1, f"\noutcome: {outcome}\n".encode())


def attempt(case: Case, run: Callable[[], str]) -> list[Any]:
    """Run one case in a process of its own."""
    name, files, words = case
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir()
    for file, data in files.items():
        (WORK / file).write_bytes(data)
    log = Path(f"/tmp/log{WORKER}")
    begun = time.monotonic()
    if not (pid := os.fork()):
        handle = os.open(log, os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        signal.alarm(SECONDS)
        said.run(lambda: tell(run()))
    _, raw, usage = os.wait4(pid, 0)
    text = log.read_text(encoding="utf-8", errors="replace")
    spoken = [line.removeprefix(said.PREFIX) for line in text.splitlines() if line.startswith(said.PREFIX)]
    if os.WIFSIGNALED(raw):
        number = os.WTERMSIG(raw)
        outcome = "hung" if number == signal.SIGALRM else f"crashed {signal.Signals(number).name}"
    elif os.WEXITSTATUS(raw) == 0:
        outcome = text.rpartition("outcome: ")[2].partition("\n")[0]
    elif not spoken:
        outcome, spoken = "traceback", text.splitlines()[-3:]
    else:
        outcome = "unforeseen" if "can't make sense of its input" in spoken[0] else "said"
    if words and words not in "\n".join(spoken):
        outcome = f"not {words!r} but {outcome}"
    return [name, outcome, spoken[:3], round(time.monotonic() - begun, 2), usage.ru_maxrss // 1024]


def graph_to_freeze() -> tf.Graph:
    graph = tf.Graph()
    with graph.as_default():
        ids = [tf.placeholder(tf.int32, [1, 16]) for _ in range(3)]
        config = BertConfig.from_json_file(str(CHECKPOINT / "bert_config.json"))
        run_classifier.create_model(config, False, *ids, tf.zeros([1], tf.int32), 2, False)
    return graph


def main(seed: str, graph_count: str, checkpoint_count: str, safetensors_count: str, output: str) -> None:
    chance = random.Random(int(seed))  # noqa: S311 - it is to be the same each time
    damaged_checkpoints = list(checkpoints(int(checkpoint_count), chance))
    kinds: dict[str, tuple[Iterator[Case] | list[Case], Callable[[], str]]] = {
        "sound graphs": (sound_graphs(), publish_graph),
        "written graphs": (written_graphs(), publish_graph),
        "random graphs": (graphs(int(graph_count), chance), publish_graph),
        "written checkpoints": (list(written_checkpoints()), publish_graph),
        "written checkpoints, frozen": (list(written_checkpoints()), freeze),
        # What is in a checkpoint beside what the graph asks for is the freeze's to refuse.
        "written checkpoints, fed": (
            [case for case in written_checkpoints() if not case[2].startswith("unused")],
            feed,
        ),
        "random checkpoints": (damaged_checkpoints, publish_graph),
        "random checkpoints, frozen": (damaged_checkpoints, freeze),
        "random checkpoints, fed": (damaged_checkpoints, feed),
        "written models": (written_safetensors(), import_model),
        "random models": (safetensors(int(safetensors_count), chance), import_model),
    }
    found = {
        kind: [attempt(case, run) for case in islice(cases, WORKER, None, 2)]
        for kind, (cases, run) in kinds.items()
    }
    if WORKER:
        Path("/tmp/found").write_text(json.dumps(found), encoding="utf-8")
        os._exit(0)
    os.wait()
    for kind, outcomes in json.loads(Path("/tmp/found").read_text(encoding="utf-8")).items():
        found[kind] += outcomes
    Path(output).write_text(json.dumps(found), encoding="utf-8")


EXPECTED = weights_of(CHECKPOINT / PREFIX)
tf.disable_eager_execution()
tf.disable_resource_variables()
FROZEN = graph_to_freeze()

if __name__ == "__main__":
    main(*sys.argv[1:])

"""Say what the first byte that differs belongs to: `locate.py NAME OFFSET PLACE.json`.

Runs inside the container, as what it reads may be a stranger's graph. `/in/left` and `/in/right` have the files that a
stage of two builds gave, NAME is the one that differs. Of a frozen graph it says the node, of an IR's `.xml` the layer
and the element, of its `.bin` the constant, of a checkpoint the tensor, of a layer of the image the file, of JSON the path.
"""

from __future__ import annotations

import json
import sys
import tarfile
from itertools import zip_longest
from pathlib import Path
from typing import Any
from xml.parsers import expat

INPUTS = Path(__file__).parents[1] / "in"
LEFT, RIGHT = INPUTS / "left", INPUTS / "right"
SHOWN = 60  # characters of a value


def shown(value: object) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def in_graph(left: Path, right: Path, _: int) -> str:
    import tensorflow.compat.v1 as tf

    graphs = [tf.GraphDef.FromString(path.read_bytes()) for path in (left, right)]
    for one, other in zip_longest(*(graph.node for graph in graphs)):
        if one is None or other is None:
            return f"node {(one or other).name}, which only one of the two has"
        if one.name != other.name:
            return f"node {one.name}, where the other has {other.name}"
        if (found := in_node(one, other)) is not None:
            return f"node {one.name}{found}"
    return "no node, but what is beside them"


def in_node(one: Any, other: Any) -> str | None:  # noqa: ANN401 - NodeDefs
    if one.SerializeToString(deterministic=True) == other.SerializeToString(deterministic=True):
        return None
    for part in ("op", "device"):
        if getattr(one, part) != getattr(other, part):
            return f": {part} {getattr(one, part)} and {getattr(other, part)}"
    if list(one.input) != list(other.input):
        return f": inputs {shown(list(one.input))} and {shown(list(other.input))}"
    for key in sorted({*one.attr, *other.attr}):
        if one.attr.get(key) != other.attr.get(key):
            return f": attribute {key}"
    return ""


def in_xml(left: Path, _right: Path, offset: int) -> str:
    """The element that the byte lies in, with the layer's name and id, and the attribute if it is in one."""
    data = left.read_bytes()
    path: list[str] = []
    found: list[str] = []
    parser = expat.ParserCreate()

    def begin(name: str, attributes: dict[str, str]) -> None:
        named = "".join(f'[@{key}="{shown(attributes[key])}"]' for key in ("id", "name") if key in attributes)
        path.append(name + named)
        if parser.CurrentByteIndex <= offset:
            found[:] = path

    def end(_: str) -> None:
        path.pop()

    parser.StartElementHandler, parser.EndElementHandler = begin, end
    parser.Parse(data, True)
    before = data[:offset].rpartition(b"<")[2]
    attribute = ""
    if before.count(b'"') % 2:  # within a value
        attribute = f", attribute {before.rpartition(b'=')[0].split()[-1].decode('utf-8', 'replace')}"
    return f"element /{'/'.join(found)}{attribute}"


def in_json(left: Path, right: Path, _: int) -> str:
    def walk(one: Any, other: Any, path: str) -> str | None:  # noqa: ANN401 - any JSON value
        if type(one) is type(other) and isinstance(one, dict):
            for key in sorted({*one, *other}):
                if (found := walk(one.get(key), other.get(key), f"{path}.{key}")) is not None:
                    return found
            return None
        if type(one) is type(other) and isinstance(one, list):
            for index, (first, second) in enumerate(zip_longest(one, other)):
                if (found := walk(first, second, f"{path}[{index}]")) is not None:
                    return found
            return None
        return None if one == other else f"{path or '.'}: {shown(one)} and {shown(other)}"

    return (
        walk(json.loads(left.read_bytes()), json.loads(right.read_bytes()), "") or "only in how it is written"
    )


def in_tar(left: Path, _right: Path, offset: int) -> str:
    with tarfile.open(left, "r:") as tar:
        for member in tar:
            if offset < member.offset_data + -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE:
                part = (
                    "its header"
                    if offset < member.offset_data
                    else f"byte {offset - member.offset_data} of it"
                )
                return f"entry {member.name}, {part}"
    return "the end of the archive"


def in_weights(left: Path, _right: Path, offset: int) -> str:
    """The constant of model.xml that has its numbers at this place."""
    layer, found = "", ""
    parser = expat.ParserCreate()

    def begin(name: str, attributes: dict[str, str]) -> None:
        nonlocal layer, found
        if name == "layer":
            layer = attributes.get("name", "")
        elif name == "data" and {"offset", "size"} <= attributes.keys():
            first = int(attributes["offset"])
            if first <= offset < first + int(attributes["size"]):
                found = f"constant {shown(layer)}"

    parser.StartElementHandler = begin
    parser.Parse(left.with_suffix(".xml").read_bytes(), True)
    return found or "no constant"


def in_checkpoint(left: Path, right: Path, _: int) -> str:
    """The first tensor, by name, that differs. The data of a checkpoint can't be read without its index."""
    import tensorflow.compat.v1 as tf

    readers = [tf.train.load_checkpoint(str(path).partition(".data-")[0]) for path in (left, right)]
    one, other = (reader.get_variable_to_shape_map() for reader in readers)
    for name in sorted({*one, *other}):
        if name not in one or name not in other:
            return f"tensor {name}, which only one of the two has"
        tensors = [reader.get_tensor(name) for reader in readers]
        if tensors[0].tobytes() != tensors[1].tobytes():
            return f"tensor {name}"
    return "no tensor, but the order in which they lie"


KINDS = {
    ".pb": in_graph,
    ".xml": in_xml,
    ".json": in_json,
    ".tar": in_tar,
    ".bin": in_weights,
    ".data-00000-of-00001": in_checkpoint,
}


def main(arguments: list[str]) -> int:
    name, offset, report = arguments
    place = ""
    for ending, look in KINDS.items():
        if name.endswith(ending):
            try:
                place = look(LEFT / name, RIGHT / name, int(offset))
            except Exception as error:  # noqa: BLE001 - a file that can't be read differs all the same
                place = f"which can't be read as {ending}: {shown(error)}"
    Path(report).write_text(json.dumps({"place": place}), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

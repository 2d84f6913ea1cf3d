"""A frozen graph as `mo` takes it from Python: node by node, a weight where it lies in the file.

Given a file, OpenVINO's frontend for TensorFlow reads the whole of it into a message of protobuf's, and copies each weight out of that
into a constant: the graph's bytes twice. Given an iterator over nodes, it asks each for what it needs. So does this one answer
what the frontend's own reader says of the same node, and the constant of a weight is the file itself, mapped: memory that the
kernel can take back at any time, as it can read it again.

There a number begins at any byte, and not only at each fourth. OpenVINO maps the weights of an IR and of a SavedModel so as well, whatever
their places, and reads them number by number, or by instructions that take them from anywhere (docs/decisions.md).

It answers for what a BERT's graph has. Of another graph `graph_of` gives None, and `mo` reads the file. The file must not change
meanwhile: it is a step's input.

Imported by convert.py, in the container.
"""

from __future__ import annotations

import mmap
import re
import sys
from dataclasses import dataclass
from importlib.machinery import PathFinder
from math import prod
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from google.protobuf.message import DecodeError
from openvino.frontend.tensorflow.py_tensorflow_frontend import _FrontEndDecoderBase as DecoderBase
from openvino.frontend.tensorflow.py_tensorflow_frontend import _FrontEndPyGraphIterator as GraphIterator
from openvino.runtime import OVAny, PartialShape, Tensor, Type

from wire import Field, WireError, exactly, fields, only

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

LARGE = 1 << 16  # bytes of a tensor from which on it isn't read with its node

# Numbers of fields: graph.proto, node_def.proto, attr_value.proto and tensor.proto of TensorFlow; of an entry of a map the key is
# field 1, and the value field 2.
GRAPH_NODE, GRAPH_VERSIONS = 1, 4
NODE_ATTRIBUTE = 5
KEY, VALUE = 1, 2
ATTRIBUTE_TENSOR = 8
TENSOR_CONTENT = 4
# By DataType, of types.proto: OpenVINO's type, NumPy's, and the field of a TensorProto that has such numbers one by one.
TYPES: dict[int, tuple[Any, type[np.generic], str]] = {
    1: (Type.f32, np.float32, "float_val"),
    3: (Type.i32, np.int32, "int_val"),
    9: (Type.i64, np.int64, "int64_val"),
    10: (Type.boolean, np.bool_, "bool_val"),
}
# Of a BERT's graph nothing of these is asked: it is cut behind what gives the rows, and the frontend leaves assertions out.
NOT_ASKED = frozenset({"IteratorV2", "IteratorGetNext", "Assert"})
INPUT = re.compile(
    r"[^:]*(:[0-9]{1,9})?"
)  # a node's name, and the number of its output, if that isn't its first
STRING = 7  # of types.proto: of what an assertion says


class UnknownError(Exception):
    """The graph has what isn't answered for here; says what."""


@dataclass(frozen=True, kw_only=True)
class Content:
    """A large tensor's numbers, in the file.

    Args:
        attribute: the node's, which is the tensor.
        data: the file.
    """

    attribute: str
    data: mmap.mmap
    field: Field

    def mapped(self) -> npt.NDArray[np.uint8]:
        """Their bytes, where they lie.

        Raises:
            ValueError: the file ends before.
        """
        if self.data.size() < self.field.end:  # to read there would end the process
            message = "the frozen graph ends within a tensor"
            raise ValueError(message)
        return np.frombuffer(self.data, np.uint8, self.field.size, self.field.first)


def import_messages() -> tuple[Any, Any]:
    """Import what defines NodeDef and VersionDef, without the TensorFlow that `import tensorflow` would be."""
    found = PathFinder.find_spec("tensorflow")
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError("No module named 'tensorflow'", name="tensorflow")
    package = ModuleType("tensorflow")
    package.__path__ = list(found.submodule_search_locations)
    sys.modules["tensorflow"] = package
    try:
        from tensorflow.core.framework import node_def_pb2, versions_pb2
    finally:
        del sys.modules["tensorflow"]  # whoever looks for it is to find the whole, or nothing
    return node_def_pb2, versions_pb2


MESSAGES, VERSIONS = import_messages()


def read_node(data: mmap.mmap, message: Field) -> tuple[Any, Content | None]:
    """A NodeDef, and the content of its tensor if that is large, without which the NodeDef is.

    Raises:
        UnknownError: something else is large.
        WireError, DecodeError: it is none.
    """
    if message.size < LARGE:
        return MESSAGES.NodeDef.FromString(data[message.first : message.end]), None
    node, found = MESSAGES.NodeDef(), []
    for field in fields(data, message.first, message.end):
        if field.size < LARGE:
            node.MergeFromString(data[field.start : field.end])
        elif field.number == NODE_ATTRIBUTE:
            found.append(field)
        else:
            raise UnknownError("a large node that isn't one tensor")
    if len(found) != 1:
        raise UnknownError(f"a node of {len(found)} large attributes")
    key, value = exactly(data, found[0], KEY, VALUE)
    [tensor] = exactly(data, value, ATTRIBUTE_TENSOR)
    name = data[key.first : key.end].decode()
    if name in node.attr:
        raise UnknownError(f"a node that has two of {name}")
    content = only(data, tensor, TENSOR_CONTENT)
    node.attr[name].tensor.MergeFromString(
        b"".join(
            data[one.start : one.end]
            for one in fields(data, tensor.first, tensor.end)
            if one.number != TENSOR_CONTENT
        )
    )
    return node, Content(attribute=name, data=data, field=content)


def shape_of(message: Any) -> list[int]:  # noqa: ANN401 - a TensorShapeProto
    return [dimension.size for dimension in message.dim]


def require_known(node: Any, content: Content | None) -> None:  # noqa: ANN401 - a NodeDef
    """See that there is an answer for whatever the node may be asked.

    Raises:
        UnknownError: there is none.
    """
    for name in node.input:
        if not INPUT.fullmatch(name):
            raise UnknownError(f"input {name} of {node.name}")
    if is_not_asked(node):
        return
    for name, attribute in node.attr.items():
        kind = attribute.WhichOneof("value")
        if kind == "type":
            known = attribute.type in TYPES
        elif kind == "list":
            [*kinds] = attribute.list.ListFields()
            known = [field.name for field, _ in kinds] == ["i"]
        elif kind == "tensor":
            held = content.field.size if content and content.attribute == name else None
            known = is_known(attribute.tensor, held)
        else:
            known = kind in ("b", "i", "s", "shape")
        if not known:
            raise UnknownError(f"{name} of {node.name}")


def is_not_asked(node: Any) -> bool:  # noqa: ANN401 - a NodeDef
    return node.op in NOT_ASKED or (node.op == "Const" and node.attr["dtype"].type == STRING)


def is_known(tensor: Any, held: int | None) -> bool:  # noqa: ANN401 - a TensorProto
    """Whether it has a number for each place, or one for all, each as it is; of a type and a shape that are known.

    Args:
        tensor: the TensorProto.
        held: bytes of its content, if that isn't in it.
    """
    if tensor.dtype not in TYPES or not tensor.HasField("tensor_shape") or tensor.tensor_shape.unknown_rank:
        return False
    shape = shape_of(tensor.tensor_shape)
    if any(size < 0 for size in shape):
        return False
    _, numbers, listed = TYPES[tensor.dtype]
    size = len(tensor.tensor_content) if held is None else held
    if size:
        return size == prod(shape) * np.dtype(numbers).itemsize
    found = getattr(tensor, listed)
    # Python has floats by eight bytes, and of a NaN not each on its way there and back.
    return len(found) in (1, prod(shape)) and not any(number != number for number in found)  # noqa: PLR0124 - a NaN


class Node(DecoderBase):  # type: ignore[misc] # OpenVINO's bindings have no types
    """What OpenVINO's frontend asks of a node.

    Args:
        node: the NodeDef.
        content: of its tensor, if that isn't in it.
    """

    def __init__(self, node: Any, content: Content | None) -> None:  # noqa: ANN401 - a NodeDef
        DecoderBase.__init__(self)
        self._node = node
        self._content = content

    def get_op_name(self) -> str:
        return str(self._node.name)

    def get_op_type(self) -> str:
        return str(self._node.op)

    def get_input_size(self) -> int:
        """How many inputs it has. A control input (`^name`) is one: the frontend tells it apart by its name."""
        return len(self._node.input)

    def get_input_node_name(self, index: int) -> str:
        return str(self._node.input[index].partition(":")[0])

    def get_input_node_name_output_port_index(self, index: int) -> int:
        return int(self._node.input[index].partition(":")[2] or 0)

    def get_input_node_name_output_port_name(self, _index: int) -> str:
        """Ports have names in functions alone, and there are none."""
        return ""

    def get_attribute(self, name: str) -> Any:  # noqa: ANN401 - an OVAny
        """An attribute's value, of the type by which OpenVINO has it; of one that isn't there, nothing.

        Raises:
            ValueError: it is of a node of which nothing is asked in a BERT's graph; or the file was cut short.
        """
        if is_not_asked(self._node):
            message = f"the frontend asks {self._node.name} for its {name}"
            raise ValueError(message)
        if name not in self._node.attr:
            return OVAny(None)
        attribute = self._node.attr[name]
        kind = attribute.WhichOneof("value")
        value: Any
        if kind == "type":
            value = TYPES[attribute.type][0]
        elif kind == "shape":
            shape = attribute.shape
            value = PartialShape.dynamic() if shape.unknown_rank else PartialShape(shape_of(shape))
        elif kind == "tensor":
            value = self._tensor(name, attribute.tensor)
        elif kind == "list":
            value = list(attribute.list.i)
        elif kind == "s":
            value = attribute.s.decode()
        else:
            value = getattr(attribute, kind)
        return OVAny(value)

    def _tensor(self, attribute: str, message: Any) -> Any:  # noqa: ANN401 - a TensorProto; a Tensor
        """The tensor: a large one in the file, of which it is no more than a view; another in memory of OpenVINO's."""
        of_openvino, numbers, listed = TYPES[message.dtype]
        shape = shape_of(message.tensor_shape)
        if self._content and self._content.attribute == attribute:
            return Tensor(self._content.mapped(), shape, of_openvino)
        tensor = Tensor(of_openvino, shape)
        if message.tensor_content:
            tensor.data[...] = np.frombuffer(message.tensor_content, numbers).reshape(tensor.data.shape)
        else:
            found = np.array(getattr(message, listed), numbers)
            tensor.data[...] = found if len(found) == 1 else found.reshape(tensor.data.shape)
        return tensor


class FrozenGraph(GraphIterator):  # type: ignore[misc] # OpenVINO's bindings have no types
    """The nodes, one after the other, as OpenVINO's frontend asks for them.

    It has to be kept for as long as there is a model of it, whose constants lie in the file as it is mapped here.

    Args:
        nodes: in the order in which they lie in the file.
        data: the file.
    """

    def __init__(self, nodes: list[Node], data: mmap.mmap) -> None:
        GraphIterator.__init__(self)
        self._nodes = nodes
        self._data = data
        self._at = 0

    def give_back(self) -> None:
        """Take what was read of the file off the process's memory; it comes back as it is read again."""
        self._data.madvise(mmap.MADV_DONTNEED)

    def size(self) -> int:
        return len(self._nodes)

    def reset(self) -> None:
        self._at = 0

    def is_end(self) -> bool:
        return self._at >= len(self._nodes)

    def next_impl(self) -> None:
        self._at += 1

    def get_decoder(self) -> Node:
        return self._nodes[self._at]

    def get_body_graph_iterator(self, _name: str) -> None:
        """There are no functions."""

    def get_input_names(self) -> list[str]:
        """Asked of functions alone."""
        return []

    def get_output_names(self) -> list[str]:
        """Asked of functions alone."""
        return []

    def get_input_names_map(self) -> dict[str, str]:
        """No tensor has another name outside."""
        return {}

    def get_output_names_map(self) -> dict[str, str]:
        """No tensor has another name outside."""
        return {}


def read_nodes(data: mmap.mmap) -> list[Node]:
    """The nodes of the graph that lies there, in the order in which they lie.

    Raises:
        UnknownError: there is something else, which isn't known here.
        WireError, DecodeError: it is no graph.
    """
    nodes = []
    for field in fields(data, 0, len(data)):
        if field.number == GRAPH_NODE:
            node, content = read_node(data, field)
            require_known(node, content)
            nodes.append(Node(node, content))
        elif field.number == GRAPH_VERSIONS:
            VERSIONS.VersionDef.FromString(data[field.first : field.end])
        elif field.size:  # functions, for one
            raise UnknownError(f"field {field.number} of the graph")
    return nodes


def graph_of(path: Path) -> FrozenGraph | None:
    """The graph of a file, or None: it has what isn't answered for here, or isn't a graph.

    The file stays mapped: weights are there.
    """
    try:
        with path.open("rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return FrozenGraph(read_nodes(data), data)
    except (
        UnknownError,
        WireError,
        DecodeError,
        ValueError,
    ) as error:  # an empty file can't be mapped: ValueError
        print(f"mo reads the graph itself, as this isn't known here: {error}")  # for the log
        return None

"""What a build was made of, by digests: which step read what which other step, or somebody else, had made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

MODEL, SOURCE, PATCHES, OTHERS = "model", "BERT source", "patches", "bertir's own"
RESULT = "published IR"


@dataclass(frozen=True, kw_only=True)
class Node:
    """A step, what came from outside, or the result.

    Args:
        kind: `material`, `step` or `result`.
        about: a few words beside the name.
        column: from the left; whatever a node is made of stands further left.
    """

    name: str
    kind: str
    about: str
    column: int


@dataclass(frozen=True, kw_only=True)
class Lineage:
    """The nodes, and for each edge the names of what was read and of who read it."""

    nodes: tuple[Node, ...]
    edges: tuple[tuple[str, str], ...]


def lineage(report: Mapping[str, Any]) -> Lineage:
    """Read a report's steps: an edge is a digest that is one's output and another's input."""
    origin, source = report["from"]["model"], report["from"]["source"]
    # Whoever made a digest last has it: the sources that no patch changes are both pristine and patched.
    makers = dict.fromkeys(origin["files"].values(), MODEL)
    archive = origin.get("archive") or {}
    makers |= dict.fromkeys([archive["digest"]] if archive.get("digest") else [], MODEL)
    makers |= dict.fromkeys(source["pristine"].values(), SOURCE)
    makers |= {patch["digest"]: PATCHES for patch in source["patches"]}
    edges: dict[tuple[str, str], None] = {}
    for step in report["steps"]:
        inputs = step["derivation"]["inputs"]
        for path, digest in sorted(inputs.items()):
            maker = OTHERS if path.startswith("/step/") else makers.get(digest, OTHERS)
            if maker != OTHERS:
                edges[maker, step["name"]] = None
        makers |= dict.fromkeys(step["outputs"].values(), step["name"])
    for digest in report["ir"].values():
        edges[makers[digest], RESULT] = None
    # It is published only if these agree.
    edges[report["steps"][-1]["name"], RESULT] = None
    columns = _columns(edges)
    about = {
        MODEL: str(origin["name"]),
        SOURCE: f"commit {source['commit'][:12]}",
        PATCHES: f"{len(source['patches'])} of bertir's",
        RESULT: f"{report['request']['recipe']}, {report['request']['precision']}",
    } | {step["name"]: f"{step['facts'].get('seconds', 0):.1f} s" for step in report["steps"]}
    kinds = {step["name"]: "step" for step in report["steps"]} | {RESULT: "result"}
    return Lineage(
        nodes=tuple(
            Node(name=name, kind=kinds.get(name, "material"), about=about[name], column=column)
            for name, column in sorted(columns.items(), key=lambda item: (item[1], item[0]))
        ),
        edges=tuple(edges),
    )


def _columns(edges: Mapping[tuple[str, str], None]) -> dict[str, int]:
    """Give each node a column that is further right than those of all it is made of; materials right before who reads them."""
    names = list(dict.fromkeys(name for edge in edges for name in edge))
    columns = dict.fromkeys(names, 0)
    for _ in names:
        for before, after in edges:
            columns[after] = max(columns[after], columns[before] + 1)
    read_by: dict[str, list[int]] = {}
    for before, after in edges:
        read_by.setdefault(before, []).append(columns[after])
    made = {after for _, after in edges}
    return {name: column if name in made else min(read_by[name]) - 1 for name, column in columns.items()}


def slots(of: Lineage) -> tuple[list[list[str]], dict[tuple[str, str], list[str]]]:
    """Give what stands in each column, from the left, and through what each edge passes.

    An edge over several columns has a slot of its own in those between, so that it passes beside the nodes there.
    """
    columns = {node.name: node.column for node in of.nodes}
    slots: list[list[str]] = [[] for _ in range(max(columns.values()) + 1)]
    for name, column in columns.items():
        slots[column].append(name)
    ways: dict[tuple[str, str], list[str]] = {}
    for before, after in of.edges:
        between = range(columns[before] + 1, columns[after])
        ways[before, after] = [before, *(f"{before} > {after} @ {column}" for column in between), after]
        for column, slot in zip(between, ways[before, after][1:-1], strict=True):
            slots[column].append(slot)
    return slots, ways

"""The drawings of a report's page, as SVG: what was made of what, and how far TensorFlow and the IR are apart."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from bertir.lineage import slots
from bertir.markup import element

if TYPE_CHECKING:
    from collections.abc import Mapping
    from xml.etree.ElementTree import Element

    from bertir.lineage import Lineage

# Of the graph, in SVG's units: a node, and what is between two.
WIDTH, HEIGHT = 140, 48
ACROSS, DOWN = 44, 18
SHORTEN = 20  # characters that fit in a node
# Of the plot of parity.
LABELS, RANGE, LINE, TOP, BOTTOM = 150, 520, 34, 48, 26


def graph(of: Lineage) -> Element:
    """Draw the lineage from left to right."""
    columns, ways = slots(of)
    height = max(map(len, columns)) * (HEIGHT + DOWN) - DOWN
    width = len(columns) * (WIDTH + ACROSS) - ACROSS
    places = {}  # of each slot: its left, and its middle from above
    for number, column in enumerate(columns):
        top = (height - (len(column) * (HEIGHT + DOWN) - DOWN)) / 2
        for row, slot in enumerate(column):
            places[slot] = (number * (WIDTH + ACROSS), top + row * (HEIGHT + DOWN) + HEIGHT / 2)
    drawing = _drawing("What was made of what; the table below says the same in words", width, height)
    for way in ways.values():
        x, y = places[way[0]]
        path = f"M{x + WIDTH:g} {y:g}"
        for slot in way[1:]:
            x, before = x + WIDTH, y
            right, y = places[slot]
            middle = (x + right) / 2
            path += f" C{middle:g} {before:g} {middle:g} {y:g} {right:g} {y:g} H{right + WIDTH:g}"
            x = right
        drawing.append(element("path", class_="edge", d=path))
    for node in of.nodes:  # over the edges' ends
        x, y = places[node.name]
        drawing.append(
            element(
                "g",
                element(
                    "rect",
                    x=x,
                    y=y - HEIGHT / 2,
                    width=WIDTH,
                    height=HEIGHT,
                    rx=8,
                    class_=f"node {node.kind}",
                ),
                element("text", node.name, x=x + WIDTH / 2, y=y - 4, class_="name"),
                element("text", shortened(node.about), x=x + WIDTH / 2, y=y + 13, class_="about"),
            )
        )
    return drawing


def shortened(text: str) -> str:
    return text if len(text) <= SHORTEN else f"{text[: SHORTEN - 1]}…"


def parity(told: Mapping[str, Any]) -> Element:
    """Draw the largest difference in each shape against what is allowed, on a logarithmic scale."""
    shapes = told["shapes"]
    rounded = any("max_abs_difference_rounded" in shape for shape in shapes)
    limits = {"allowed": told["threshold"]} | (
        {"allowed but for rounding": told["threshold_rounded"]} if rounded else {}
    )
    figures = [
        shape[name]
        for shape in shapes
        for name in ("max_abs_difference", "max_abs_difference_rounded")
        if shape.get(name)
    ]
    lowest = math.floor(math.log10(min([*figures, *limits.values()]))) - 0.2
    highest = math.ceil(math.log10(max([*figures, *limits.values()]))) + 0.2

    def across(value: float) -> float:
        share = (math.log10(value) - lowest) / (highest - lowest) if value > 0 else 0.0
        return LABELS + RANGE * min(max(share, 0.0), 1.0)

    bottom = TOP + LINE * len(shapes)
    drawing = _drawing(
        "Largest difference between TensorFlow and the IR in each shape; the table below has the figures",
        LABELS + RANGE + 20,
        bottom + BOTTOM,
    )
    for power in range(math.ceil(lowest), math.floor(highest) + 1):
        x = across(10.0**power)
        drawing.append(element("line", x1=x, x2=x, y1=TOP - 6, y2=bottom, class_="grid"))
        drawing.append(element("text", f"1e{power}", x=x, y=bottom + 18, class_="axis"))
    for number, value in enumerate(limits.values()):
        x = across(value)
        drawing.append(
            element(
                "line",
                x1=x,
                x2=x,
                y1=TOP - 10 - 18 * number,
                y2=bottom,
                class_=f"limit {('exact', 'rounded')[number]}",
            )
        )
    for number, (name, value) in enumerate(limits.items()):
        anchor = "end" if across(value) > LABELS + RANGE * 0.6 else "start"
        drawing.append(
            element(
                "text",
                f"{name}: {value:.0e}",
                x=across(value),
                y=TOP - 14 - 18 * number,
                class_=f"axis limit-{('exact', 'rounded')[number]} {anchor}",
            )
        )
    for number, shape in enumerate(shapes):
        y = TOP + LINE * number + LINE / 2
        label = f"batch {shape['batch']}, {shape['sequence']} tokens"
        drawing.append(element("text", label, x=LABELS - 12, y=y + 4, class_="label"))
        drawing.append(element("line", x1=LABELS, x2=LABELS + RANGE, y1=y, y2=y, class_="grid"))
        for name, kind in (("max_abs_difference", "exact"), ("max_abs_difference_rounded", "rounded")):
            if name in shape:
                x = across(shape[name] or 0.0)
                drawing.append(
                    element("circle", cx=x, cy=y, r=6, class_=f"dot {kind}")
                    if kind == "exact"
                    else element("rect", x=x - 5, y=y - 5, width=10, height=10, class_=f"dot {kind}")
                )
    return drawing


def _drawing(title: str, width: float, height: float) -> Element:
    drawing = element("svg", viewBox=f"-2 -2 {width + 4:g} {height + 4:g}", role="img", aria_label=title)
    drawing.set("style", f"min-width:{min(width, 720):g}px")
    return drawing

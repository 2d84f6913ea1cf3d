"""HTML and SVG as trees of elements: whatever text is put into one is escaped when it is written."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element, tostring

if TYPE_CHECKING:
    from collections.abc import Iterable

Child = str | Element


def element(tag: str, *children: Child, **attributes: str | float) -> Element:
    """Give an element. Of attributes' names `class_` is `class`, and `stroke_width` is `stroke-width`."""
    made = Element(
        tag, {name.strip("_").replace("_", "-"): _number(value) for name, value in attributes.items()}
    )
    add(made, children)
    return made


def add(parent: Element, children: Iterable[Child]) -> None:
    """Put texts and elements at the end of an element."""
    for child in children:
        if isinstance(child, Element):
            parent.append(child)
        elif len(parent):
            parent[-1].tail = (parent[-1].tail or "") + child
        else:
            parent.text = (parent.text or "") + child


def _number(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:g}"


def html_document(html: Element) -> bytes:
    """Write a whole page.

    Raises:
        ValueError: a text holds what no HTML may: a NUL or another control character.
    """
    written: bytes = tostring(html, encoding="utf-8", method="html")
    return b"<!DOCTYPE html>\n" + written + b"\n"

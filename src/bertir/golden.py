"""The digests that the checkout publishes, tests/golden, beside a build's."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from bertir.launch import Rebuilt
    from bertir.report import Request


@dataclass(frozen=True, kw_only=True)
class Golden:
    """The baseline beside the digests that the checkout publishes."""

    file: str
    compared: int
    different: tuple[str, ...]


def compare_with_golden(root: Path, baseline: Rebuilt, request: Request) -> Golden | None:
    """Compare a build with tests/golden of the checkout `root`, where that has digests of this very build."""
    if baseline.folder is None:
        return None
    path = root / "tests" / "golden" / f"{baseline.folder.parent.name}.json"
    try:
        published: dict[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    if f"{request.variant}/model.xml" not in published:
        return None
    found = {f"{request.variant}/{name}": digest for name, digest in _files(baseline, "convert").items()}
    found |= {f"checkpoint/{name}": digest for name, digest in _files(baseline, "import").items()}
    for key, stage, name in (
        ("frozen_graph", "freeze", "inference_graph.pb"),
        ("image", "image", "image ID"),
    ):
        if digest := _files(baseline, stage).get(name):
            found[key] = digest
    both = sorted(published.keys() & found.keys())
    return Golden(
        file=str(path.relative_to(root)),
        compared=len(both),
        different=tuple(
            f"{name}: published {published[name]}, found {found[name]}"
            for name in both
            if published[name] != found[name]
        ),
    )


def _files(baseline: Rebuilt, stage: str) -> Mapping[str, str]:
    found = baseline.stage(stage)
    return {name: str(digest) for name, digest in found.files.items()} if found else {}

"""What a task prints when it is done: a short table for people, JSON for machines, the same facts in both."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from bertir.digest import Digest
from bertir.redact import printable, without_logins

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from bertir.errors import BertirError
    from bertir.model import Model
    from bertir.publish import Published
    from bertir.report import Build


def to_json(value: Any) -> str:  # noqa: ANN401 - any JSON value
    return json.dumps(value, indent=1, sort_keys=True)


def table(rows: Iterable[Sequence[str]]) -> str:
    """Align columns; the last one is left as it is."""
    listed = [tuple(row) for row in rows]
    widths = [max(len(row[column]) for row in listed) for column in range(len(listed[0]) - 1)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]).rstrip()
        for row in listed
    )


def error_text(error: BertirError) -> str:
    advice = f"\n{error.advice}" if error.advice else ""
    return without_logins(f"error: {error}{advice}")


def error_json(error: BertirError) -> str:
    return to_json(error_facts(error))


def error_facts(error: BertirError) -> dict[str, Any]:
    return {
        "error": {
            "kind": type(error).__name__,
            "message": without_logins(str(error)),
            "advice": without_logins(error.advice),
            "exit_status": error.exit_status,
        }
    }


def build_facts(build: Build, published: Published, seconds: float) -> dict[str, Any]:
    return {
        "request": build.request.facts() | {"model": build.weights.name},
        "free_dimensions": build.parity.report["free_dimensions"],
        "fixed_dimensions": build.parity.report["fixed_dimensions"],
        "folder": str(published.folder),
        "unchanged": published.unchanged,
        "files": {name: str(blob.digest) for name, blob in build.ir.files.items()},
        "parity": {
            "max_abs_difference": build.parity.max_abs_difference,
            "threshold": build.parity.threshold,
            "max_abs_difference_rounded": build.parity.rounded,
            "threshold_rounded": build.parity.exact_threshold,
            "batches": list(build.parity.batches),
            "batches_inferred": list(build.parity.inferred),
        },
        "image": None if build.virtualenv else str(build.image.image_id),
        "virtualenv": build.virtualenv["digest"] if build.virtualenv else None,
        "source_tree": build.source.tree,
        "frozen_graph": str(build.frozen_graph.digest) if build.frozen_graph else None,
        "steps": [
            {"name": step.derivation.step, "cached": step.cached, "seconds": step.facts.get("seconds")}
            for step in build.steps
        ],
        "seconds": round(seconds, 3),
    }


def build_text(facts: Mapping[str, Any]) -> str:
    request, parity = facts["request"], facts["parity"]
    ran = [f"{step['name']} {step['seconds']:.1f} s" for step in facts["steps"] if not step["cached"]]
    batches = ", ".join(str(batch) for batch in parity["batches"])
    if parity["batches_inferred"]:
        batches += f"; reshapes to {', '.join(str(batch) for batch in parity['batches_inferred'])}"
    steps = ", ".join(ran) if ran else "nothing to do: every step was in the store, no container was run"
    free, fixed = facts["free_dimensions"], facts["fixed_dimensions"]
    dimensions = [f"{name} free" for name in free] + [f"{name} {size}" for name, size in fixed.items()]
    figures = f"max abs difference {parity['max_abs_difference']:.1e}, allowed {parity['threshold']:.0e}"
    if (rounded := parity["max_abs_difference_rounded"]) is not None:
        figures += f"; but for rounding {rounded:.1e}, allowed {parity['threshold_rounded']:.0e}"
    return table(
        [
            ("model", f"{request['model']}, {request['recipe']}, {request['precision']}, {request['head']}"),
            ("inputs", ", ".join(dimensions)),
            ("IR", f"{facts['folder']}/model.xml{' (unchanged)' if facts['unchanged'] else ''}"),
            ("model.xml", facts["files"]["model.xml"]),
            ("model.bin", facts["files"]["model.bin"]),
            ("parity", f"{figures}; batches {batches}"),
            ("steps", steps),
            ("seconds", f"{facts['seconds']:.1f}"),
        ]
    )


def verified_text(facts: Mapping[str, Any]) -> str:
    chosen = facts["external_parameters"]
    whose = chosen.get("model") or f"a checkpoint, {chosen['checkpoint']['name']}"
    signed = f"by the key {facts['signed_by']}" if facts["signed_by"] else "not asked for: no --key"
    rows = [
        ("folder", f"{facts['folder']}: nothing is wrong with it"),
        ("subject", facts["subject"]),
        ("model", f"{whose}, {chosen['recipe']}, {chosen['precision']}, {chosen['head']}"),
        *((name, digest) for name, digest in facts["files"].items()),
        ("signed", signed),
        (
            "rebuilt",
            "in a fresh store: the same bits" if facts["rebuilt"] else "not asked for: no --rebuild",
        ),
        ("seconds", f"{facts['seconds']:.1f}"),
    ]
    return table((name, printable(text)) for name, text in rows)


def sbom_facts(value: Mapping[str, Any], place: str, data: bytes) -> dict[str, Any]:
    subject = value["metadata"]["component"]
    return {
        "sbom": place,
        "about": f"{subject['type']} {subject['name']} {subject['version']}",
        "components": len(_listed(value)),
        "serial": value["serialNumber"],
        "digest": str(Digest.of_bytes(data)),
    }


def sbom_text(value: Mapping[str, Any]) -> str:
    """Give a table of the components: what it is, its version, and the licences that it declares."""
    return table(
        [
            ("type", "name", "version", "licence"),
            *((item["type"], item["name"], _short(item), _licences(item)) for item in _listed(value)),
        ]
    )


def _listed(value: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Give the subject, its own parts, and the components beside it."""
    subject = value["metadata"]["component"]
    made = [item for formula in value.get("formulation", []) for item in formula["components"]]
    ancestors = subject.get("pedigree", {}).get("ancestors", [])
    return [subject, *subject.get("components", []), *value.get("components", []), *ancestors, *made]


def _short(item: Mapping[str, Any]) -> str:
    version = str(item.get("version", "")) or next((one["content"] for one in item.get("hashes", [])), "")
    digest = version.removeprefix("sha256:")
    return digest[:12] if len(digest) >= 40 else version  # noqa: PLR2004 - a digest or a commit's id


def _licences(item: Mapping[str, Any]) -> str:
    found = [
        entry.get("expression") or entry["license"].get("id") or f'"{entry["license"]["name"]}"'
        for entry in item.get("licenses", [])
    ]
    return ", ".join(found) or "-"


def model_facts(model: Model, *, default: bool, fetched: bool) -> dict[str, Any]:
    return {
        "name": model.name,
        "title": model.title,
        "licence": model.licence,
        "default": default,
        "layers": model.layers,
        "hidden": model.hidden,
        "vocabulary": model.vocabulary,
        "max_positions": model.max_positions,
        "lower_case": model.lower_case,
        "parameters": model.parameters,
        "bytes": model.archive.size,
        "fetched": fetched,
        "archive": model.archive.to_json(),
        "files": {name: str(digest) for name, digest in model.files.items()},
    }


def _megabytes(model: Mapping[str, Any]) -> str:
    """The download's size; where nobody says it, about what the weights take, four bytes each."""
    return f"{model['bytes'] / 1e6:.1f}" if model["bytes"] else f"~{4 * model['parameters'] / 1e6:.0f}"


def models_text(facts: Iterable[Mapping[str, Any]]) -> str:
    header = ("name", "layers", "hidden", "vocabulary", "case", "MB", "fetched", "what it is")
    return table(
        [
            header,
            *(
                (
                    f"{model['name']}{' (default)' if model['default'] else ''}",
                    str(model["layers"]),
                    str(model["hidden"]),
                    str(model["vocabulary"]),
                    "uncased" if model["lower_case"] else "cased",
                    _megabytes(model),
                    "yes" if model["fetched"] else "no",
                    model["title"],
                )
                for model in facts
            ),
        ]
    )


def collected_text(facts: Mapping[str, Any]) -> str:
    """A collection of the store, as a table."""
    verb = "would go" if facts["dry_run"] else "removed"
    counts = ", ".join(
        f"{facts[kind]} {kind}"
        for kind in ("objects", "records", "downloads", "logs", "virtualenvs")
        if facts[kind]
    )
    rows = [
        ("store", facts["store"]),
        (verb, f"{counts or 'nothing'}, {facts['bytes'] / 1e6:.1f} MB"),
        ("left", f"{facts['kept'] / 1e6:.1f} MB"),
    ]
    if facts["in_use"]:
        rows.append(
            ("in use", f"{facts['in_use'] / 1e6:.1f} MB by {facts['users']} running builds, and kept")
        )
    return table(rows)


def examined_text(facts: Mapping[str, Any]) -> str:
    """A scan of the store, as a table."""
    return table(
        [
            ("store", facts["store"]),
            ("objects", f"{facts['objects']}, {facts['bytes'] / 1e6:.1f} MB, all read"),
            (
                "records",
                f"{facts['records']}, of which {facts['incomplete']} have lost outputs to a collection",
            ),
            ("downloads", f"{facts['parts']} unfinished"),
            ("abandoned", f"{facts['abandoned']} folders of killed builds; the next build removes them"),
            ("damaged", f"{len(facts['findings'])}"),
        ]
    )


def checkup_text(facts: Sequence[Mapping[str, str]]) -> str:
    """What a build relies on, as a table: what is good, what is noted and what is wrong, and what to do about it."""
    rows = []
    for finding in facts:
        found, *more = finding["found"].splitlines()
        rows.append((finding["name"], finding["verdict"], found))
        rows += [("", "", line.strip()) for line in [*more, *finding["advice"].splitlines()] if line.strip()]
    return table(rows)

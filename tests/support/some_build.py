"""A build to report of, without an engine; and a published folder of it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bertir.derivation import Derivation, Realised
from bertir.digest import Digest
from bertir.lock import DebianPackage, ImageLock, LayerPin, WheelPin
from bertir.model import load_models
from bertir.page_step import page_of
from bertir.parity import Parity
from bertir.provenance import provenance
from bertir.publish import checksums, publish
from bertir.report import Build, Request, report
from bertir.store import Artifact, Blob
from bertir.upstream import SourceLock
from bertir.weights import of_model

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bertir.store import Store

FACTS: dict[str, Any] = {
    "bertir": {"version": "0.1.0", "digest": f"sha256:{'b' * 64}"},
    "bytes_out": 6,
    "engine": {
        "api_version": "1.41",
        "architecture": "amd64",
        "kernel": "6.1.0",
        "name": "Engine",
        "version": "20.10.24",
    },
    "finished": "2026-11-22T10:00:02+00:00",
    "log": f"sha256:{'c' * 64}",
    "seconds": 1.5,
    "started": "2026-11-22T10:00:00+00:00",
}
FILES = {
    "model.xml": b"<net/>",
    "model.bin": b"\0" * 4096,
    "vocab.txt": b"[PAD]\n",
    "bert_config.json": b"{}\n",
}


SIGNATURE = {
    "inputs": [
        {"element_type": "i32", "names": ["IteratorGetNext:0"], "partial_shape": "[1,128]"},
        {"element_type": "i32", "names": ["IteratorGetNext:1"], "partial_shape": "[1,128]"},
        {"element_type": "i32", "names": ["IteratorGetNext:4"], "partial_shape": "[1,128]"},
    ],
    "outputs": [
        {"element_type": "f32", "names": ["bert/pooler/dense/Tanh:0"], "partial_shape": "[1,384]"},
    ],
}


def shape(batch: int) -> dict[str, Any]:
    """What was measured in a shape."""
    return {
        "all_finite": True,
        "batch": batch,
        "max_abs_difference": 1e-4 / batch,
        "max_abs_difference_rounded": 1e-7 / batch,
        "mean_abs_difference": 2e-5,
        "min_cosine": 0.999999,
        "rows": batch,
        "sequence": 128,
    }


def digest(text: str) -> Digest:
    return Digest.of_bytes(text.encode())


# What the steps ran in, if not in the image.
VIRTUALENV: dict[str, Any] = {
    "digest": str(digest("virtualenv")),
    "python": "3.11.2",
    "implementation": "cpython",
    "architecture": "x86_64",
    "libc": "glibc 2.36",
    "environment": {"TZ": "UTC"},
    "rules": str(digest("rules")),
    "wheels": [{"name": "numpy", "version": "1.26.4", "digest": str(digest("wheel"))}],
}


def blob(text: str) -> Blob:
    return Blob(digest=digest(text), size=len(text))


def some_build(models: Path) -> Build:
    """A build as the pipeline gives it, of digests that nothing has."""
    derivation = Derivation(
        step="freeze",
        version=1,
        image=digest("image"),
        parameters={"arguments": ["x"]},
        inputs={
            "/in/a": digest("a"),
            "/in/task/dev.tsv": digest("rows"),
            "/in/sentences.txt": digest("sentences"),
            "/step/freeze.py": digest("program"),
        },
    )
    ir = Artifact(files={"model.xml": blob("xml"), "model.bin": blob("bin")})
    step = Realised(derivation=derivation, artifact=ir, facts=FACTS, cached=False)
    measured: dict[str, Any] = {
        "shapes": [shape(1), shape(4)],
        "inferred": [{"batch": batch, "sequence": 128} for batch in (8, 32)],
        "refused": [
            {"batch": 2, "sequence": 64, "refused_by": "TensorFlow: Cannot feed value of shape (2, 64)"}
        ],
        "free_dimensions": ["batch"],
        "fixed_dimensions": {"sequence": 128},
        "discrimination": 0.5,
        "sentences": 4,
        "signature": SIGNATURE,
    }
    return Build(
        request=Request(model="all-minilm-l6-v2"),
        weights=of_model(load_models(models)["all-minilm-l6-v2"]),
        source_url="https://example.org/bert",
        source=SourceLock(
            intent=digest("intent"),
            commit="c" * 40,
            tree="d" * 40,
            pristine={"modeling.py": digest("pristine")},
            patched={"modeling.py": digest("patched")},
            patches=(("0001-b.patch", digest("1")), ("0002-a.patch", digest("2"))),
        ),
        image=ImageLock(
            inputs={},
            platform="linux/amd64",
            debian=(
                DebianPackage(
                    name="python3",
                    version="3.11",
                    architecture="amd64",
                    pool_path="pool/x.deb",
                    size=1,
                    digest=digest("deb"),
                ),
            ),
            wheels=(WheelPin(name="numpy", version="1.26.4", digest=digest("wheel")),),
            layers=(LayerPin(name="debian", digest=digest("layer"), size=1),),
            image_id=digest("image"),
            manifest=digest("manifest"),
        ),
        steps=(step,),
        ir=ir,
        checkpoint=Artifact(files={"vocab.txt": blob("vocab")}),
        frozen_graph=blob("graph"),
        parity=Parity(
            max_abs_difference=1e-4,
            threshold=5e-3,
            rounded=1e-7,
            exact_threshold=1e-5,
            batches=(1, 4),
            inferred=(8, 32),
            report=measured,
        ),
    )


def publish_some(
    models: Path, folder: Path, store: Store, change: Callable[[Build], Build] = lambda build: build
) -> Path:
    """Publish `FILES` under `folder`, with the report and the provenance of such a build."""
    stored = Artifact(files={name: store.add_bytes(data) for name, data in FILES.items()})
    ir = Artifact(files={name: stored[name] for name in ("model.xml", "model.bin")})
    build = some_build(models)
    [step] = build.steps
    checkpoint = Artifact(files={name: stored[name] for name in ("vocab.txt", "bert_config.json")})
    build = change(replace(build, ir=ir, checkpoint=checkpoint, steps=(replace(step, artifact=ir),)))
    told = report(build)
    stated = provenance(told, checksums(stored))
    volatile = {"report.json": store.add_bytes(told), "provenance.json": store.add_bytes(stated)}
    volatile["report.html"] = page_of(store, volatile["report.json"])
    artifact = Artifact(files=dict(stored.files) | volatile)
    return publish(store, artifact, folder / build.weights.name / build.request.variant).folder


def built_at_another_time(build: Build) -> Build:
    """Give a build of one step as if that had run later; its IR is the same."""
    [step] = build.steps
    facts = {**step.facts, "started": "2027-01-01T00:00:00+00:00", "finished": "2027-01-01T00:00:02+00:00"}
    return replace(build, steps=(replace(step, facts=facts),))

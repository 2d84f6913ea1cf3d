"""Building a published folder again from what its provenance says, in a fresh store, and comparing the bits."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bertir import pipeline
from bertir.compare import MEASURED
from bertir.digest import Digest
from bertir.engines import LOCAL, chosen
from bertir.errors import ConfigurationError, ReproducibilityError, VerificationError
from bertir.local_checkpoint import add_checkpoint, find_checkpoint
from bertir.provenance import VIRTUALENV
from bertir.publish import PROVENANCE, VOLATILE
from bertir.redact import printable
from bertir.report import NO_TASK_DATA, OWN_TASK_DATA, Request
from bertir.task_data import MRPC
from bertir.verify import differences

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from bertir.builder import Builder
    from bertir.local_checkpoint import LocalCheckpoint
    from bertir.verify import Verified
    from bertir.wanted import Given

_TYPES: Mapping[str, type] = {
    "model": str, "recipe": str, "precision": str, "head": str, "task_data": str, "batch": int, "seq_len": int,
}  # fmt: skip


def requested(parameters: Mapping[str, Any], given: Given) -> Request:
    """Give the request that `externalParameters` stand for.

    Raises:
        VerificationError: they stand for none.
        ConfigurationError: something was built from the user's own files, and they aren't given.
    """
    for name, value in parameters.items():
        if name in _TYPES and type(value) is not _TYPES[name]:
            raise VerificationError(
                f"externalParameters.{name} is {value!r}, which no build can be asked for"
            )
    wanted = {name: value for name, value in parameters.items() if name in _TYPES and name != "task_data"}
    task_data = parameters.get("task_data", NO_TASK_DATA)
    if task_data == OWN_TASK_DATA and not given.task_data:
        raise ConfigurationError(
            "it was built with task data of the user's own", advice="Give their folder, by --task-data DIR."
        )
    known = {NO_TASK_DATA: "", MRPC: MRPC, OWN_TASK_DATA: given.task_data}
    if task_data not in known:
        raise VerificationError(f"externalParameters.task_data is {task_data!r}, which bertir doesn't know")
    if "checkpoint" in parameters and given.checkpoint is None:
        raise ConfigurationError(
            "it was built from a checkpoint of the user's own", advice="Give it, by --checkpoint DIR."
        )
    if ("checkpoint" in parameters) == ("model" in parameters):
        raise VerificationError("externalParameters name no model, or a model and a checkpoint")
    request = Request(**wanted, task_data=known[task_data])
    pipeline.check(request)
    return request


def engine_of(verified: Verified) -> str:
    """Give the name of the engine that a rebuild takes: what ran in a virtualenv is rebuilt in one, what ran in the image in that."""
    definition = verified.statement["predicate"]["buildDefinition"]
    names = {entry["name"] for entry in definition["resolvedDependencies"]}
    return LOCAL if VIRTUALENV in names else chosen("", {})


def reproduce(builder: Builder, verified: Verified, given: Given) -> Mapping[str, Digest]:
    """Build it again and compare; give the digests, which are the published ones.

    Args:
        builder: on a store that holds nothing.
        verified: the published folder.
        given: the user's own files that went in, if any did.

    Raises:
        VerificationError: this checkout's pins, or the files that were given, aren't those of the provenance.
        ReproducibilityError: the rebuild gave other bits; the message says in which step they differ first.
    """
    parameters = verified.external_parameters
    request = requested(parameters, given)
    require_same_pins(builder, verified)
    local = _checkpoint(builder, parameters["checkpoint"], given) if "checkpoint" in parameters else None
    build = pipeline.build_and_verify(builder, request, builder.pins, local)
    artifact = pipeline.publishable(builder, build)
    statement = json.loads(builder.store.checked(artifact[PROVENANCE], what=PROVENANCE).read_bytes())
    rebuilt = {name: blob.digest for name, blob in artifact.files.items() if name not in VOLATILE}
    if rebuilt != dict(verified.files):
        differing = [
            f"  {name}: published {verified.files.get(name)}, rebuilt {rebuilt.get(name)}"
            for name in sorted({*rebuilt, *verified.files})
            if rebuilt.get(name) != verified.files.get(name)
        ]
        first = _first_difference(_outputs(verified.statement), _outputs(statement))
        raise ReproducibilityError(
            f"the rebuild of {verified.folder} gave other bits\n"
            + "\n".join(differing)
            + f"\n  what differs first: {first}",
            advice="Build it twice more, to see whether it is the rebuild or what was published: invoke check",
        )
    if told := list(_untrue(verified.statement, statement)):
        raise VerificationError(
            f"the rebuild of {verified.folder} gave the same bits, but its provenance says otherwise than they were made\n"
            + "\n".join(map(printable, told)),
            advice="The files are what they should be; don't believe what the statement says of their materials.",
        )
    return rebuilt


def _untrue(published: Mapping[str, Any], rebuilt: Mapping[str, Any]) -> Iterator[str]:
    """Say what a statement claims of how the bits were made that a rebuild of them doesn't."""
    one, other = (value["predicate"]["buildDefinition"] for value in (published, rebuilt))
    for place, found, wanted in differences(one, other, "buildDefinition"):
        yield f"  {place}: published {found}, rebuilt {wanted}"
    claimed, given = _outputs(published), _outputs(rebuilt)
    for name in sorted({*claimed, *given}):
        if name.partition("/")[0] not in MEASURED and claimed.get(name) != given.get(name):
            yield f"  {name}: published {claimed.get(name)}, rebuilt {given.get(name)}"


def require_same_pins(builder: Builder, verified: Verified) -> None:
    """See that this checkout would build from the image, the source, the patches and the programs of the provenance.

    Raises:
        VerificationError: it would not; another revision of bertir built it.
    """
    stated = {
        entry["name"]: entry["digest"]
        for entry in verified.statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    }
    source = builder.pins.source
    pinned: dict[str, dict[str, str]] = {"source": {"gitCommit": source.commit}}
    if VIRTUALENV in stated:
        pinned[VIRTUALENV] = {"sha256": builder.runtime.identity.hex}
    else:
        pinned["image"] = {"sha256": builder.lock.manifest.hex}
    pinned |= {f"patches/{name}": {"sha256": digest.hex} for name, digest in source.patches}
    programs = {path.name: path for path in builder.layout.steps.iterdir() if path.is_file()}
    for name in stated:
        folder, _, program = name.partition("/")
        if folder == "step":
            # The name is the statement's: only a program of the checkout's own is looked at.
            path = programs.get(program)
            pinned[name] = {"sha256": Digest.of_file(path).hex} if path else {}
    patches = {name for name in stated if name.startswith("patches/")}
    others = [
        f"  {name}: published {_told(stated.get(name))}, here {_told(pinned.get(name))}"
        for name in sorted({*pinned, *patches})
        if stated.get(name) != pinned.get(name)
    ]
    if [other.strip().partition(":")[0] for other in others] == [VIRTUALENV]:
        raise VerificationError(
            "its steps ran in a virtualenv that can't be made here: of another Python or C library, or of other wheels\n"
            + "\n".join(map(printable, others)),
            advice="Rebuild it on such a machine (the statement's resolvedDependencies name it), or build it in the image, by"
            " `invoke build-ir --engine docker`, and compare SHA256SUMS: the bits should be the same.",
        )
    if others:
        commits = [
            code["digest"].get("gitCommit", f"one of version {code['annotations']['version']}, with changes")
            for code in verified.statement["predicate"]["runDetails"]["builder"]["builderDependencies"]
        ]
        raise VerificationError(
            "another revision of bertir built it: its pins aren't this checkout's\n"
            + "\n".join(map(printable, others)),
            advice=f"Check out the commit that built it, and run this again there: {printable(' or '.join(commits))}",
        )


def _checkpoint(builder: Builder, stated: Mapping[str, Any], given: Given) -> LocalCheckpoint:
    """Find the user's checkpoint, and see that it is the one that was built from."""
    if given.checkpoint is None:  # `requested` asked for it
        raise ConfigurationError("no checkpoint is given")
    case = "uncased" if stated["lower_case"] else "cased"
    local = find_checkpoint(replace(given.checkpoint, case=case))
    found = {name: blob.digest.hex for name, blob in add_checkpoint(builder.store, local).files.items()}
    others = [
        f"  {name}: published {stated['files'].get(name, 'nothing')}, given {found.get(name, 'nothing')}"
        for name in sorted({*stated["files"], *found})
        if stated["files"].get(name) != found.get(name)
    ]
    if others:
        raise VerificationError(
            f"{given.checkpoint.path} isn't the checkpoint that it was built from\n"
            + "\n".join(map(printable, others)),
            advice="Give that one, by --checkpoint DIR.",
        )
    return replace(local, name=stated["name"])


def _outputs(statement: Mapping[str, Any]) -> dict[str, str]:
    """Give the digest of every step's outputs, in the order in which they were made."""
    steps = [
        step["name"] for step in statement["predicate"]["buildDefinition"]["internalParameters"]["steps"]
    ]
    listed = statement["predicate"]["runDetails"]["byproducts"]
    outputs = {entry["name"]: entry["digest"]["sha256"] for entry in listed}
    return {name: digest for step in steps for name, digest in outputs.items() if name.startswith(f"{step}/")}


def _first_difference(published: Mapping[str, str], rebuilt: Mapping[str, str]) -> str:
    for name in {**published, **rebuilt}:
        if published.get(name) != rebuilt.get(name):
            return name
    return "none of the steps' outputs: what differs was copied from the checkpoint"


def _told(digest: Mapping[str, str] | None) -> str:
    return next(iter(digest.values()), "nothing") if digest else "nothing"

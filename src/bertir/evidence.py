"""What the tasks do that show what a build is worth: verify, sign, keygen, sbom, check. One function a task."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bertir import materials, show
from bertir.errors import ConfigurationError, VerificationError
from bertir.healing import healed
from bertir.installed import is_installed
from bertir.model import load_models, named_or_first
from bertir.publish import SIGNATURES
from bertir.redact import PASSPHRASE
from bertir.task_data import MRPC

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bertir.digest import Digest
    from bertir.errors import BertirError
    from bertir.local_checkpoint import Options
    from bertir.report import Request
    from bertir.session import Session
    from bertir.verify import Verified
    from bertir.wanted import Given, Wanted


def verify(
    session: Session,
    folder: str,
    *,
    key: str,
    rebuild: bool,
    given: Given,
    bundle: str,
    mirror: str,
    as_json: bool,
) -> str:
    from bertir.verify import verify_folder

    if not rebuild and (given.checkpoint or given.task_data or bundle or mirror):
        raise ConfigurationError(
            "--checkpoint, --task-data, --bundle and --mirror are what a rebuild takes",
            advice="Add --rebuild.",
        )
    begun = time.monotonic()
    verified = verify_folder(_folder(folder), Path(key) if key else None)
    rebuilt = _rebuild(session, verified, given, bundle=bundle, mirror=mirror) if rebuild else None
    facts = {
        "folder": str(verified.folder),
        "subject": str(verified.subject),
        "files": {name: str(digest) for name, digest in verified.files.items()},
        "external_parameters": dict(verified.external_parameters),
        "signed_by": verified.signed_by,
        "rebuilt": rebuilt is not None,
        "seconds": round(time.monotonic() - begun, 3),
    }
    return show.to_json(facts) if as_json else show.verified_text(facts)


def _rebuild(
    session: Session, verified: Verified, given: Given, *, bundle: str, mirror: str
) -> Mapping[str, Digest]:
    from bertir.reproduce import engine_of, reproduce, requested

    request = requested(verified.external_parameters, given)
    store = session.store()
    with (
        store.in_use(),
        store.temporary_folder() as folder,
        replace(session, environment={**session.environment, "BERTIR_STORE": str(folder / "store")}).builder(
            offline=bool(bundle), mirror=mirror, paranoid=True, engine=engine_of(verified)
        ) as builder,
    ):
        if bundle:
            materials.unpack(builder, [request.model or None], Path(bundle), task_data=request.task_data)
        return reproduce(builder, verified, given)


def sign(session: Session, folder: str, *, key: str, as_json: bool) -> str:
    from bertir import signature
    from bertir.verify import read, verify_folder
    from bertir.whole_file import whole_file

    passphrase = session.environment.get(PASSPHRASE, "")
    signer = signature.load_private_key(Path(_given("--key", key)), passphrase)
    verified = verify_folder(_folder(folder))
    path = verified.folder / SIGNATURES
    earlier = read(path) if path.exists() else None
    try:
        envelope = signature.sign(verified.stated, signer, earlier)
    except signature.SignatureError as error:
        raise VerificationError(f"{path}: {error}", advice="Remove it, and sign again.") from error
    with whole_file(path, ConfigurationError, size=len(envelope)) as file:
        file.write(envelope)
    facts = {"signatures": str(path), "subject": str(verified.subject), "key": signer.public_key.keyid}
    return show.to_json(facts) if as_json else show.table(list(facts.items()))


def keygen(session: Session, *, key: str, as_json: bool) -> str:
    from bertir import signature

    path = Path(_given("--key", key))
    public, identity = signature.generate_key(path, session.environment.get(PASSPHRASE, ""))
    facts = {"private": str(path), "public": str(public), "key": identity}
    return show.to_json(facts) if as_json else show.table(list(facts.items()))


def sbom(
    session: Session, folder: str, *, job: bool = False, output: str, offline: bool, as_json: bool
) -> str:
    from bertir.sbom import serialised

    if folder and job:
        raise ConfigurationError(
            "--folder and --job exclude each other: whose bill of materials is it to be?"
        )

    if job and is_installed():
        raise ConfigurationError(
            "the job image's bill of materials says what bertir asks for, which only a checkout's pyproject.toml has",
            advice="Ask a checkout of the same version.",
        )
    # Not by Path.resolve, which raises at links that lead in a circle.
    inside = os.path.realpath(Path(output).absolute().parent) == os.path.realpath(folder)
    if folder and output and inside:
        raise ConfigurationError(
            f"--output {output} is in the published folder, which then is no longer as it was published",
            advice="Put it beside the folder.",
        )
    if folder:
        from bertir.model_sbom import published_sbom

        value = published_sbom(Path(folder))
    else:
        from bertir.image_sbom import locked_image_sbom
        from bertir.job_sbom import locked_job_sbom

        written = locked_job_sbom if job else locked_image_sbom
        with session.builder(offline=offline) as builder:
            value = healed(lambda: written(builder), session.progress)
    data = serialised(value)
    if not output:
        return data.decode().rstrip("\n") if as_json else show.sbom_text(value)
    from bertir.whole_file import whole_file

    with whole_file(Path(output), ConfigurationError, size=len(data)) as file:
        file.write(data)
    facts = show.sbom_facts(value, output, data)
    return show.to_json(facts) if as_json else show.table([(name, str(text)) for name, text in facts.items()])


def _folder(name: str) -> Path:
    return Path(_given("a published folder", name))


def _given(what: str, value: str) -> str:
    if not value:
        raise ConfigurationError(f"{what} is missing", advice="invoke --help TASK shows an example.")
    return value


def check(
    session: Session,
    request: Request,
    *,
    checkpoint: Options | None,
    mirror: str,
    wanted: Wanted,
    as_json: bool,
) -> tuple[str, BertirError | None]:
    """Give the text to print, and the error that it ends with."""
    from bertir.check import check as rebuild_and_compare
    from bertir.local_checkpoint import absolute, find_checkpoint
    from bertir.show_check import check_facts, check_text

    if checkpoint and request.model:
        raise ConfigurationError("--model and --checkpoint exclude each other: whose weights is it to be?")
    if checkpoint:
        find_checkpoint(checkpoint)  # what can't be is said before anything is built
        checkpoint = absolute(checkpoint)
    else:
        request = replace(request, model=named_or_first(load_models(session.layout.models), request.model))
    if request.task_data not in ("", MRPC):
        request = replace(request, task_data=str(Path(request.task_data).absolute()))
    with session.builder(mirror=mirror, paranoid=True) as builder:
        checked = rebuild_and_compare(builder, request, checkpoint, wanted)
    facts = check_facts(checked)
    return show.to_json(facts) if as_json else check_text(checked), checked.error()


def audit(session: Session, *, database: str, online: bool, service: str, format_: str) -> str:
    from bertir import audit as audits
    from bertir import show_audit

    if service and not online:
        raise ConfigurationError("--service is what --online asks", advice="Add --online.")
    root = session.layout.root
    if database:
        from bertir.osv import read_database

        pins = {(name, version) for pins in audits.load_pins(root).values() for name, version in pins.items()}
        audits.examine(root, read_database(Path(database), pins))
    found = audits.audit(root)
    if format_ == "markdown":
        return show_audit.audit_markdown(found)
    facts = show_audit.audit_facts(found)
    text = show_audit.audit_text(found)
    if online:
        from bertir.online_audit import ask

        facts["online"] = ask(root, service)
        text += "\nonline: the service names nothing that isn't answered"
    return show.to_json(facts) if format_ == "json" else text

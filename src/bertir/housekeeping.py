"""The tasks that look after what builds leave on a machine, one function a task."""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from bertir import show
from bertir.amount import duration, size
from bertir.collect import DEFAULT_AGE, Rules, collect
from bertir.doctor import examine
from bertir.engines import chosen
from bertir.publish import SUMS, is_ours
from bertir.store import StoreError

if TYPE_CHECKING:
    from bertir.errors import BertirError
    from bertir.session import Session


def clean(session: Session, *, output: str, store: bool, image: bool) -> str:
    removed = []
    if image:
        with session.builder() as builder:
            builder.remove_image()
            removed.append(f"image {builder.lock.image_id.short}")
    for sums in sorted(Path(output).glob(f"*/*/{SUMS}")):
        folder, around = sums.parent, sums.parent.parent
        # What another process is about to publish is staged under such a name; what is published has none.
        if folder.name.startswith(".") or around.name.startswith("."):
            continue
        # A link may lead anywhere: only what lies in the folder itself is removed.
        if is_ours(folder) and not around.is_symlink():
            shutil.rmtree(folder)
            removed.append(str(folder))
            with contextlib.suppress(OSError):  # there is another build, or something of the user's
                around.rmdir()
    if store:
        opened = session.store()
        opened.clear()
        removed.append(f"the store, {opened.root}")
    return "removed: " + (", ".join(removed) or "nothing, there was nothing")


def gc(session: Session, *, older_than: str, max_size: str, dry_run: bool, as_json: bool) -> str:
    age = duration("--older-than", older_than) if older_than else None
    most = size("--max-size", max_size) if max_size else None
    if age is None and most is None:
        age = DEFAULT_AGE
    store = session.store()
    collected = collect(store, Rules(older_than=age, max_size=most, dry_run=dry_run))
    facts = {"store": str(store.root), **asdict(collected)}
    return show.to_json(facts) if as_json else show.collected_text(facts)


def doctor(
    session: Session, *, whole_store: bool, offline: bool, as_json: bool
) -> tuple[str, BertirError | None]:
    """Give the text to print, and the error that it ends with: what a build would end with, or that there was damage."""
    if not whole_store:
        return _check_up(session, offline=offline, as_json=as_json)
    store = session.store()
    examined = examine(store, session.progress)
    facts = {"store": str(store.root), **asdict(examined), "sound": examined.is_sound}
    text = show.to_json(facts) if as_json else show.examined_text(facts)
    if examined.is_sound:
        return text, None
    listed = "\n".join(f"  {finding.path}: {finding.wrong}; {finding.done}" for finding in examined.findings)
    return text, StoreError(
        f"{len(examined.findings)} files in the store {store.root} were damaged\n{listed}",
        advice="The next build fetches or builds anew what it needs of them. See whether the disk is sound.",
    )


def _check_up(session: Session, *, offline: bool, as_json: bool) -> tuple[str, BertirError | None]:
    from bertir.checkup import check_up

    with session.builder(engine=chosen("", session.environment)) as builder:
        findings = check_up(builder, offline=offline)
    facts = [finding.to_json() for finding in findings]
    text = show.to_json({"findings": facts}) if as_json else show.checkup_text(facts)
    return text, next((finding.error for finding in findings if finding.error), None)

"""The page of a report, from the store if this bertir made it before: a build with nothing to do makes none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from bertir.derivation import Derivation, Outcome, realise
from bertir.digest import Digest
from bertir.publish import PAGE, REPORT
from bertir.store import Artifact

if TYPE_CHECKING:
    from bertir.store import Blob, Store

# What the page depends on, beside the report.
_PROGRAM = ("lineage.py", "markup.py", "page.css", "page.py", "plots.py", "redact.py")


def page_of(store: Store, report: Blob) -> Blob:
    """Give `report.html` of a `report.json` that is in the store."""
    here = Path(__file__).parent
    derivation = Derivation(
        step="page",
        version=1,
        inputs={REPORT: report.digest} | {name: Digest.of_file(here / name) for name in _PROGRAM},
    )

    def run() -> Outcome:
        from bertir.page import page

        told = json.loads(store.checked(report, what=REPORT).read_bytes())
        return Outcome(artifact=Artifact(files={PAGE: store.add_bytes(page(told), what=PAGE)}))

    return realise(store, derivation, run, lambda: None).artifact[PAGE]

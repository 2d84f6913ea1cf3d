"""An image that is assembled elsewhere: in another store and folder, under another umask, zone, seed and home."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from checkout import copy_checkout

from bertir.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from checkout import Result

    from bertir.builder import Builder
    from bertir.digest import Digest


def assembled_elsewhere(
    builder: Builder, digests: Iterable[Digest], folder: Path, target: Path, *options: str
) -> Result:
    """Run `invoke image` with the options, offline, where there are these objects of the builder's store and no other."""
    store = Store(folder / "store")
    for digest in digests:
        store.path(digest).parent.mkdir(exist_ok=True)
        if not store.path(digest).exists():
            os.link(builder.store.path(digest), store.path(digest))
    checkout = copy_checkout(folder / "clone", BERTIR_STORE=str(store.root))
    image = f"image --offline --archive '{target}' --format json {' '.join(options)}"
    done = checkout.run(
        "sh",
        "-c",
        f"umask 077 && exec '{sys.executable}' -m invoke {image}",
        HOME=str(folder),
        LC_ALL="C",
        PYTHONHASHSEED="271828",
        SOURCE_DATE_EPOCH="1",
        TZ="America/St_Johns",
    )
    assert done.status == 0, done.stderr
    assert "precompile done" in done.stderr  # or else nothing was assembled
    return done

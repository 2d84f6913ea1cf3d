"""What has come so far of a download, and of which file: kept across broken connections, interrupts and kills.

downloads/<key>.part   the bytes
downloads/<key>.json   the file's URL and length, and the validators to ask for the rest of it by
"""

from __future__ import annotations

import json
import os
import re
import stat
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from bertir.interruption import held
from bertir.small_file import read_small
from bertir.store import StoreError
from bertir.web import BrokenOffError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bertir.digest import Digest
    from bertir.store import Store

_MOST_STATE_BYTES = 100_000
_STRONG_ETAG = re.compile(r'"[\x21\x23-\x7e]*"')
_DATE = re.compile(r"[A-Za-z]{3}, \d\d [A-Za-z]{3} \d{4} \d\d:\d\d:\d\d GMT")


@dataclass(frozen=True, kw_only=True)
class State:
    """Which file a part is of, as the server said it when the part was begun."""

    url: str
    length: int | None = None
    etag: str = ""
    last_modified: str = ""

    @property
    def validator(self) -> str:
        """What to send as If-Range, if anything: a weak ETag doesn't promise equal bytes (RFC 9110, 13.1.5)."""
        if _STRONG_ETAG.fullmatch(self.etag):
            return self.etag
        return self.last_modified if _DATE.fullmatch(self.last_modified) else ""


class Part:
    """What has come so far of a file, and of which.

    `in_one_piece`: it came in one answer to this object; nothing of it lay there, and nothing was added later.
    """

    def __init__(self, store: Store, key: Digest, url: str, *, what: str) -> None:
        folder = store.root / "downloads"
        self.store = store
        self.path = folder / f"{key.hex}.part"
        self._state_path = folder / f"{key.hex}.json"
        self._new_state_path = folder / f"{key.hex}.tmp"
        self._doing = f"download {what}"
        self.in_one_piece = False
        with store.writing(self._doing):
            folder.mkdir(exist_ok=True)
            for path in (self.path, self._state_path):
                _refuse_foreign(path)
        state = self._load()
        self.state = state if state is not None and state.url == url else State(url=url)

    @property
    def size(self) -> int:
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    @property
    def is_whole(self) -> bool:
        return self.size > 0 and self.size == self.state.length

    def begin(self, state: State) -> None:
        """Forget what was there. The part is emptied first: it is never taken for one of the new file."""
        with self.store.writing(self._doing):
            self.path.write_bytes(b"")
            self._save(state)
        self.in_one_piece = True

    def go_on(self) -> None:
        """Note that what comes next continues what is there."""
        self.in_one_piece = False

    def append(self, chunks: Iterator[bytes]) -> None:
        before = self.size

        def needed() -> tuple[int, bool]:
            missing = (self.state.length or 0) - before
            return (missing, False) if missing > 0 else (self.size - before, True)

        with self.store.writing(self._doing, needed), self.path.open("ab") as file:
            for chunk in chunks:
                file.write(chunk)

    def end(self, length: int | None = None) -> None:
        """Compare what came with its length; note the length, if it wasn't known beforehand or is now known better."""
        size, length = self.size, length or self.state.length
        if length is not None and size < length:  # as a 206 may; what came is good
            raise BrokenOffError(f"the server sent {size} of {length} bytes")
        if length is not None and size > length:
            self.begin(State(url=self.state.url))
            raise BrokenOffError(f"the server sent more than the {length} bytes that it promised")
        with self.store.writing(self._doing):
            self._save(replace(self.state, length=size))

    def remove(self) -> None:
        with self.store.writing(self._doing):
            self.path.unlink(missing_ok=True)
            self._state_path.unlink(missing_ok=True)
            self._new_state_path.unlink(missing_ok=True)  # of a process that was killed while it wrote it
        self.state = State(url=self.state.url)

    def _load(self) -> State | None:
        try:
            raw = json.loads(read_small(self._state_path, _MOST_STATE_BYTES))
            state = State(**raw)
            whole = isinstance(raw["length"], int | None)
            texts = all(isinstance(raw[name], str) for name in ("url", "etag", "last_modified"))
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return None  # damaged is as good as none: the download begins anew
        return state if whole and texts else None

    def _save(self, state: State) -> None:
        with held():
            self._new_state_path.write_text(json.dumps(asdict(state)), encoding="utf-8")
            self._new_state_path.replace(self._state_path)
        self.state = state


def _refuse_foreign(path: Path) -> None:
    """Remove what can't be a part or its note, as this user left them: writing to it could be writing elsewhere."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if stat.S_ISDIR(found.st_mode):
        raise StoreError(
            f"{path} is a folder, and is to be the part of a download",
            advice="Move it away, and run it again.",
        )
    if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1 or found.st_uid != os.geteuid():
        path.unlink()

"""The pins of the BERT source: `patches/upstream.toml` by hand, `patches/source.lock` by `invoke lock`."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from bertir.digest import Digest
from bertir.errors import ConfigurationError, LockError, StaleLockError
from bertir.frozen import dataclass
from bertir.redact import shown
from bertir.requirements import distribution_name, distribution_version
from bertir.small_file import read_small, read_small_text
from bertir.toml_text import read_toml

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_OBJECT_ID = re.compile(r"[0-9a-f]{40}")
_PATCH_NAME = re.compile(r"[0-9]{4}-[A-Za-z0-9._-]+\.patch")
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
SOURCE_LOCK = "source.lock"
RELOCK = "Run `invoke lock --only source`, and commit what it writes."


@dataclass(frozen=True, kw_only=True)
class Patch:
    """A patch file of a series: its name and its bytes' digest."""

    name: str
    path: Path
    digest: Digest


@dataclass(frozen=True, kw_only=True)
class Mirror:
    """A wheel that holds the same modules, or nearly: `series` makes them the pinned commit's."""

    name: str
    version: str
    digest: Digest
    members: Mapping[str, str]
    series: tuple[Patch, ...]


@dataclass(frozen=True, kw_only=True)
class Upstream:
    """What source is wanted, and what is done to it.

    Args:
        files: name -> Git blob id at `commit`.
        commit_time: seconds since 1970, UTC.
        series: the patches, in order.
    """

    url: str
    commit: str
    commit_time: int
    files: Mapping[str, str]
    mirror: Mirror
    series: tuple[Patch, ...]

    @property
    def intent(self) -> Digest:
        """Digest of everything that the lock follows from; comments in the TOML file don't count."""
        return Digest.of_json(
            {
                "url": self.url,
                "commit": self.commit,
                "commit_time": self.commit_time,
                "files": dict(self.files),
                "mirror": [
                    self.mirror.name,
                    self.mirror.version,
                    str(self.mirror.digest),
                    dict(self.mirror.members),
                ],
                "mirror_series": _digests(self.mirror.series),
                "series": _digests(self.series),
            }
        )


@dataclass(frozen=True, kw_only=True)
class SourceLock:
    """What follows from an `Upstream`.

    Args:
        tree: Git tree id of the patched files.
        pristine: name -> digest of the file at the pinned commit.
        patched: name -> digest of the file after the last patch.
        patches: [name, digest] in order, so that a stale lock can say which changed.
    """

    intent: Digest
    commit: str
    tree: str
    pristine: Mapping[str, Digest]
    patched: Mapping[str, Digest]
    patches: tuple[tuple[str, Digest], ...]


def load_upstream(folder: Path) -> Upstream:
    """Read `upstream.toml`, `series`, `mirror/series` and the patches that these name.

    Raises:
        ConfigurationError: something is missing or isn't what it should be.
    """
    path = folder / "upstream.toml"
    try:
        raw = read_toml(path)
        mirror = raw["mirror"]
        upstream = Upstream(
            url=_text(raw["url"]),
            commit=_object_id(raw["commit"]),
            commit_time=_whole_number(raw["commit_time"]),
            files={_file_name(name): _object_id(blob) for name, blob in raw["files"].items()},
            mirror=Mirror(
                name=distribution_name(mirror["name"]),
                version=distribution_version(mirror["version"]),
                digest=Digest(_text(mirror["sha256"])),
                members={_file_name(name): _text(member) for name, member in mirror["members"].items()},
                series=load_series(folder / "mirror"),
            ),
            series=load_series(folder),
        )
    except OSError as error:
        raise ConfigurationError(f"can't read {path}: {error.strerror}") from error
    except KeyError as error:
        raise ConfigurationError(f"{path} lacks {error}") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise ConfigurationError(f"{path}: {error}") from error
    if set(upstream.mirror.members) != set(upstream.files):
        raise ConfigurationError(f"{path}: [mirror.members] must name the same files as [files]")
    return upstream


def load_series(folder: Path) -> tuple[Patch, ...]:
    """Read a quilt series: a name per line, `#` begins a comment.

    Raises:
        ConfigurationError: it isn't there, names a file twice or oddly, or one that isn't there; or a patch
            lies beside it that it doesn't name.
    """
    path = folder / "series"
    try:
        lines = read_small_text(path).splitlines()
        names = [name for line in lines if (name := line.partition("#")[0].strip())]
        for name in names:
            if not _PATCH_NAME.fullmatch(name):
                raise ConfigurationError(
                    f"{path}: not a patch's name: {shown(name)} (expected 0001-words.patch)"
                )
        if len(set(names)) != len(names):
            raise ConfigurationError(f"{path} names a patch twice")
        patches = tuple(
            Patch(name=name, path=folder / name, digest=Digest.of_bytes(read_small(folder / name)))
            for name in names
        )
    except OSError as error:
        named = "" if error.filename == str(path) else f", which {path} names"
        raise ConfigurationError(f"can't read {error.filename}{named}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path} is not UTF-8 text: {error}") from error
    if unnamed := sorted({item.name for item in folder.glob("*.patch")} - set(names)):
        raise ConfigurationError(
            f"{path} does not name {', '.join(shown(name)[1:-1] for name in unnamed)}",
            advice="Add it to the series, or remove the file.",
        )
    return patches


def load_source_lock(folder: Path, upstream: Upstream) -> SourceLock:
    """Read `source.lock` and see that it was made from `upstream`.

    Raises:
        LockError: it is missing or malformed.
        StaleLockError: the pins or the patches have changed since it was made.
    """
    path = folder / SOURCE_LOCK
    try:
        raw = json.loads(read_small(path))
        lock = SourceLock(
            intent=Digest.from_str(raw["intent"]),
            commit=_object_id(raw["commit"]),
            tree=_object_id(raw["tree"]),
            pristine={name: Digest.from_str(value) for name, value in raw["pristine"].items()},
            patched={name: Digest.from_str(value) for name, value in raw["patched"].items()},
            patches=tuple((_text(name), Digest.from_str(value)) for name, value in raw["patches"]),
        )
    except FileNotFoundError as error:
        raise LockError(f"there is no {path}", advice=RELOCK) from error
    except OSError as error:
        raise LockError(f"can't read {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise LockError(f"{path} is not a source lock: {shown(error)}", advice=RELOCK) from error
    if lock.intent != upstream.intent:
        raise StaleLockError(f"{path} is stale: {_what_changed(lock, upstream)}", advice=RELOCK)
    files = set(upstream.files)
    edited = raw.get("digest") != str(Digest.of_json(_body(lock)))
    if edited or not lock.commit == upstream.commit or not set(lock.pristine) == set(lock.patched) == files:
        raise LockError(f"{path} was edited: it isn't what `invoke lock` writes", advice=RELOCK)
    return lock


def dump_source_lock(lock: SourceLock) -> bytes:
    body = _body(lock)
    value = {
        "note": "Written by `invoke lock`; not to be edited.",
        "digest": str(Digest.of_json(body)),
        **body,
    }
    return json.dumps(value, indent=1, sort_keys=True).encode() + b"\n"


def _body(lock: SourceLock) -> dict[str, Any]:
    return {
        "intent": str(lock.intent),
        "commit": lock.commit,
        "tree": lock.tree,
        "pristine": {name: str(digest) for name, digest in lock.pristine.items()},
        "patched": {name: str(digest) for name, digest in lock.patched.items()},
        "patches": [[name, str(digest)] for name, digest in lock.patches],
    }


def _what_changed(lock: SourceLock, upstream: Upstream) -> str:
    locked = dict(lock.patches)
    present = {patch.name: patch.digest for patch in upstream.series}
    changes = [f"{name} is gone" for name in sorted(locked.keys() - present.keys())]
    changes += [f"{name} is new" for name in sorted(present.keys() - locked.keys())]
    changes += [
        f"{name} has changed"
        for name in sorted(locked.keys() & present.keys())
        if locked[name] != present[name]
    ]
    if not changes and tuple(present.items()) != lock.patches:
        changes = ["the order of the series has changed"]
    return ", ".join(changes) or "upstream.toml or the mirror's patches have changed"


def _digests(series: tuple[Patch, ...]) -> list[list[str]]:
    return [[patch.name, str(patch.digest)] for patch in series]


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        message = f"expected a text, found {shown(value)}"
        raise TypeError(message)
    return value


def _whole_number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        message = f"expected a whole number, found {shown(value)}"
        raise TypeError(message)
    return value


def _object_id(value: object) -> str:
    if not isinstance(value, str) or not _OBJECT_ID.fullmatch(value):
        message = f"expected a Git object id (40 hex digits), found {shown(value)}"
        raise ValueError(message)
    return value


def _file_name(value: str) -> str:
    if not _FILE_NAME.fullmatch(value):
        message = f"not a plain file name: {shown(value)}"
        raise ValueError(message)
    return value

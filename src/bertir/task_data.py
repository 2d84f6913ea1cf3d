"""The rows that run_classifier.py reads before it freezes: bertir's own, a user's, or MRPC as GLUE splits it."""

from __future__ import annotations

import errno
import io
from typing import TYPE_CHECKING, Any

from bertir.digest import Digest
from bertir.errors import ConfigurationError, FetchError
from bertir.frozen import dataclass
from bertir.model import web_address
from bertir.small_file import read_small
from bertir.toml_text import read_toml

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MRPC = "mrpc"
TRAIN, TEST, DEV_IDS = "msr_paraphrase_train.txt", "msr_paraphrase_test.txt", "mrpc_dev_ids.tsv"
_MOST_DEV_BYTES = 100_000_000
_HEADER = ("Quality", "#1 ID", "#2 ID", "#1 String", "#2 String")
_TEST_HEADER = ("index", *_HEADER[1:])
_LABELS = ("0", "1")
# The frozen graph doesn't depend on them; run_classifier.py only wants a dev.tsv with rows of both labels.
_ROWS = (
    ("1", "1", "2", "The cat sat on the mat.", "On the mat sat the cat."),
    ("0", "3", "4", "The cat sat on the mat.", "The shares closed four percent lower."),
)


@dataclass(frozen=True, kw_only=True)
class PinnedFile:
    """A file that its publisher serves by itself."""

    name: str
    url: str
    size: int
    digest: Digest


def mrpc_dev_tsv() -> bytes:
    """Give a dev.tsv as run_classifier.py's MrpcProcessor reads it: tab-separated, a header, no quoting."""
    return _tsv((_HEADER, *_ROWS))


def load_mrpc(path: Path) -> tuple[PinnedFile, ...]:
    """Read the pins of MRPC's three files from `task_data.toml`.

    Raises:
        ConfigurationError: the file isn't there, or isn't what it should be.
    """
    try:
        files = read_toml(path)[MRPC]
        pins = tuple(_pin(name, files[name]) for name in (TRAIN, TEST, DEV_IDS))
    except OSError as error:
        raise ConfigurationError(f"can't read {path}: {error.strerror}") from error
    except KeyError as error:
        raise ConfigurationError(f"{path} lacks {error}") from error
    except (ValueError, TypeError, RecursionError) as error:  # ValueError: not TOML, not UTF-8, too
        raise ConfigurationError(f"{path}: {error}") from error
    return pins


def _pin(name: str, entry: Mapping[str, Any]) -> PinnedFile:
    size, digest = entry["size"], entry["sha256"]
    if not isinstance(size, int) or isinstance(size, bool) or size < 1 or not isinstance(digest, str):
        message = f"{name}: size must be a number above 0, sha256 a string"
        raise ValueError(message)
    return PinnedFile(name=name, url=web_address(entry["url"]), size=size, digest=Digest(digest))


def split_mrpc(train: bytes, test: bytes, dev_ids: bytes) -> dict[str, bytes]:
    """Give train.tsv, dev.tsv and test.tsv as GLUE's download script makes them of the published files.

    dev.tsv has the rows of `train` whose pair of ids is in `dev_ids`, train.tsv the others, in their order; test.tsv has
    the row's number in place of its label. The published files begin with a byte order mark and end lines by CR LF;
    these don't. A quotation mark is a character like any other.

    Raises:
        FetchError: a line hasn't five fields, or two for `dev_ids`.
    """
    chosen = {tuple(fields) for fields in _rows(dev_ids, DEV_IDS, 2)}
    rows = _rows(train, TRAIN, len(_HEADER))[1:]
    kept = [row for row in rows if (row[1], row[2]) not in chosen]
    dev = [row for row in rows if (row[1], row[2]) in chosen]
    tests = [(str(index), *row[1:]) for index, row in enumerate(_rows(test, TEST, len(_HEADER))[1:])]
    return {
        "train.tsv": _tsv((_HEADER, *kept)),
        "dev.tsv": _tsv((_HEADER, *dev)),
        "test.tsv": _tsv((_TEST_HEADER, *tests)),
    }


def read_dev_tsv(folder: Path) -> bytes:
    """Give the dev.tsv of a user's folder, once it was seen to be one that MrpcProcessor reads.

    Raises:
        ConfigurationError: it isn't there, or has a line that run_classifier.py would stop at.
    """
    import csv

    from bertir.steady import Marks

    path = folder / "dev.tsv"
    advice = "--task-data takes a folder with a dev.tsv in MRPC's format, or mrpc."
    try:
        if not path.is_file():
            raise ConfigurationError(f"--task-data: there is no {path}", advice=advice)
        marks = Marks.of([path])
        data = read_small(path, _MOST_DEV_BYTES)
        marks.require_unchanged("Is it still being written? Run it again when it is whole.")
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        if getattr(error, "errno", None) == errno.EFBIG:
            raise ConfigurationError(
                f"{path} has over {_MOST_DEV_BYTES / 1e6:.0f} MB", advice=advice
            ) from error
        raise ConfigurationError(f"can't read {path}: {error}", advice=advice) from error
    # As run_classifier.py reads it; the csv module has a limit for a field, and ends in a traceback there.
    reader = csv.reader(
        io.TextIOWrapper(io.BytesIO(data), encoding="utf-8", newline="\n"), delimiter="\t", quotechar=None
    )
    number = 0
    try:
        for number, row in enumerate(reader, 1):  # one at a time: 100 MB are 50 million of them
            if number > 1 and (len(row) < len(_HEADER) or row[0] not in _LABELS):
                raise ConfigurationError(
                    f"{path}, line {number}: expected a label, 0 or 1, and four more fields with tabs between them",
                    advice=advice,
                )
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path} is not UTF-8: {error}", advice=advice) from error
    except csv.Error as error:
        raise ConfigurationError(f"{path}, line {reader.line_num}: {error}", advice=advice) from error
    if number < 2:  # noqa: PLR2004 - the header, and one more
        raise ConfigurationError(f"{path} has no row below its header", advice=advice)
    return data


def _rows(data: bytes, name: str, fields: int) -> list[tuple[str, ...]]:
    """Split lines at LF alone: other characters that Python takes for line ends may stand in a sentence."""
    try:
        lines = data.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise FetchError(f"{name} is not UTF-8: {error}") from error
    rows = []
    for number, line in enumerate(lines, 1):
        row = tuple(line.strip().split("\t"))  # the line is stripped and not its fields, as GLUE has it
        if row == ("",):
            continue
        if len(row) != fields:
            raise FetchError(f"{name}, line {number}: expected {fields} fields, found {len(row)}")
        rows.append(row)
    return rows


def _tsv(rows: tuple[tuple[str, ...], ...]) -> bytes:
    return "".join("\t".join(row) + "\n" for row in rows).encode()

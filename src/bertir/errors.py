"""Everything that may go wrong, with an exit status each.

`str(error)` is the user's message: what failed, what was expected and found.
`error.advice` is what to run or do next, by the name that bertir was called by. Only `tasks.py` turns an error into an exit status.
"""

from __future__ import annotations

from typing import ClassVar

from bertir.installed import as_called, is_installed
from bertir.redact import printable

REINSTALL = "A file of the installed package was changed. Install bertir again: pip install --force-reinstall"


class BertirError(Exception):
    """Base of all errors that a user can cause or must hear of."""

    exit_status: ClassVar[int] = 1

    def __init__(self, message: str, *, advice: str = "") -> None:
        super().__init__(as_called(_harmless(message)))
        self.advice = as_called(_harmless(advice))


def _harmless(text: str) -> str:
    """Write out what moves a terminal's cursor or hides text: names and values of strangers are in messages."""
    return "\n".join(printable(line.replace("\t", " ")) for line in text.split("\n"))


class NoRoomError(BertirError):
    """A disk is full, or would be before the work is done."""


class ConfigurationError(BertirError):
    """An option, an environment variable or a hand-written file says something that can't be."""

    exit_status = 2


class LockError(BertirError):
    """A lock file is missing, unreadable or can't be resolved."""

    exit_status = 3

    def __init__(self, message: str, *, advice: str = "") -> None:
        # Whoever installed bertir has nothing to restore or resolve: the wheel's files are as they were published.
        super().__init__(message, advice=REINSTALL if is_installed() else advice)


class StaleLockError(LockError):
    """A lock was made from an intent that has changed since."""


class FetchError(BertirError):
    """A material can't be had: no network, no such file, offline and not in the store."""

    exit_status = 4


class DigestMismatchError(FetchError):
    """Bytes that are not the pinned ones (Nix ends with the same status, 102)."""

    exit_status = 102


class SourceError(BertirError):
    """The BERT source can't be cloned, or isn't the pinned one."""

    exit_status = 5


class PatchError(SourceError):
    """A patch doesn't apply exactly, or touches what it may not."""


class EngineError(BertirError):
    """No container engine answers, or it failed."""

    exit_status = 6


class ImageError(EngineError):
    """The image can't be assembled or loaded, or the engine reports another ID."""


class StepError(BertirError):
    """A program in the container refused its input or failed."""

    exit_status = 7


class MissingOutputError(StepError):
    """A step ended well and yet left out a file that it promised."""


class StepTimeoutError(StepError):
    """A step ran over its time (Nix ends with the same status, 101)."""

    exit_status = 101


class VerificationError(BertirError):
    """What was built isn't what it should be."""

    exit_status = 8


class ParityError(VerificationError):
    """TensorFlow and the IR disagree by more than the threshold.

    Args:
        numbers: whether it is their numbers that disagree; else the comparison could not have told, or the IR has
            another shape than its recipe promises.
    """

    def __init__(self, message: str, *, advice: str = "", numbers: bool = False) -> None:
        super().__init__(message, advice=advice)
        self.numbers = numbers


class ReproducibilityError(VerificationError):
    """A rebuild gave other bits (Nix ends with the same status, 104)."""

    exit_status = 104


def error_of(exit_status: int, message: str, *, advice: str = "") -> BertirError:
    """Give an error of the kind that has such a status: what another process ended with."""
    kinds = {
        kind.exit_status: kind
        for kind in reversed(globals().values())
        if isinstance(kind, type) and issubclass(kind, BertirError)
    }
    return kinds.get(exit_status, BertirError)(message, advice=advice)

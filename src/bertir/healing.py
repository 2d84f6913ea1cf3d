"""Objects of the store that turn out to be damaged or gone, in the middle of a build: made again, and the build goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from bertir.store import LostObjectError

if TYPE_CHECKING:
    from collections.abc import Callable

    from bertir.digest import Digest
    from bertir.progress import Progress

Given = TypeVar("Given")


def healed(work: Callable[[], Given], progress: Progress) -> Given:
    """Do some work; begin it again each time that it meets a lost object, which the store then no longer has.

    What was finished is in the store, so that only what is lost is fetched or built anew.

    Raises:
        LostObjectError: the same object was lost twice: the disk, or who else writes to it, is not to be worked around.
    """
    lost: set[Digest] = set()
    while True:
        try:
            return work()
        except LostObjectError as error:
            if error.digest in lost:
                raise LostObjectError(
                    f"{error}\n  and so again after it was made anew",
                    error.digest,
                    advice="See whether the disk is sound (dmesg), and who else writes to the store.",
                ) from error
            lost.add(error.digest)
            progress.say("store", f"{str(error).splitlines()[0]}: making it anew")

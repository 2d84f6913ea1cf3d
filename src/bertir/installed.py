"""Where bertir's own files lie, and by which name it is called: a checkout has them, and its wheel takes them along.

The wheel holds what a build reads of a checkout as `bertir/project/`, laid out as there (pyproject.toml, force-include).
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
PROJECT = "project"
# What these do is for who works on bertir: they write a checkout's own files, or compare with them.
CHECKOUT_TASKS = ("audit", "bench", "docs", "golden", "lock")
_INVOKE, _OWN = "invoke", "bertir"
# A call as messages and help texts have it: `invoke TASK …`, or after a colon, or at the start.
_CALL = rf"(?:(?<=`)|(?<=: )|^){_INVOKE} (?=-|[a-z])(?!(?:{'|'.join(CHECKOUT_TASKS)})\b)"


def is_installed() -> bool:
    """Say whether this is bertir as a wheel installs it: without the rest of a checkout."""
    return (PACKAGE / PROJECT).is_dir()


def project_root() -> Path:
    """Give the folder that holds docker/, patches/, models.toml and the tasks: of the wheel, or the checkout."""
    return PACKAGE / PROJECT if is_installed() else PACKAGE.parents[1]


def program_name() -> str:
    """Give what the user typed: `invoke` in a checkout, unless they ran the command `bertir` there."""
    return _OWN if is_installed() or Path(sys.argv[0]).name == _OWN else _INVOKE


def as_called(text: str) -> str:
    """Give a text whose calls (`invoke build-ir`) are as this user would type them."""
    return text if program_name() == _INVOKE else re.sub(_CALL, f"{_OWN} ", text, flags=re.MULTILINE)

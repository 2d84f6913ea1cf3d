"""Programs of other people's that some tests need."""

from __future__ import annotations

import os
import shutil

import pytest


def needed(*names: str) -> str:
    """Give the path of the first that is there. Without any: a failure when CI=true (`.ci/run` installs them), else a skip."""
    for name in names:
        if found := shutil.which(name):
            return found
    said = f"there is no {' or '.join(names)}"
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI=true, and {said}")
    pytest.skip(said)

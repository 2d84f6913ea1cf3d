"""The main job, run once a session as a new user would: a clone, an empty store, no image, `make all`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from builds import MainJob
from checkout import copy_checkout

from bertir.engine import connect
from bertir.lock import load_image_lock

if TYPE_CHECKING:
    from collections.abc import Callable


def _forget_image(environment: dict[str, str]) -> None:
    """Remove the locked image from the engine, so that it must be assembled and loaded."""
    lock = load_image_lock(Path(__file__).resolve().parents[2] / "docker")
    with connect(environment, folder=Path("/nonexistent")) as engine:
        for digest in (lock.image_id, lock.manifest):
            if (reported := engine.find_image([digest])) is not None:
                engine.remove_image(reported)


@pytest.fixture(scope="session")
def forget_image(engine_environment: dict[str, str]) -> Callable[[], None]:
    """Makes the engine forget the image, so that the next build must assemble and load it."""
    return lambda: _forget_image(engine_environment)


@pytest.fixture(scope="session")
def main_job(
    forget_image: Callable[[], None], store_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> MainJob:
    forget_image()
    folder = tmp_path_factory.mktemp("clone")
    checkout = copy_checkout(folder, BERTIR_STORE=str(store_root), MAKEFLAGS="", PYTHONDONTWRITEBYTECODE="")
    result = checkout.run("make", "all", PYTHON=os.environ.get("PYTHON", "python3"))
    assert result.status == 0, result.stderr + result.stdout
    return MainJob(checkout=checkout, result=result)

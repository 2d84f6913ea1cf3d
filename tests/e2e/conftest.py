"""The main job, run once a session as a new user would: a clone, an empty store, no image, `make all`."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import docker
import pytest
from builds import MainJob
from checkout import ROOT, copy_checkout
from docker.errors import ImageNotFound

from bertir.lock import load_image_lock

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def _forget_image() -> None:
    lock = load_image_lock(ROOT / "docker")
    client = docker.from_env()
    try:
        for digest in (lock.image_id, lock.manifest):
            with contextlib.suppress(ImageNotFound):
                # By force: a stopped container, of whatever was killed before, may still name it.
                client.images.remove(str(digest), force=True)
    finally:
        client.close()


@pytest.fixture(scope="session")
def forget_image(engine_environment: dict[str, str]) -> Callable[[], None]:
    """Makes the engine forget the image, so that the next build must assemble and load it."""
    del engine_environment  # asked for, so that there is an engine
    return _forget_image


@pytest.fixture(scope="session")
def main_job(
    forget_image: Callable[[], None], store_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> MainJob:
    forget_image()
    folder = tmp_path_factory.mktemp("clone")
    checkout = copy_checkout(
        folder, BERTIR_STORE=str(store_root), MAKEFLAGS="", MAKELEVEL="0", PYTHONDONTWRITEBYTECODE=""
    )
    result = checkout.run("make", "all", PYTHON=os.environ.get("PYTHON", "python3"))
    assert result.status == 0, result.stderr + result.stdout
    return MainJob(checkout=checkout, result=result)

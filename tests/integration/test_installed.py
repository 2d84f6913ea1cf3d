"""bertir as a package: its wheel in a fresh virtualenv of locked dependencies, used far from any checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from built_package import build_package
from checkout import ROOT, Checkout, copy_checkout
from tiny_bert import TinyModel, make_model

from bertir.publish import PROVENANCE, REPORT, SUMS

if TYPE_CHECKING:
    from pathlib import Path

    from bertir.builder import Builder

pytestmark = pytest.mark.engine

VARIANT = "tiny-bert/reshapable-fp16"


@dataclass(frozen=True, kw_only=True)
class Both:
    """A checkout, and a folder that is none with the command beside it; each has a store of its own."""

    checkout: Checkout
    elsewhere: Checkout
    bertir: Path
    model: TinyModel

    def published(self, folder: Checkout, name: str) -> bytes:
        return (folder.root / "dist" / VARIANT / name).read_bytes()


@pytest.fixture(scope="module")
def both(builder: Builder, tmp_path_factory: pytest.TempPathFactory) -> Both:
    builder.load_image()
    folder = tmp_path_factory.mktemp("installed")
    (folder / "model").mkdir()
    (folder / "elsewhere").mkdir()
    model = make_model(folder / "model")
    checkout = copy_checkout(folder / "clone", BERTIR_STORE=str(folder / "store"), **model.environment)
    wheel = build_package(checkout.root, folder / "package").wheel
    python = folder / "venv" / "bin" / "python"
    lock = ROOT / "requirements" / "build.lock"
    for command in (
        [sys.executable, "-m", "venv", str(folder / "venv")],
        [str(python), "-m", "pip", "install", "--quiet", "--require-hashes", "--requirement", str(lock)],
        # Without an index: the lock must hold all that the wheel says it needs.
        [str(python), "-m", "pip", "install", "--quiet", "--no-index", str(wheel)],
    ):
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    path = f"{python.parent}{os.pathsep}{os.environ['PATH']}"
    around = {"PATH": path, "PYTHONPATH": "", "BERTIR_STORE": str(folder / "its-store"), **model.environment}
    return Both(
        checkout=checkout,
        elsewhere=Checkout(root=folder / "elsewhere", environment=around),
        bertir=python.parent / "bertir",
        model=model,
    )


@pytest.fixture(scope="module")
def told(both: Both) -> list[Any]:
    """Build in either; give what the builds told."""
    first = both.checkout.invoke("build-ir", "--format", "json")
    second = both.elsewhere.run(str(both.bertir), "build-ir", "--format", "json")
    assert (first.status, second.status) == (0, 0), first.stderr + second.stderr
    return [json.loads(ended.stdout) for ended in (first, second)]


def test_an_installed_bertir_builds_the_same_as_the_checkout_from_outside_of_one(
    both: Both, told: list[Any]
) -> None:
    assert both.published(both.elsewhere, SUMS) == both.published(both.checkout, SUMS)
    for name in ("files", "image", "source_tree", "frozen_graph", "parity"):
        assert told[1][name] == told[0][name], name
    assert [step["cached"] for step in told[1]["steps"]].count(
        True
    ) == 0  # it was built, in a store of its own
    reports = [json.loads(both.published(place, REPORT)) for place in (both.checkout, both.elsewhere)]
    keys = [[step["key"] for step in report["steps"]] for report in reports]
    assert keys[1] == keys[0]


@pytest.mark.usefixtures("told")
def test_what_it_published_says_by_which_bertir_and_verifies(both: Both) -> None:
    ended = both.elsewhere.run(str(both.bertir), "build-ir")
    assert ended.status == 0, ended.stderr
    assert "nothing to do" in ended.stdout
    verified = both.elsewhere.run(str(both.bertir), "verify", f"dist/{VARIANT}")
    assert verified.status == 0, verified.stderr
    of_both = [
        json.loads(both.published(place, PROVENANCE))["predicate"]["runDetails"]["builder"][
            "builderDependencies"
        ]
        for place in (both.checkout, both.elsewhere)
    ]
    assert [set(one["digest"]) for one in of_both[1]] == [{"sha256"}]  # and no commit
    assert of_both[1] == of_both[0]  # the clone is no Git checkout either, and its modules are the same

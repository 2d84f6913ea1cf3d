"""What a rebuild is given: a store of materials alone, a copy of the checkout, and what its variation needs."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bertir.builder import Layout
from bertir.errors import EngineError
from bertir.prepare import Supplies, _running, _wait, prepared
from bertir.variations import OTHER_ID
from bertir.vary import Conditions, Means

if TYPE_CHECKING:
    from bertir.store import Store


@pytest.fixture
def supplies(store: Store, checkout: Path) -> Supplies:
    wanted = store.add_bytes(b"a material")
    store.add_bytes(b"what a build made")
    return Supplies(
        layout=Layout(root=checkout, models=checkout / "models.toml"), store=store, materials=[wanted.digest]
    )


def test_a_rebuilds_store_holds_the_materials_and_nothing_else(supplies: Supplies, tmp_path: Path) -> None:
    with prepared(supplies, Conditions(), tmp_path / "work") as place:
        objects = [path.read_bytes() for path in (place.store / "objects").rglob("*") if path.is_file()]
        assert objects == [b"a material"]
        assert list((place.store / "records").iterdir()) == []


def test_the_checkout_is_copied_with_what_a_build_reads_and_no_more(
    supplies: Supplies, checkout: Path, tmp_path: Path
) -> None:
    (checkout / "private notes").write_text("of the user", encoding="utf-8")
    with prepared(supplies, Conditions(), tmp_path / "work") as place:
        assert {path.name for path in place.checkout.iterdir()} == {
            "docker",
            "models.toml",
            "patches",
            "src",
            "task_data.toml",
        }


def test_a_warm_rebuild_works_in_the_users_own_store(supplies: Supplies, tmp_path: Path) -> None:
    with prepared(supplies, Conditions(means=frozenset({Means.WARM_STORE})), tmp_path / "work") as place:
        assert place.store == supplies.store.root
    assert len([path for path in (supplies.store.root / "objects").rglob("*") if path.is_file()]) == 2


def test_another_place_and_another_home_are_elsewhere(supplies: Supplies, tmp_path: Path) -> None:
    means = frozenset({Means.OTHER_PLACE, Means.OTHER_HOME})
    with prepared(supplies, Conditions(means=means), tmp_path / "work") as place:
        assert " " in str(place.checkout)
        assert not str(place.store).isascii()
        assert os.listdir(place.environment["HOME"]) == []  # noqa: PTH208 - it is a variable


def test_an_older_build_lies_in_the_output_with_other_bytes(supplies: Supplies, tmp_path: Path) -> None:
    published = tmp_path / "baseline" / "m" / "v"
    published.mkdir(parents=True)
    (published / "model.bin").write_bytes(b"1234")
    (published / "SHA256SUMS").write_bytes(b"sums")
    older = Supplies(
        layout=supplies.layout,
        store=supplies.store,
        materials=supplies.materials,
        published=(published.relative_to(tmp_path / "baseline"), published),
    )
    with prepared(older, Conditions(means=frozenset({Means.OLD_OUTPUT})), tmp_path / "work") as place:
        assert (place.output / "m" / "v" / "model.bin").read_bytes() == b"123?"
        assert (place.output / "m" / "v" / "SHA256SUMS").read_bytes() == b"sums"
    assert (published / "model.bin").read_bytes() == b"1234"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_who_is_given_a_folder_can_not_lead_root_elsewhere(
    supplies: Supplies, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who owns a folder puts a link in the place of one in it, the moment before root gives that one away too."""
    victim, work = tmp_path / "victim", tmp_path / "work"
    victim.mkdir()
    given = []
    fchown, chown = os.fchown, os.chown

    def swap(path: Path) -> None:
        given.append(path)
        if path.parent.stat().st_uid == OTHER_ID and path.is_dir() and not path.is_symlink():
            path.rename(tmp_path / f"swapped-{len(given)}")
            path.symlink_to(victim)

    def swap_and_fchown(descriptor: int, user: int, group: int) -> None:
        swap(Path(f"/proc/self/fd/{descriptor}").readlink())
        fchown(descriptor, user, group)

    def swap_and_chown(path: str, user: int, group: int, **how: Any) -> None:
        if how.get("dir_fd") is None:
            swap(Path(path))
        chown(path, user, group, **how)

    monkeypatch.setattr(os, "fchown", swap_and_fchown)
    monkeypatch.setattr(os, "chown", swap_and_chown)
    with prepared(supplies, Conditions(means=frozenset({Means.OTHER_USER})), work):
        assert work in given
    assert victim.stat().st_uid == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_folder_given_to_another_user_takes_no_object_of_the_users_store_along(
    supplies: Supplies, tmp_path: Path
) -> None:
    with prepared(supplies, Conditions(means=frozenset({Means.OTHER_USER})), tmp_path / "work") as place:
        assert place.store.stat().st_uid != 0
        assert (place.checkout / "models.toml").stat().st_uid != 0
    assert {path.stat().st_uid for path in supplies.store.root.rglob("*")} == {0}


def test_a_service_that_does_not_start_is_named_with_what_it_said(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with (
        pytest.raises(EngineError, match=r"podman doesn't start: no cgroups here"),
        _running(["sh", "-c", "echo no cgroups here; exit 1"], log) as process,
    ):
        _wait(lambda: False, process, "podman", log)


def test_a_service_ends_with_its_block(tmp_path: Path) -> None:
    with _running(["sleep", "600"], tmp_path / "log") as process:
        assert process.poll() is None
    assert process.poll() is not None


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("disorderfs") is None or not Path("/dev/fuse").exists(),
    reason="needs root, disorderfs and /dev/fuse",
)
def test_disordered_folders_are_mounted_for_the_block_alone(supplies: Supplies, tmp_path: Path) -> None:
    work = tmp_path / "work"
    with prepared(supplies, Conditions(means=frozenset({Means.DISORDER})), work) as place:
        assert place.checkout.stat().st_dev != work.stat().st_dev
        orders = {tuple(os.listdir(place.checkout / "src" / "bertir")) for _ in range(9)}  # noqa: PTH208
        assert len(orders) > 1
        (place.output / "file").write_bytes(b"kept")
    assert not (work / "disordered").is_mount()
    assert (work / "under" / "output" / "file").read_bytes() == b"kept"

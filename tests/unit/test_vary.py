"""Variations as data: each is whole, can be asked for by name, and differs from what the machine has."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertir.errors import ConfigurationError
from bertir.machine import Machine, look_around
from bertir.variations import OTHER_ID, variations
from bertir.vary import Conditions, Means, combine, parse_names, rebuilds

if TYPE_CHECKING:
    from pathlib import Path

MACHINE = Machine(faketime="/usr/lib/libfaketime.so.1", cpus=(2, 3), socket_group=998)
KNOWN = variations(MACHINE)
NAMES = [variation.name for variation in KNOWN]


def test_the_variations_of_the_issue_are_all_there_each_under_a_name_of_its_own() -> None:
    wanted = (
        "umask tz locale clock user home host-name path cpus file-order environment hash-seed warm-store output"
        " cpu-isa onednn podman"
    )
    assert sorted(NAMES) == sorted(wanted.split())


@pytest.mark.parametrize("name", NAMES)
def test_each_variation_changes_something_and_has_a_witness(name: str) -> None:
    [chosen] = parse_names(name, KNOWN)
    assert chosen.conditions != Conditions()
    assert chosen.witnesses
    assert chosen.what


@given(st.lists(st.sampled_from(NAMES), min_size=1))
def test_names_may_come_in_any_order_and_more_than_once(names: list[str]) -> None:
    chosen = parse_names(" , ".join(names), KNOWN)
    assert [variation.name for variation in chosen] == [name for name in NAMES if name in names]


def test_no_name_means_all() -> None:
    assert parse_names("", KNOWN) == KNOWN
    assert parse_names("  ", KNOWN) == KNOWN


@given(
    st.text(max_size=12).filter(lambda text: text.strip() and {*text.replace(" ", "").split(",")} - {*NAMES})
)
def test_an_unknown_name_is_refused_with_those_that_there_are(text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_names(text, KNOWN)
    assert all(name in caught.value.advice for name in NAMES)


@given(st.sets(st.sampled_from(NAMES)))
def test_together_variations_change_all_that_each_changes(names: set[str]) -> None:
    group = [variation for variation in KNOWN if variation.name in names]
    together = combine(group)
    assert together.wrapper == tuple(word for variation in group for word in variation.conditions.wrapper)
    assert together.means == frozenset().union(*(variation.conditions.means for variation in group))
    for variation in group:
        around = variation.conditions.surroundings
        assert variation.conditions.environment.keys() <= together.environment.keys()
        assert around.environment.keys() <= together.surroundings.environment.keys()
        assert around.mounts.items() <= together.surroundings.mounts.items()
        assert around.hostname in ("bertir", together.surroundings.hostname)
        assert around.cpus in ("", together.surroundings.cpus)


def test_no_two_variations_that_go_together_set_one_variable_to_two_values() -> None:
    together, *_ = rebuilds(KNOWN, each=False)
    conditions = [variation.conditions for variation in together]
    for environments in (
        [item.environment for item in conditions],
        [item.surroundings.environment for item in conditions],
    ):
        values = [pair for environment in environments for pair in environment.items()]
        assert len(dict(values)) == len(values)


def test_nothing_varied_is_the_machine_as_it_is() -> None:
    assert combine([]) == Conditions()


def test_all_at_once_leaves_alone_what_excludes_the_rest() -> None:
    together, *others = rebuilds(KNOWN, each=False)
    assert {variation.name for group in others for variation in group} == {"warm-store", "podman"}
    assert [len(group) for group in others] == [1, 1]
    assert len(together) == len(KNOWN) - 2


def test_each_is_one_rebuild_a_variation_after_one_of_nothing() -> None:
    assert rebuilds(KNOWN, each=True) == [(), *((variation,) for variation in KNOWN)]


@pytest.mark.parametrize(("umask", "other"), [(0o022, "077"), (0o077, "022"), (0o002, "077")])
def test_the_umask_is_another_than_the_machines(umask: int, other: str) -> None:
    [varied] = parse_names("umask", variations(Machine(umask=umask)))
    assert f"umask {other} &&" in " ".join(varied.conditions.wrapper)


@pytest.mark.parametrize(("locale", "other"), [("C", "C.UTF-8"), ("C.UTF-8", "C"), ("de_DE.UTF-8", "C")])
def test_the_locale_is_another_than_the_machines(locale: str, other: str) -> None:
    [varied] = parse_names("locale", variations(Machine(locale=locale)))
    assert varied.conditions.environment["LC_ALL"] == other


def test_what_the_machine_lacks_is_said_with_the_reason() -> None:
    machine = Machine(missing={"root": "only root can", "disorderfs": "there is no disorderfs"})
    [order] = parse_names("file-order", variations(machine))
    assert order.unavailable(machine) == "only root can; there is no disorderfs"
    [umask] = parse_names("umask", variations(machine))
    assert umask.unavailable(machine) == ""


@pytest.mark.skipif(os.geteuid() != 0, reason="of another user's it is said that only root can")
@pytest.mark.parametrize(("status", "said"), [(0, ""), (1, "root may not here")])
def test_root_of_an_ordinary_container_is_told_what_it_may_not_vary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, said: str
) -> None:
    for program in ("unshare", "podman"):
        (tmp_path / program).write_text(f"#!/bin/sh\nexit {status}\n", encoding="utf-8")
        (tmp_path / program).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    machine = look_around({}, tmp_path, OTHER_ID)
    for varied in parse_names("host-name,podman", variations(machine)):
        assert varied.unavailable(machine).startswith(said)
        assert bool(varied.unavailable(machine)) == bool(said)


def test_a_user_gets_the_group_that_may_use_the_engine_and_no_other() -> None:
    for machine, groups in ((MACHINE, "--groups=998"), (Machine(), "--clear-groups")):
        [user] = parse_names("user", variations(machine))
        assert groups in user.conditions.wrapper
        assert Means.OTHER_USER in user.conditions.means

"""bertir's own frozen dataclasses behave as the standard library's."""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import FrozenInstanceError, asdict, field, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from bertir.frozen import dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, kw_only=True)
class Ours:
    """One of each kind of field."""

    kind: ClassVar[str] = "kind"

    name: str
    size: int = 0
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def double(self) -> int:
        return 2 * self.size


@dataclasses.dataclass(frozen=True, kw_only=True)
class Theirs:
    """The same."""

    kind: ClassVar[str] = "kind"

    name: str
    size: int = 0
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Hashable:
    """What a set may hold."""

    name: str
    parts: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Told:
    """One that says itself how it is shown."""

    name: str

    def __repr__(self) -> str:
        return f"<{self.name}>"


def test_it_holds_what_it_was_given_and_its_defaults() -> None:
    ours = Ours(name="a")
    assert (ours.name, ours.size, ours.facts, ours.double) == ("a", 0, {}, 0)
    assert Ours(facts={"b": 1}, size=2, name="a").double == 4
    assert Ours(name="a").facts is not ours.facts


def test_it_is_shown_and_taken_apart_as_the_standard_librarys() -> None:
    given: dict[str, Any] = {"size": 2, "name": "a", "facts": {"b": [1]}}
    ours, theirs = Ours(**given), Theirs(**given)
    assert repr(ours) == repr(theirs).replace("Theirs", "Ours")
    assert list(asdict(ours).items()) == list(asdict(theirs).items())
    assert list(vars(ours).items()) == list(vars(theirs).items())
    assert [one.name for one in fields(ours)] == [one.name for one in fields(theirs)]
    assert dataclasses.is_dataclass(ours)


def test_who_has_a_method_of_its_own_keeps_it() -> None:
    assert repr(Told(name="a")) == "<a>"


def test_it_equals_what_is_of_its_own_class_and_holds_the_same() -> None:
    assert Ours(name="a", size=1) == Ours(name="a", size=1)
    assert Ours(name="a", size=1) != Ours(name="a", size=2)
    assert Ours(name="a").__eq__(Theirs(name="a")) is NotImplemented
    assert len({Hashable(name="a"), Hashable(name="a"), Hashable(name="a", parts=("b",))}) == 2
    with pytest.raises(TypeError, match="unhashable"):
        hash(Ours(name="a"))


def test_nothing_of_it_can_be_changed() -> None:
    ours: Any = Ours(name="a")
    with pytest.raises(FrozenInstanceError, match="cannot assign to field 'name'"):
        ours.name = "b"
    with pytest.raises(FrozenInstanceError, match="cannot assign to field 'other'"):
        ours.other = "b"
    with pytest.raises(FrozenInstanceError, match="cannot delete field 'name'"):
        del ours.name
    assert replace(ours, name="b") == Ours(name="b")
    assert ours == Ours(name="a")


def test_it_is_copied_also_by_what_pickle_asks_for() -> None:
    ours = Ours(name="a", facts={"b": [1]})
    assert copy.deepcopy(ours) == copy.copy(ours) == ours
    assert copy.deepcopy(ours).facts is not ours.facts


def test_it_is_made_by_the_names_of_all_its_fields() -> None:
    made: Any = Ours
    with pytest.raises(TypeError, match=r"^Ours\(\) lacks: name$"):
        made(size=1)
    with pytest.raises(TypeError, match=r"^Ours\(\) has no field: colour, shape$"):
        made(name="a", shape=1, colour=2)
    with pytest.raises(TypeError):
        made("a")

"""Frozen dataclasses with plain methods, for modules that a build with nothing to do imports.

The standard library writes the methods of each class as texts and compiles them one by one (all of a class at once from Python
3.13 on): 0.7 ms a class, of some fifty a third of such a build. Here they are the same few functions for every class. What comes
of it is a dataclass to `fields`, `replace` and `asdict`, and to a type checker the standard library's own.
"""

from __future__ import annotations

import dataclasses
from dataclasses import MISSING, FrozenInstanceError
from operator import attrgetter
from reprlib import recursive_repr
from typing import TYPE_CHECKING, Any, Literal, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, KeysView
    from dataclasses import dataclass as dataclass  # noqa: PLC0414 - said to be given on
else:

    def dataclass(*, frozen: Literal[True], kw_only: Literal[True]) -> Callable[[type[_Class]], type[_Class]]:
        """As `dataclasses.dataclass`, of which there is one kind here: frozen, and made by the names of its fields."""
        del frozen, kw_only  # said where a class is defined, for its reader
        return _frozen


_Class = TypeVar("_Class")


def _frozen(cls: type[_Class]) -> type[_Class]:
    described = dataclasses.dataclass(kw_only=True, init=False, repr=False, eq=False)(cls)
    methods = {
        "__init__": _init(described),
        "__repr__": _repr,
        **_comparison(described),
        "__setattr__": _refuse_to_set,
        "__delattr__": _refuse_to_delete,
    }
    for name, method in methods.items():
        if name not in cls.__dict__:  # else it has one of its own
            setattr(cls, name, method)
    return cls


def _init(cls: Any) -> Callable[..., None]:  # noqa: ANN401 - any dataclass
    described = {field.name: field for field in dataclasses.fields(cls)}
    defaults = {name: field.default for name, field in described.items() if field.default is not MISSING}
    factories = {
        name: field.default_factory
        for name, field in described.items()
        if field.default_factory is not MISSING
    }

    def init(self: object, /, **given: Any) -> None:  # noqa: ANN401 - each field has its own type
        values = {**defaults, **given}
        for name, make in factories.items():
            if name not in given:
                values[name] = make()
        if values.keys() != described.keys():
            raise TypeError(_misfit(cls, described.keys(), values.keys()))
        for name in described:
            object.__setattr__(self, name, values[name])

    return init


def _comparison(cls: Any) -> dict[str, Callable[..., Any]]:  # noqa: ANN401 - any dataclass
    values = attrgetter(*(field.name for field in dataclasses.fields(cls)))

    def eq(self: object, other: object) -> bool:
        return values(self) == values(other) if type(other) is type(self) else NotImplemented

    def hash_(self: object) -> int:
        return hash(values(self))

    return {"__eq__": eq, "__hash__": hash_}


def _misfit(cls: type, names: KeysView[str], given: KeysView[str]) -> str:
    if unknown := given - names:
        return f"{cls.__qualname__}() has no field: {', '.join(sorted(unknown))}"
    return f"{cls.__qualname__}() lacks: {', '.join(name for name in names if name not in given)}"


@recursive_repr()
def _repr(self: Any) -> str:  # noqa: ANN401 - any dataclass
    shown = (f"{field.name}={getattr(self, field.name)!r}" for field in dataclasses.fields(self))
    return f"{type(self).__qualname__}({', '.join(shown)})"


def _refuse_to_set(_: object, name: str, value: object) -> None:
    del value
    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_to_delete(_: object, name: str) -> None:
    raise FrozenInstanceError(f"cannot delete field {name!r}")

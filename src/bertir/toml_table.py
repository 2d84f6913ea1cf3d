"""Hand-written tables, read strictly: each key is taken once, with its type checked, and what is left is refused."""

from __future__ import annotations

import re
from typing import Any

from bertir.errors import ConfigurationError
from bertir.redact import shown

# Paths are those of a layer: relative to the root, no `..`, no empty part.
RELATIVE = r"(?!\.\.?(?:/|$))[^/\n]+(?:/(?!\.\.?(?:/|$))[^/\n]+)*"


class Table:
    """A TOML table that hands out each key once, with its type checked, and then refuses what is left."""

    def __init__(self, data: dict[str, Any], name: str) -> None:
        self._data = dict(data)
        self._name = name

    def _take(self, key: str, kind: type, expected: str) -> Any:  # noqa: ANN401 - its callers know the type
        if key not in self._data:
            raise ConfigurationError(f"{self._name}: `{key}` is missing; expected {expected}")
        value = self._data.pop(key)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise self._wrong(key, expected, value)
        return value

    def _wrong(self, key: str, expected: str, value: object) -> ConfigurationError:
        return ConfigurationError(
            f"{self._name}: `{shown(key)[1:-1]}` must be {expected}, and is {shown(value)}"
        )

    def text(self, key: str, pattern: str = r"(?s).*") -> str:
        value: str = self._take(key, str, "a string")
        if not re.fullmatch(pattern, value):
            raise self._wrong(key, f"a string of the form {pattern}", value)
        return value

    def number(self, key: str, *, most: int) -> int:
        value: int = self._take(key, int, "an integer")
        if not 0 <= value <= most:
            raise self._wrong(key, f"an integer from 0 to {most}", value)
        return value

    def texts(self, key: str, pattern: str = r"(?s).*") -> tuple[str, ...]:
        expected = "a list of different strings" + ("" if pattern == r"(?s).*" else f" of the form {pattern}")
        values: list[Any] = self._take(key, list, expected)
        if not all(isinstance(value, str) and re.fullmatch(pattern, value) for value in values):
            raise self._wrong(key, expected, values)
        if len(set(values)) != len(values):
            raise self._wrong(key, expected, values)
        return tuple(values)

    def table(self, key: str) -> Table:
        return Table(self._take(key, dict, "a table"), f"{self._name}, [{key}]")

    def text_table(self, key: str) -> dict[str, str]:
        table = self.table(key)
        return {name: table.text(name) for name in sorted(table._data)}  # noqa: SLF001 - its own class

    def tables(self, key: str) -> list[Table]:
        if key not in self._data:
            return []
        values = self._take(key, list, "a list of tables")
        if not all(isinstance(value, dict) for value in values):
            raise self._wrong(key, "a list of tables", values)
        return [Table(value, f"{self._name}, [[{key}]]") for value in values]

    def refuse_the_rest(self) -> None:
        if self._data:
            unknown = ", ".join(f"`{shown(key)[1:-1]}`" for key in sorted(self._data))
            raise ConfigurationError(f"{self._name}: unknown {unknown}", advice="Is it misspelt?")

"""Carried columns: columns of a list that are copied into the rows of a dataset."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import InvalidInput
from .lists.record import ALL
from .rows import NAMES

PREFIX = "source_"
"""Prefix of a carried column whose name is also a dataset column."""
MOST = 1000
"""Largest number of carried columns."""
NUMBER = re.compile(r"-?\d+(\.\d+)?(e[+-]\d+)?", re.ASCII)
LONGEST = 32
"""Longest number in text, in characters."""
LARGEST = 1 << 63
INT, FLOAT, BOOL, STRING = "int", "float", "bool", "string"


@dataclass(frozen=True)
class Column:
    """A carried column.

    Attributes:
        name: Name in the list.
        stored: Name in the dataset.
        kind: Type of the values: `int`, `float`, `bool` or `string`.
    """

    name: str
    stored: str
    kind: str

    def value(self, raw: Any) -> Any:
        """Convert a value of the list to this kind; `None` if it is empty."""
        if raw is None or (raw == "" and self.kind != STRING):
            return None
        if self.kind == STRING:
            return raw if isinstance(raw, str) else json.dumps(raw, ensure_ascii=False)
        if self.kind == BOOL:
            return raw if isinstance(raw, bool) else raw == "true"
        return int(raw) if self.kind == INT else float(raw)


class Survey:
    """Inference of carried columns and their types from the rows of a list.

    Args:
        wanted: Column names, or `all`.
        typed: Values have types. Otherwise types are inferred from text.
    """

    def __init__(self, wanted: Collection[str], typed: bool) -> None:
        self._wanted, self._typed = list(dict.fromkeys(wanted)), typed
        self._kinds: dict[str, set[str]] = {}

    def add(self, carried: Mapping[str, Any]) -> None:
        """Take a row into account."""
        for name, value in carried.items():
            if name not in self._kinds and len(self._kinds) >= MOST:
                raise InvalidInput(f"the list has more than {MOST} columns. Name the columns to carry")
            kind = self._kind(value)
            self._kinds.setdefault(name, set()).update({kind} if kind else ())

    def columns(self, there: Collection[str]) -> tuple[Column, ...]:
        """Return the carried columns.

        Args:
            there: Column names of the list.

        Raises:
            InvalidInput: A requested column does not exist.
        """
        if missing := [name for name in self._wanted if name != ALL and name not in self._kinds and name not in there]:
            known = ", ".join(map(repr, there)) if there else "none"
            raise InvalidInput(f"the list has no column {', '.join(map(repr, missing))}; its columns are {known}")
        names = list(self._kinds) if ALL in self._wanted else self._wanted
        taken = {name.lower() for name in NAMES}
        found = []
        for name in names:
            stored = name
            while stored.lower() in taken:
                stored = f"{PREFIX}{stored}"
            taken.add(stored.lower())
            found.append(Column(name, stored, _common(self._kinds.get(name, set()), self._typed)))
        return tuple(found)

    def _kind(self, value: Any) -> str | None:
        if value is None or value == "":
            return None
        if isinstance(value, bool):
            return BOOL
        if isinstance(value, int):
            return INT if -LARGEST <= value < LARGEST else STRING
        if isinstance(value, float):
            return FLOAT
        if self._typed or not isinstance(value, str):
            return STRING
        return _kind_of_text(value)


def _kind_of_text(text: str) -> str:
    """Return the type that text can be parsed as and formatted from without change."""
    if text in ("true", "false"):
        return BOOL
    if len(text) > LONGEST or not NUMBER.fullmatch(text):
        return STRING
    if text.lstrip("-").isdigit():
        return INT if str(int(text)) == text and -LARGEST <= int(text) < LARGEST else STRING
    return FLOAT if repr(float(text)) == text else STRING


def plain(value: Any) -> Any:
    """Convert a value of a list to a JSON scalar: nested values to JSON text, other types to `str`."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, list | tuple | Mapping):
        return clean(json.dumps(value, ensure_ascii=False, default=str))
    return clean(str(value))


def clean(text: str) -> str:
    """Escape characters that UTF-8 cannot encode."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def stored(columns: Iterable[Column], carried: Mapping[str, Any]) -> dict[str, Any]:
    """Convert the carried values of a row to those of the dataset."""
    return {column.stored: column.value(carried.get(column.name)) for column in columns}


def _common(kinds: set[str], typed: bool) -> str:
    if typed and kinds == {INT, FLOAT}:
        return FLOAT
    return next(iter(kinds)) if len(kinds) == 1 else STRING

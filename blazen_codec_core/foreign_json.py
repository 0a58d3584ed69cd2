"""Parser of untrusted JSON, with limits and a single error class."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .errors import reason

DEEPEST = 64
"""Deepest nesting of lists and objects."""
LARGEST = 64 << 20
"""Largest text in bytes or characters."""
MOST_VALUES = 1 << 20
"""Most values in a text, counted by commas and brackets: the two characters `[]` become a hundred bytes in memory."""
NOT_NUMBERS = frozenset({"NaN", "Infinity", "-Infinity"})
"""Literals that Python writes but JSON does not allow."""
SURROGATE = re.compile("[\ud800-\udfff]|\\\\u[dD][89a-fA-F]")
"""An unpaired surrogate, or an escape that may be one."""
BRACKETS = re.compile(r'[\[\]{}]|"(?:\\.|[^"\\])*"?', re.DOTALL)
"""Brackets, and strings, in which brackets do not count."""
LENIENT = json.JSONDecoder()


class NotJson(ValueError):
    """Error in a text, phrased as a predicate ("is not JSON: …"), so that callers can put a file name before it."""


class TooMuch(NotJson):
    """JSON that exceeds a limit, but may be valid."""


def parse(
    text: str | bytes, *, deepest: int = DEEPEST, largest: int = LARGEST, most: int = MOST_VALUES, lenient: bool = False
) -> Any:
    """Parse JSON.

    Args:
        text: JSON text.
        deepest: Deepest nesting.
        largest: Largest text in bytes or characters.
        most: Most values.
        lenient: Accept NaN, infinities and unpaired surrogates, which programs and file systems produce.

    Raises:
        NotJson: The text is not JSON, or exceeds a limit.
    """
    _check_size(text, largest, most)
    with _complaining(deepest):
        found = json.loads(text, parse_constant=None if lenient else _refuse)
    _check_depth(found, deepest)
    if not lenient and SURROGATE.search(text if isinstance(text, str) else text.decode("utf-8", "replace")):
        _check_characters(found)
    return found


def parse_object(text: str | bytes, **limits: Any) -> dict[str, Any]:
    """Parse a JSON object; arguments as for `parse`.

    Raises:
        NotJson: The text is not a JSON object.
    """
    found = parse(text, **limits)
    if not isinstance(found, dict):
        raise NotJson(f"is not an object, but {_shortly(found)}")
    return found


def parse_next(text: str, at: int, *, deepest: int = DEEPEST, most: int = MOST_VALUES) -> tuple[Any, int]:
    """Parse the value at an index of a text, leniently; return it and the index of its end.

    Raises:
        NotJson: There is no value, or it is incomplete.
    """
    if len(text) - at > most and text[at : at + 1] in ("[", "{"):
        if not (end := end_of(text, at)):
            raise NotJson("breaks off")
        _check_size(text[at:end], LARGEST, most)
    with _complaining(deepest):
        found, end = LENIENT.raw_decode(text, at)
    _check_depth(found, deepest)
    return found, end


def is_deeper(value: Any, most: int) -> bool:
    """Tell whether lists and dictionaries are nested more than `most` levels deep."""
    level = [value]
    for _ in range(most):
        nested = [own.values() if isinstance(own, dict) else own for own in level if isinstance(own, dict | list)]
        level = [inner for own in nested for inner in own]
    return any(isinstance(own, dict | list) for own in level)


def end_of(text: str, at: int) -> int:
    """Return the end index of the array or object at an index; 0 if it is incomplete."""
    depth = 0
    for token in BRACKETS.finditer(text, at):
        depth += (token[0] in "[{") - (token[0] in "]}")
        if not depth:
            return token.end()
    return 0


def _check_size(text: str | bytes, largest: int, most: int) -> None:
    """Raise `TooMuch` if a text is too large, or has too many values."""
    if len(text) > largest:
        raise TooMuch(f"has {len(text)} characters of JSON; at most {largest} are read")
    if len(text) > most:  # a text has at most as many values as characters
        marks: tuple[Any, ...] = (",", "[", "{") if isinstance(text, str) else (b",", b"[", b"{")
        if sum(text.count(mark) for mark in marks) > most:
            raise TooMuch(f"holds more than {most} values")


@contextmanager
def _complaining(deepest: int) -> Iterator[None]:
    """Convert errors of Python's parser to `NotJson`."""
    try:
        yield
    except NotJson:
        raise
    except RecursionError as error:
        raise _too_deep(deepest) from error
    except ValueError as error:  # includes invalid UTF-8
        if "integer string conversion" in str(error):
            raise TooMuch("has a number with too many digits") from error
        raise NotJson(f"is not JSON: {reason(error)}") from error


def _check_depth(found: Any, deepest: int) -> None:
    if is_deeper(found, deepest):
        raise _too_deep(deepest)


def _too_deep(deepest: int) -> TooMuch:
    return TooMuch(f"is nested too deeply: more than {deepest} levels")


def _refuse(literal: str) -> Any:
    raise NotJson(f"is not JSON: {literal} is not allowed")


def _check_characters(found: Any) -> None:
    try:
        json.dumps(found, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise NotJson(f"has an unpaired surrogate, {error.object[error.start]!a}") from error


def _shortly(value: Any) -> str:
    return f"{type(value).__name__} {value!r}"[:80]

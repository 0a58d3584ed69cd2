"""JSON that somebody else wrote: read in one place, with limits, and with one kind of error for whatever is wrong with it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .errors import reason

DEEPEST = 64
"""Levels of lists and objects that are in each other."""
LARGEST = 64 << 20
"""Bytes or characters of a text."""
MOST_VALUES = 1 << 20
"""Values in a text, as its commas and brackets count them: a list of two characters takes a hundred bytes of memory."""
NOT_NUMBERS = frozenset({"NaN", "Infinity", "-Infinity"})
"""Literals that Python writes, and JSON does not have."""
SURROGATE = re.compile("[\ud800-\udfff]|\\\\u[dD][89a-fA-F]")
"""Half of a character, or what may be the escape of one."""
BRACKETS = re.compile(r'[\[\]{}]|"(?:\\.|[^"\\])*"?', re.DOTALL)
"""Brackets, and strings, in which they are none."""
LENIENT = json.JSONDecoder()


class NotJson(ValueError):
    """Error in a text, as a predicate: "is no JSON: …". Callers that read a file turn it into an error of that file."""


class TooMuch(NotJson):
    """JSON that is too deep, too large or too long, though it may be whole."""


def parse(
    text: str | bytes, *, deepest: int = DEEPEST, largest: int = LARGEST, most: int = MOST_VALUES, lenient: bool = False
) -> Any:
    """Return what a text says.

    Args:
        deepest: Levels that may be in each other.
        largest: Bytes or characters that there may be.
        most: Values that there may be.
        lenient: Take NaN and infinities, and halves of characters (surrogates), as programs and file systems write them.

    Raises:
        NotJson: It is no JSON, too large or too deep, or has a number that is too long.
    """
    _check_size(text, largest, most)
    with _complaining(deepest):
        found = json.loads(text, parse_constant=None if lenient else _refuse)
    _check_depth(found, deepest)
    if not lenient and SURROGATE.search(text if isinstance(text, str) else text.decode("utf-8", "replace")):
        _check_characters(found)
    return found


def parse_object(text: str | bytes, **limits: Any) -> dict[str, Any]:
    """Return the object that a text says; arguments as `parse`.

    Raises:
        NotJson: It says none.
    """
    found = parse(text, **limits)
    if not isinstance(found, dict):
        raise NotJson(f"is no object, but {_shortly(found)}")
    return found


def parse_next(text: str, at: int, *, deepest: int = DEEPEST, most: int = MOST_VALUES) -> tuple[Any, int]:
    """Return the value that begins at a place in a text, and where it ends; leniently, and as `parse` otherwise.

    Raises:
        NotJson: There is none, or it goes on beyond the text.
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
    """Return whether lists and mappings lie in each other more than so many times."""
    level = [value]
    for _ in range(most):
        nested = [own.values() if isinstance(own, dict) else own for own in level if isinstance(own, dict | list)]
        level = [inner for own in nested for inner in own]
    return any(isinstance(own, dict | list) for own in level)


def end_of(text: str, at: int) -> int:
    """Return where an array or object that begins at a place ends, 0 where it goes on."""
    depth = 0
    for token in BRACKETS.finditer(text, at):
        depth += (token[0] in "[{") - (token[0] in "]}")
        if not depth:
            return token.end()
    return 0


def _check_size(text: str | bytes, largest: int, most: int) -> None:
    """Raise `TooMuch` where a text is larger than it may be, or would take far more memory than it has characters."""
    if len(text) > largest:
        raise TooMuch(f"is {len(text)} characters of JSON, and {largest} at most are read")
    if len(text) > most:  # no text has more values than characters
        marks: tuple[Any, ...] = (",", "[", "{") if isinstance(text, str) else (b",", b"[", b"{")
        if sum(text.count(mark) for mark in marks) > most:
            raise TooMuch(f"holds more than {most} values")


@contextmanager
def _complaining(deepest: int) -> Iterator[None]:
    """Makes `NotJson` of what Python's own reader raises."""
    try:
        yield
    except NotJson:
        raise
    except RecursionError as error:
        raise _too_deep(deepest) from error
    except ValueError as error:  # also of bytes that are no UTF-8
        if "integer string conversion" in str(error):
            raise TooMuch("has a number of more digits than are read") from error
        raise NotJson(f"is no JSON: {reason(error)}") from error


def _check_depth(found: Any, deepest: int) -> None:
    if is_deeper(found, deepest):
        raise _too_deep(deepest)


def _too_deep(deepest: int) -> TooMuch:
    return TooMuch(f"is nested too deeply: more than {deepest} levels")


def _refuse(literal: str) -> Any:
    raise NotJson(f"is no JSON: {literal} is no number there")


def _check_characters(found: Any) -> None:
    try:
        json.dumps(found, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise NotJson(f"has half a character, {error.object[error.start]!a}") from error


def _shortly(value: Any) -> str:
    return f"{type(value).__name__} {value!r}"[:80]

"""Names of columns: of paths and ids, and of times with their units."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Any

from ...errors import InvalidInput

PATHS = (
    "path", "audio_filepath", "audio_path", "audio_file", "audio_file_path", "audio_filename", "file", "file_path", "filepath",
    "filename", "file_name", "fname", "wav_path", "wav_filepath", "wav_file", "wav_filename", "wavpath", "wav", "audio",
    "recording_path", "sound_path", "sound", "clip_path", "clip", "mp3", "flac", "uri", "url", "audio_url",
)  # fmt: skip
"""Names of the column of paths, the first that there is."""
IDS = ("id", "utt_id", "uttid", "utt", "utterance_id", "utterance", "key", "segment_id", "__key__")
BOUNDS = {
    **dict.fromkeys(("start", "begin", "beg", "onset", "t0", "tmin", "xmin", "tbeg"), "start"),
    **dict.fromkeys(("end", "stop", "t1", "tmax", "xmax", "tend"), "end"),
    **dict.fromkeys(("duration", "dur", "length", "len"), "duration"),
    "offset": "offset",
}
"""Words that say which time is meant."""
UNITS = {
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), 1.0),
    **dict.fromkeys(("ms", "msec", "msecs", "millis", "millisecond", "milliseconds"), 1e-3),
    **dict.fromkeys(("minutes", "mins"), 60.0),
    **dict.fromkeys(("hours", "hrs"), 3600.0),
}
COUNTED = frozenset({"sample", "samples", "frame", "frames", "nsamples", "nframes"})
COUNTING = frozenset({"num", "n", "number", "count", "total", "nb"})
NEUTRAL = frozenset((
    "time", "times", "audio", "clip", "segment", "seg", "utterance", "utt", "speech", "recording", "position", "pos", "at",
    "in", "of", "the", "t", "file", "wav", "total",
))  # fmt: skip
"""Words that leave what a time means as it is."""
TIMES = frozenset({"time", "times", "timestamp", "timestamps", "from", "to", "until", "segment", "segments", "span", "interval"})
"""Further words that name times, though not which."""
NO_TIME = frozenset((
    "rate", "sr", "id", "ids", "name", "names", "text", "path", "format", "type", "url", "hash", "width", "bits", "bit",
    "sentence", "transcript", "transcription", "word", "words", "token", "tokens", "char", "chars", "character",
    "characters", "language", "lang", "date", "day", "speaker", "created", "modified", "updated", "upload", "uploaded",
    "title", "label", "labels", "recorded", "gender", "age", "accent", "locale", "normalized", "version", "size", "bytes",
    "license",
))  # fmt: skip
"""Words of columns that are none of times, whatever else they say."""
GLUED = re.compile(
    r"(start|begin|end|stop|onset|offset|duration|dur|length)(time|times|sec|secs|seconds|ms|msec|samples?|frames?|pos|position)"
)
CLOCK = re.compile(r"\s*-?\d+(\.\d+)?([:;]\d+(\.\d+)?)*([.,]\d+)?([eE][+-]?\d+)?\s*")


class Kind(Enum):
    """What a column is, as far as its name says."""

    OTHER = "other"
    START = "start"
    END = "end"
    DURATION = "duration"
    FACT = "a fact on the whole file"
    UNKNOWN = "a time that is not understood"


@dataclass(frozen=True)
class Meaning:
    """What a column means.

    Attributes:
        scale: Seconds of a unit of its values; `None` where the name does not say.
    """

    kind: Kind
    scale: float | None = None


class ColumnNotUnderstood(InvalidInput):
    """A column names a time, and how is not known: no row of the list can be relied on."""


@lru_cache(4096)
def normal(name: str) -> str:
    """Return a name as the tables here have it: `Audio FilePath` and `audioFilepath` are `audio_filepath`."""
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.strip().lstrip("\ufeff"))
    return re.sub(r"[\s\-.]+", "_", snake).lower()


@lru_cache(4096)
def meaning(name: str) -> Meaning:
    """Return what a column is, by the words of its name."""
    words = [part for word in normal(name).split("_") if word for part in _split(word)]
    if any(word in NO_TIME for word in words):
        return Meaning(Kind.OTHER)
    bounds = {BOUNDS[word] for word in words if word in BOUNDS}
    if len(bounds) > 1:
        bounds -= {"offset"}  # `start_offset`
    rest = [word for word in words if word not in BOUNDS]
    if any(word in COUNTED for word in rest):
        return Meaning(Kind.UNKNOWN if bounds or not _counts(rest) else Kind.FACT)
    if len(bounds) == 1 and all(word in UNITS or word in NEUTRAL for word in rest):
        bound = bounds.pop()
        scales = [UNITS[word] for word in rest if word in UNITS]
        unclear = bound == "duration" and not scales and {"length", "len"} & set(words)
        kind = {"start": Kind.START, "offset": Kind.START, "end": Kind.END, "duration": Kind.DURATION}[bound]
        return Meaning(kind, None if unclear or len(scales) > 1 else scales[0] if scales else 1.0)
    named = bounds or any(word in TIMES or (word in UNITS and word != "s") for word in rest)
    return Meaning(Kind.UNKNOWN if named else Kind.OTHER)


def _split(word: str) -> tuple[str, ...]:
    glued = GLUED.fullmatch(word)
    return glued.groups() if glued else (word,)


def _counts(words: list[str]) -> bool:
    """Whether a number of samples is meant, and not the place of one."""
    plural = any(word in COUNTED and word.endswith("s") for word in words)
    return all(word in COUNTED | COUNTING | NEUTRAL for word in words) and (plural or any(word in COUNTING for word in words))


def is_given(value: Any) -> bool:
    """Whether a field of a list holds something."""
    return value is not None and not (isinstance(value, str) and not value.strip())


def looks_like_time(value: Any) -> bool:
    """Whether a value is a number, a time of a clock, or several."""
    if isinstance(value, list | tuple):
        return bool(value) and all(map(looks_like_time, value))
    if isinstance(value, str):
        return CLOCK.fullmatch(value) is not None
    return isinstance(value, int | float) and not isinstance(value, bool)


def seconds(name: str, value: Any, scale: float) -> float | None:
    """Return a time in seconds, `None` where there is none.

    Raises:
        InvalidInput: It is not a number from 0 on.
    """
    if not is_given(value):
        return None
    try:
        number = float("nan") if isinstance(value, bool) else float(value) * scale
    except (TypeError, ValueError, OverflowError):
        number = float("nan")
    if not 0 <= number < float("inf"):
        unit = "seconds" if scale == 1.0 else f"units of {scale:g} s"
        raise InvalidInput(f"{name} is in {unit}, from 0 on, not {value!r}")
    return number


@dataclass(frozen=True)
class Part:
    """Which part of a recording a row means, and how long the recording is if it means the whole; in seconds."""

    start: float | None
    end: float | None
    lasts: float | None
    used: frozenset[str]


def part(values: Mapping[str, Any], *, is_cut: bool = False, carried: frozenset[str] = frozenset()) -> Part:
    """Return which part of a recording a row means.

    Args:
        values: The fields of the row.
        is_cut: The row holds audio of its own, which times of a longer recording are not about.
        carried: Columns that travel along by name, and may mean whatever they do.

    Raises:
        ColumnNotUnderstood: A column names a time in an unknown way.
        InvalidInput: A value is not a time, or the part ends before it starts.
    """
    given: dict[Kind, list[str]] = {}
    timed = [(name, kind) for name, kind in _timed(tuple(values)) if is_given(values[name])]
    has_onset = any("onset" in normal(name) for name, _ in timed)
    for name, meant in timed:
        kind = meant
        if has_onset and kind is Kind.START and "offset" in normal(name):
            kind = Kind.END  # as opposed to NeMo's, which is a start
        if is_cut and kind in (Kind.START, Kind.END) and normal(name) not in ("start", "end", "offset"):
            kind = Kind.UNKNOWN
        given.setdefault(kind, []).append(name)
    for name in given.get(Kind.UNKNOWN, ()):
        if name not in carried and looks_like_time(values[name]):
            raise _not_understood(name)
    start, end, duration = (_agreeing(values, given.get(kind, [])) for kind in (Kind.START, Kind.END, Kind.DURATION))
    if start is not None and end is None and duration is None:
        for name in (*given.get(Kind.DURATION, ()), *given.get(Kind.FACT, ())):
            if name not in carried:
                raise _not_understood(name)
    used = frozenset(name for names in given.values() for name in names)
    if start is None and end is None:
        return Part(None, None, duration, used)
    if end is None and duration is not None:
        end = (start or 0.0) + duration
    if end is not None and end <= (start or 0.0):
        raise InvalidInput(f"it ends at {end:g} s, before it starts")
    return Part(start, end, None if end is None else end - (start or 0.0), used)


@lru_cache(1024)
def _timed(names: tuple[str, ...]) -> tuple[tuple[str, Kind], ...]:
    """The columns that are times, of a row of these."""
    return tuple((name, meaning(name).kind) for name in names if meaning(name).kind is not Kind.OTHER)


def _agreeing(values: Mapping[str, Any], names: list[str]) -> float | None:
    """What columns for the same time say, in seconds; those whose unit is not known say nothing."""
    if not names:
        return None
    found: dict[str, float] = {}
    for name in names:
        scale = meaning(name).scale
        value = None if scale is None else seconds(name, values[name], scale)
        if value is not None:
            found[name] = value
    if found and max(found.values()) - min(found.values()) > 0.01:
        raise ColumnNotUnderstood(
            f"the columns {' and '.join(map(repr, found))} name the same time, and differ: remove all but one"
        )
    return next(iter(found.values()), None)


def _not_understood(name: str) -> ColumnNotUnderstood:
    return ColumnNotUnderstood(
        f"the column {name!r} names a time, and is not understood. Understood are start, offset, begin or onset, with end, stop "
        "or duration, in seconds, or in milliseconds as in start_ms. Rename it or remove it, or carry it along unread with "
        f"--columns {name}"
    )

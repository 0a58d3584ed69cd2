"""Interpretation of column names: paths, ids, and times with their units."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Any

from ...audio.reader import FURTHEST
from ...errors import InvalidInput

PATHS = (
    "path", "audio_filepath", "audio_path", "audio_file", "audio_file_path", "audio_filename", "file", "file_path", "filepath",
    "filename", "file_name", "fname", "wav_path", "wav_filepath", "wav_file", "wav_filename", "wavpath", "wav", "audio",
    "recording_path", "sound_path", "sound", "clip_path", "clip", "mp3", "flac", "uri", "url", "audio_url",
)  # fmt: skip
"""Names of path columns, by decreasing priority."""
IDS = ("id", "utt_id", "uttid", "utt", "utterance_id", "utterance", "key", "segment_id", "__key__")
BOUNDS = {
    **dict.fromkeys(("start", "starts", "begin", "begins", "beg", "onset", "onsets"), "start"),
    **dict.fromkeys(("t0", "tmin", "xmin", "tbeg", "tstart"), "start"),
    **dict.fromkeys(("end", "ends", "stop", "stops", "t1", "tmax", "xmax", "tend", "tstop"), "end"),
    **dict.fromkeys(("duration", "durations", "dur", "length", "lengths", "len"), "duration"),
    **dict.fromkeys(("offset", "offsets"), "offset"),
}
"""Words that identify a time: start, end, duration or offset."""
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
"""Words that do not change the meaning of a time."""
TIMES = frozenset((
    "time", "times", "timestamp", "timestamps", "from", "to", "until", "starting", "ending", "started", "ended",
))  # fmt: skip
"""Further words that indicate a time, but not which one."""
SPANS = frozenset({"segment", "segments", "seg", "segs", "span", "spans", "interval", "intervals"})
"""Words that indicate an interval. A single number in such a column is an index, not a time."""
PAIRS = (
    ("in", "out"), ("in_point", "out_point"), ("inpoint", "outpoint"), ("mark_in", "mark_out"), ("left", "right"),
    ("st", "et"), ("st", "ed"), ("s", "e"), ("ts", "te"), ("t_s", "t_e"),
)  # fmt: skip
"""Names that mean start and end if both are present, and are ambiguous alone."""
NO_TIME = frozenset((
    "rate", "sr", "id", "ids", "name", "names", "text", "path", "format", "type", "url", "hash", "width", "bits", "bit",
    "sentence", "transcript", "transcription", "word", "words", "token", "tokens", "char", "chars", "character",
    "characters", "language", "lang", "date", "day", "speaker", "created", "modified", "updated", "upload", "uploaded",
    "title", "label", "labels", "recorded", "gender", "age", "accent", "locale", "normalized", "version", "size", "bytes",
    "license",
))  # fmt: skip
"""Words of columns that are not times, unless the name also contains a start or an end."""
GLUED = re.compile(
    r"(start|begin|end|stop|onset|offset|duration|dur|length)(time|times|timestamps?|sec|secs|seconds|ms|msec|samples?|frames?|pos|position)"
)
CLOCK = r"-?\d+(\.\d+)?([:;]\d+(\.\d+)?)*([.,]\d+)?([eE][+-]?\d+)?(\s?(ms|secs?|s))?"
BETWEEN = r"\s*(-+>?|→|\.\.+|to|[,;/|~_–—\s])\s*"
TIME = re.compile(rf"\s*{CLOCK}\s*")
STRETCH = re.compile(rf"\s*[\[(]?\s*{CLOCK}{BETWEEN}{CLOCK}\s*[\])]?\s*")
FEW = 1000
"""Number of columns up to which the parsed names stay in the large cache."""
LONGEST_TIME = 80
"""Longest text that can be a time or an interval, in characters."""


class Kind(Enum):
    """Kind of a column according to its name."""

    OTHER = "other"
    START = "start"
    END = "end"
    DURATION = "duration"
    FACT = "a fact on the whole file"
    UNKNOWN = "a time that is not understood"
    SPAN = "a stretch of time, or the number of one"


@dataclass(frozen=True)
class Meaning:
    """Meaning of a column: its kind and the unit of its times.

    Attributes:
        scale: Unit of the values in seconds; `None` if the name does not state it.
    """

    kind: Kind
    scale: float | None = None


class ColumnNotUnderstood(InvalidInput):
    """A column seems to name a time in an unknown way, so no row of the list can be trusted."""


@lru_cache(4096)
def normal(name: str) -> str:
    """Normalize a name to snake case: `audioFilepath` → `audio_filepath`, `Start (ms)` → `start_ms`."""
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.strip().lstrip("\ufeff"))
    return re.sub(r"\W+", "_", re.sub(r"^\W+|\W+$", "", snake)).lower()


@lru_cache(4096)
def meaning(name: str) -> Meaning:
    """Infer the meaning of a column from the words of its name."""
    words = [part for word in normal(name).split("_") if word for part in _split(word)]
    bounds = {BOUNDS[word] for word in words if word in BOUNDS}
    if any(word in NO_TIME for word in words):
        return Meaning(Kind.UNKNOWN if bounds - {"duration"} else Kind.OTHER)
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
    if named:
        return Meaning(Kind.UNKNOWN)
    return Meaning(Kind.SPAN if any(word in SPANS for word in rest) else Kind.OTHER)


def _split(word: str) -> tuple[str, ...]:
    glued = GLUED.fullmatch(word)
    return glued.groups() if glued else (word,)


def _counts(words: list[str]) -> bool:
    """Tell whether the words mean a number of samples rather than a position."""
    plural = any(word in COUNTED and word.endswith("s") for word in words)
    return all(word in COUNTED | COUNTING | NEUTRAL for word in words) and (plural or any(word in COUNTING for word in words))


def is_given(value: Any) -> bool:
    """Tell whether a field is not empty."""
    return value is not None and not (isinstance(value, str) and not value.strip())


def _shortly(value: Any) -> str:
    try:
        return repr(value)[:LONGEST_TIME]
    except ValueError:  # an int with more digits than Python formats
        return f"a {type(value).__name__}"


def looks_like_time(value: Any) -> bool:
    """Tell whether a value is a number, a clock time, or several of them."""
    if isinstance(value, str):
        return looks_like_stretch(value) or (len(value) <= LONGEST_TIME and TIME.fullmatch(value) is not None)
    return looks_like_stretch(value) or (isinstance(value, int | float) and not isinstance(value, bool))


def looks_like_stretch(value: Any) -> bool:
    """Tell whether a value is several times, or a struct with a start or an end."""
    if isinstance(value, list | tuple):
        return bool(value) and all(map(looks_like_time, value))
    if isinstance(value, Mapping):
        return any(meaning(str(name)).kind in (Kind.START, Kind.END) and looks_like_time(value[name]) for name in value)
    return isinstance(value, str) and len(value) <= LONGEST_TIME and STRETCH.fullmatch(value) is not None


def seconds(name: str, value: Any, scale: float) -> float | None:
    """Convert a time to seconds; `None` if the field is empty.

    Raises:
        InvalidInput: The value is not a finite number of at least 0.
    """
    if not is_given(value):
        return None
    try:
        number = float("nan") if isinstance(value, bool) else float(value) * scale
    except (TypeError, ValueError, OverflowError):
        number = float("nan")
    if not 0 <= number < float("inf"):
        unit = "seconds" if scale == 1.0 else f"units of {scale:g} s"
        raise InvalidInput(f"{name} is {_shortly(value)}; expected a number of {unit}, at least 0")
    if number > FURTHEST:
        raise InvalidInput(f"{name} is {number:g} s; times may be up to {FURTHEST:g} s. Is the unit right?")
    return number


@dataclass(frozen=True)
class Part:
    """Part of a recording, in seconds; `lasts` is the duration of the part, or of the whole recording."""

    start: float | None
    end: float | None
    lasts: float | None
    used: frozenset[str]


def part(values: Mapping[str, Any], *, is_cut: bool = False, carried: frozenset[str] = frozenset()) -> Part:
    """Determine which part of a recording a row describes.

    Args:
        values: The fields of the row.
        is_cut: The row embeds its own audio, so times of a longer recording do not apply.
        carried: Names of carried columns, which may have any meaning.

    Raises:
        ColumnNotUnderstood: A column names a time in an unknown way.
        InvalidInput: A value is not a time, or the part ends before it starts.
    """
    given: dict[Kind, list[str]] = {}
    names = names_of(values)
    timed = [(name, kind) for name, kind in names.timed if is_given(values[name])]
    has_onset = any("onset" in normal(name) for name, _ in timed)
    for name, meant in timed:
        kind = meant
        if has_onset and kind is Kind.START and "offset" in normal(name):
            kind = Kind.END  # NeMo's offset is a start, but not beside an onset
        if is_cut and kind in (Kind.START, Kind.END) and normal(name) not in ("start", "end", "offset"):
            kind = Kind.UNKNOWN
        given.setdefault(kind, []).append(name)
    unclear = [name for name in given.get(Kind.UNKNOWN, ()) if looks_like_time(values[name])]
    unclear += [name for name in given.get(Kind.SPAN, ()) if looks_like_stretch(values[name])]
    unclear += [name for name in names.paths if isinstance(values[name], Mapping) and looks_like_stretch(values[name])]
    unclear += [name for pair in names.pairs if all(looks_like_time(values[name]) for name in pair) for name in pair]
    for name in unclear:
        if name not in carried:
            raise _not_understood(name)
    start, end, duration = (_agreeing(values, given.get(kind, [])) for kind in (Kind.START, Kind.END, Kind.DURATION))
    if start is not None and end is None and duration is None:
        for name in (*given.get(Kind.DURATION, ()), *given.get(Kind.FACT, ())):
            if name not in carried:
                raise _not_understood(name)
    used = frozenset(name for kind, names in given.items() if kind not in (Kind.UNKNOWN, Kind.SPAN) for name in names)
    if start is None and end is None:
        return Part(None, None, duration, used)
    if end is None and duration is not None:
        end = (start or 0.0) + duration
    if end is not None and end <= (start or 0.0):
        raise InvalidInput(f"the part ends at {end:g} s, before it starts")
    return Part(start, end, None if end is None else end - (start or 0.0), used)


@dataclass(frozen=True)
class Names:
    """Interpretation of the column names of a row.

    Attributes:
        by_normal: First column for each normalized name.
        paths: Path columns by priority, then by order.
        id: Id column.
        timed: Columns of times, with their kinds.
        pairs: Pairs of columns that form a start and an end.
    """

    by_normal: Mapping[str, str]
    paths: tuple[str, ...]
    id: str | None
    timed: tuple[tuple[str, Kind], ...]
    pairs: tuple[tuple[str, str], ...]


def names_of(values: Mapping[str, Any]) -> Names:
    """Interpret the column names of a row; the result is cached for the next rows."""
    names = tuple(values)
    return _names_of_few(names) if len(names) <= FEW else _names_of_many(names)


def _names_of(names: tuple[str, ...]) -> Names:
    forms = [normal(name) for name in names]
    first = dict(zip(reversed(forms), reversed(names), strict=True))
    last = dict(zip(forms, names, strict=True))
    ranks = {name: rank for rank, name in enumerate(PATHS)}
    paths = sorted((ranks[form], place) for place, form in enumerate(forms) if form in ranks)
    kinds = [(name, meaning(name).kind) for name in names]
    return Names(
        first,
        tuple(names[place] for _, place in paths),
        next((first[name] for name in IDS if name in first), None),
        tuple((name, kind) for name, kind in kinds if kind is not Kind.OTHER),
        tuple((last[start], last[end]) for start, end in PAIRS if start in last and end in last),
    )


_names_of_few = lru_cache(1024)(_names_of)
_names_of_many = lru_cache(2)(_names_of)


def _agreeing(values: Mapping[str, Any], names: list[str]) -> float | None:
    """Time in seconds that columns agree on; `None` if none gives it in a known unit."""
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
            f"the columns {' and '.join(map(repr, found))} give different values for the same time. Remove all but one"
        )
    return next(iter(found.values()), None)


def _not_understood(name: str) -> ColumnNotUnderstood:
    return ColumnNotUnderstood(
        f"the column {name!r} seems to be a time, but is not recognized; expected start, offset, begin or onset, with end, stop "
        "or duration, in seconds, or in milliseconds as in start_ms. Rename or remove the column, or copy it uninterpreted "
        f"with --columns {name}"
    )

"""A row of a dataset: the tokens of a recording, in columns that any reader of Parquet understands.

| column | type | |
|---|---|---|
| `id` | string | of the recording in its input |
| `path` | string | of its file; for a member of a tar, the tar's, a colon and the member's |
| `start`, `duration` | double | seconds, of what was tokenised |
| `channels` | int16 | of the audio that the tokens stand for |
| `codec`, `weights` | string | which model made them: `family:name`, and `sha256:…` or `random:SEED` |
| `bandwidth` | double | kbps a stream, scales left out |
| `options` | string | what else was asked for, JSON |
| `remarks` | list of strings | what a listener should know of the recording: that it was cut, or far too loud |
| `sample_rate` | int32 | of the codec, hertz |
| `num_samples` | int64 | a channel, at the codec's rate |
| `source_sample_rate`, `source_num_samples`, `source_channels` | int32, int64, int16 | of the recording as it was |
| `codes` | list of lists of uint16 (uint32 where a codebook is that large) | one a codebook, and so on for each stream |
| `scales` | list of lists of float | one a stream, where the codec has them |
| `header` | string | all that `CodecTokens` has but codes and scales, JSON: a row is enough to decode it |

Columns of a list that travel along come after these, as int64, double, boolean or string. One that is called as one of these is
has `source_` before its name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import CorruptFile, reason
from ..tokens import container
from ..tokens.tokens import CodecTokens
from ..validation import is_int

VERSION = "1"
NAMES = (
    "id", "path", "start", "duration", "channels", "codec", "weights", "bandwidth", "options", "sample_rate", "num_samples",
    "source_sample_rate", "source_num_samples", "source_channels", "remarks", "codes", "scales", "header",
)  # fmt: skip
"""Columns of every dataset."""
_Kind = tuple[str, Callable[[Any], bool]]
_TEXT: _Kind = ("text", lambda value: isinstance(value, str))
_TIME: _Kind = ("a number from 0 on", lambda value: isinstance(value, int | float) and 0 <= value < math.inf)
_COUNT: _Kind = ("a whole number from 0 on", lambda value: is_int(value) and value >= 0)
_TEXTS: _Kind = (
    "a list of texts",
    lambda value: value is None or (isinstance(value, list | tuple) and all(isinstance(own, str) for own in value)),
)
TYPES: dict[str, _Kind] = {
    **dict.fromkeys(("id", "path", "options"), _TEXT),
    **dict.fromkeys(("start", "duration"), _TIME),
    **dict.fromkeys(("source_sample_rate", "source_num_samples", "source_channels"), _COUNT),
    "remarks": _TEXTS,
}
"""What is read of a row beside its tokens, in words, and whether a value is that."""
LARGEST_SHORT = 1 << 16
"""Entries of a codebook whose indices fit uint16."""


@dataclass(frozen=True)
class Row:
    """The tokens of a recording, and where that was.

    Attributes:
        start: Of what was tokenised, in seconds.
        source_sample_rate, source_num_samples, source_channels: Of the recording as it was.
        options: What was asked for besides, JSON.
        carried: Columns of the list that the recording was in.
        remarks: What a listener should know of the recording.
    """

    id: str
    path: str
    tokens: CodecTokens
    start: float
    source_sample_rate: int
    source_num_samples: int
    source_channels: int
    options: str = "{}"
    carried: Mapping[str, Any] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    @property
    def facts(self) -> dict[str, Any]:
        """All columns but those of codes and scales."""
        tokens = self.tokens
        bits = sum(math.log2(tokens.codebook_size) / stride for stride in tokens.strides)
        return {
            "id": self.id,
            "path": self.path,
            "start": self.start,
            "duration": self.source_num_samples / self.source_sample_rate,
            "channels": tokens.channels,
            "codec": tokens.codec,
            "weights": tokens.weights,
            "bandwidth": bits * tokens.sample_rate / tokens.hop_length / 1000,
            "options": self.options,
            "sample_rate": tokens.sample_rate,
            "num_samples": tokens.num_samples,
            "source_sample_rate": self.source_sample_rate,
            "source_num_samples": self.source_num_samples,
            "source_channels": self.source_channels,
            "remarks": list(self.remarks),
            **self.carried,
        }

    @property
    def values(self) -> int:
        """Tokens in all codebooks and streams."""
        return int(sum(code.size for code in self.tokens.codes))

    @property
    def columns(self) -> dict[str, Any]:
        """Values of the row for the columns of Parquet."""
        tokens = self.tokens
        kind = np.uint16 if tokens.codebook_size <= LARGEST_SHORT else np.uint32
        return {
            **self.facts,
            "codes": [code[stream].astype(kind) for stream in range(tokens.streams) for code in tokens.codes],
            "scales": None if tokens.scales is None else list(tokens.scales),
            "header": container.header_of(tokens.fields),
        }

    @classmethod
    def of(cls, facts: Mapping[str, Any], tokens: CodecTokens, where: str) -> Row:
        """From `facts`, and the tokens.

        Raises:
            CorruptFile: One is missing, or of another type.
        """
        read = {name: _column(facts, name, where) for name in TYPES if name not in ("duration", "remarks")}
        carried = {name: value for name, value in facts.items() if name not in NAMES}
        remarks = tuple(_column(facts, "remarks", where) or ())
        return cls(tokens=tokens, carried=carried, remarks=remarks, **read)


def listed(facts: Mapping[str, Any], where: str) -> tuple[str, float]:
    """Return the id and the seconds of a row; raises `CorruptFile` where there are none."""
    return _column(facts, "id", where), _column(facts, "duration", where)


def _column(facts: Mapping[str, Any], name: str, where: str) -> Any:
    """The value of a column, which is of the type that it has in every dataset."""
    kind, is_right = TYPES[name]
    if name not in facts and name != "remarks":
        raise CorruptFile(f"{where} is no row of tokens: there is no {name!r}")
    value = facts.get(name)
    if not is_right(value):
        raise CorruptFile(f"{where} is no row of tokens: {name} is {kind}, not {type(value).__name__} {value!a:.80}")
    return value


def tokens_from_row(columns: Mapping[str, Any], where: str = "the row") -> CodecTokens:
    """The tokens of a row as a reader of Parquet gives it, pandas, polars, DuckDB or `datasets`: a mapping of columns.

    Raises:
        CorruptFile: It is no such row.
    """
    try:
        header, lists = str(columns["header"]), [np.asarray(codes) for codes in columns["codes"]]
        found = columns.get("scales")
        with np.errstate(over="ignore"):  # what is too large becomes infinite, which tokens refuse
            scales = [np.asarray(own, np.float32) for own in found] if found is not None else []
        stacked = np.stack(scales) if scales else None
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise CorruptFile(f"{where} is no row of tokens, or is damaged: {reason(error)}") from error

    fields = container.fields_of(header, where)
    books = len(fields["strides"])
    if len(lists) % books:
        raise CorruptFile(f"{where} is damaged: {len(lists)} lists of codes are no whole streams of {books} codebooks")
    try:
        codes = [np.stack(lists[book::books]) for book in range(books)]
    except ValueError as error:
        raise CorruptFile(f"{where} is damaged, or is not what it says: {reason(error)}") from error
    return CodecTokens.restored(container.Contents(fields, codes, stacked), where)

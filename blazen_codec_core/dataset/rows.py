"""Row of a dataset: the tokens of a recording, with a schema for any Parquet reader.

| column | type | |
|---|---|---|
| `id` | string | id of the recording in its input |
| `path` | string | path of the file; `TAR:MEMBER` for a member of a tar |
| `start`, `duration` | double | start and duration of the tokenized part in seconds |
| `channels` | int16 | channels of the decoded audio |
| `codec`, `weights` | string | model `family:name`, and weights label `sha256:…` or `random:SEED` |
| `bandwidth` | double | kbps per stream, without scales |
| `options` | string | other settings of the run, JSON |
| `remarks` | list of strings | anomalies of the recording: truncated, or far too loud |
| `sample_rate` | int32 | sample rate of the codec in Hz |
| `num_samples` | int64 | samples per channel at the codec's rate |
| `source_sample_rate`, `source_num_samples`, `source_channels` | int32, int64, int16 | properties of the original recording |
| `codes` | list of lists of uint16 (uint32 for codebooks above 65536 entries) | all codebooks of stream 0, then of stream 1 … |
| `scales` | list of lists of float | one list per stream, if the codec has scales |
| `header` | string | all other fields of `CodecTokens`, JSON: a row can be decoded by itself |

Carried columns of a list follow, as int64, double, boolean or string. A carried column with the name of a column above gets the
prefix `source_`.
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
_TIME: _Kind = ("a number, at least 0", lambda value: isinstance(value, int | float) and 0 <= value < math.inf)
_COUNT: _Kind = ("an integer, at least 0", lambda value: is_int(value) and value >= 0)
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
"""Expected type of each column that is read besides the tokens: its description and a predicate."""
LARGEST_SHORT = 1 << 16
"""Largest codebook whose indices fit into uint16."""


@dataclass(frozen=True)
class Row:
    """The tokens of a recording, with its origin.

    Attributes:
        id: Id of the recording.
        path: Display path of the recording.
        tokens: Tokens.
        start: Start of the tokenized part in seconds.
        source_sample_rate: Sample rate of the original in Hz.
        source_num_samples: Samples per channel of the original.
        source_channels: Channels of the original.
        options: Other settings of the run, JSON.
        carried: Values of the carried columns.
        remarks: Anomalies of the recording.
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
        """All columns except codes, scales and header."""
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
        """Number of tokens in all codebooks and streams."""
        return int(sum(code.size for code in self.tokens.codes))

    @property
    def columns(self) -> dict[str, Any]:
        """All values of the row by Parquet column."""
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
        """Make a row from `facts` and tokens.

        Raises:
            CorruptFile: A column is missing or has another type.
        """
        read = {name: _column(facts, name, where) for name in TYPES if name not in ("duration", "remarks")}
        carried = {name: value for name, value in facts.items() if name not in NAMES}
        remarks = tuple(_column(facts, "remarks", where) or ())
        return cls(tokens=tokens, carried=carried, remarks=remarks, **read)


def listed(facts: Mapping[str, Any], where: str) -> tuple[str, float]:
    """Return the id and duration of a row; raise `CorruptFile` if they are missing or invalid."""
    return _column(facts, "id", where), _column(facts, "duration", where)


def _column(facts: Mapping[str, Any], name: str, where: str) -> Any:
    """Return the value of a column after checking its type."""
    kind, is_right = TYPES[name]
    if name not in facts and name != "remarks":
        raise CorruptFile(f"{where} is not a row of tokens: {name!r} is missing")
    value = facts.get(name)
    if not is_right(value):
        raise CorruptFile(f"{where} is not a row of tokens: {name} is {type(value).__name__} {value!a:.80}; expected {kind}")
    return value


def tokens_from_row(columns: Mapping[str, Any], where: str = "the row") -> CodecTokens:
    """Return the tokens of a row read with pandas, polars, DuckDB or `datasets`, given as a mapping of columns.

    Raises:
        CorruptFile: The row is not a row of tokens, or is damaged.
    """
    return CodecTokens.restored(contents_of(columns, where), where)


def contents_of(columns: Mapping[str, Any], where: str) -> container.Contents:
    """Return the fields and arrays of a row, which are not checked against each other; see `tokens_from_row`."""
    try:
        header, lists = str(columns["header"]), [np.asarray(codes) for codes in columns["codes"]]
        found = columns.get("scales")
        with np.errstate(over="ignore"):  # overflow becomes infinity, which tokens refuse
            scales = [np.asarray(own, np.float32) for own in found] if found is not None else []
        stacked = np.stack(scales) if scales else None
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise CorruptFile(f"{where} is not a row of tokens, or is damaged: {reason(error)}") from error

    fields = container.fields_of(header, where)
    books = len(fields["strides"])
    if len(lists) % books:
        raise CorruptFile(f"{where} is damaged: {len(lists)} lists of codes are not a multiple of {books} codebooks")
    try:
        codes = [np.stack(lists[book::books]) for book in range(books)]
    except ValueError as error:
        raise CorruptFile(f"{where} is damaged: {reason(error)}") from error
    return container.Contents(fields, codes, stacked)

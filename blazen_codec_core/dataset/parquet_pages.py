"""Reading of Parquet in bounded memory, based on the page headers.

The metadata and the size on disk are not reliable: a page of a few bytes may encode a hundred million values, and each row may
repeat a long dictionary entry. Therefore the header of each page (Apache's `parquet.thrift`) is read before the page, and its
decoded size is checked against limits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import CorruptFile
from . import parquet_repeats
from .arrow import arrow, parquet
from .parquet_footer import Chunk, groups
from .thrift import Compact

ROOM = 256 << 20
"""Largest batch of rows in bytes."""
LARGEST_PAGE = 256 << 20
"""Largest page, and thus cell, in bytes after decompression."""
MOST_VALUES = 1 << 26
"""Most list values in a row group: tokens of eight hours with the most codebooks, of a day with most codecs."""
GROWTH = 8
"""Bytes or values allowed per byte in the file beyond these limits, so that genuinely large files can be read."""
MOST_IN_ROW = 1 << 20
"""Most list values in a row that is converted to Python objects."""
LARGEST_ROW = 64 << 20
"""Most bytes of list values in such a row."""
LARGEST_HEADER = 1 << 20
"""Largest page header in bytes."""
FEW = 1 << 10
"""Size in bytes that most headers do not exceed."""
MOST_PAGES = 1 << 20
"""Most pages in a column chunk."""
DICTIONARY_PAGE, DATA_PAGE, DATA_PAGE_V2 = 2, 0, 3
DICTIONARY, REPEATING = (2, 8), (7,)
"""Dictionary encodings, and encodings with shared prefixes (DELTA_BYTE_ARRAY)."""
WIDEST = 16
"""Largest size of a fixed-width value in bytes."""
LEVELS = 8
"""Bytes of repetition and definition levels that Arrow keeps per list value."""
BYTES = frozenset({"BYTE_ARRAY", "FIXED_LEN_BYTE_ARRAY"})


@dataclass(frozen=True)
class Page:
    """A page according to its header.

    Attributes:
        size: Decompressed size in bytes.
        levels: Size in bytes of the uncompressed levels of a version-2 data page.
        repeats: Upper bound in bytes of the prefixes that values share with earlier values.
    """

    kind: int
    size: int
    values: int
    encoding: int
    levels: int = 0
    repeats: int = 0


@dataclass
class Column:
    """A column chunk with its pages.

    Attributes:
        name: Parquet path, such as `audio.bytes`.
        is_bytes: Values have variable or declared lengths (byte arrays).
        is_nested: A row may have several values.
        stored: Size in the file in bytes.
        longest: Size of the longest dictionary entry in bytes.
    """

    name: str
    is_bytes: bool
    is_nested: bool
    stored: int
    longest: int = 0
    pages: list[Page] = field(default_factory=list)

    @property
    def values(self) -> int:
        """Number of values in all pages."""
        return sum(page.values for page in self.pages)

    def most(self, rows: int) -> int:
        """Return the most bytes that `rows` consecutive rows may take, excluding numbers in lists."""
        if not self.is_bytes:
            return 0 if self.is_nested else rows * WIDEST
        if self.is_nested:
            return sum(page.size + page.repeats for page in self.pages)
        from_dictionary = any(page.encoding in DICTIONARY for page in self.pages)
        repeated = max((page.size for page in self.pages if page.encoding in REPEATING), default=0)
        return rows * max(self.longest if from_dictionary else 0, repeated) + self._in_pages(rows)

    def _in_pages(self, rows: int) -> int:
        """Return the largest total size of pages that `rows` consecutive rows may span."""
        most = begin = size = values = 0
        for page in self.pages:
            size, values = size + page.size, values + page.values
            while values - self.pages[begin].values - page.values >= rows:  # the rows cannot span all these pages
                size, values, begin = size - self.pages[begin].size, values - self.pages[begin].values, begin + 1
            most = max(most, size)
        return most


def opened(path: Path) -> Any:
    """Open a `pyarrow.parquet.ParquetFile` that keeps strings in lists dictionary-encoded."""
    file = parquet().ParquetFile(path, buffer_size=1 << 16)
    texts = [
        file.schema.column(number).path
        for number in range(len(file.schema))
        if file.schema.column(number).max_repetition_level and file.schema.column(number).physical_type == "BYTE_ARRAY"
    ]
    others = {chunk.path_in_schema for group in groups(path) for chunk in group.chunks if chunk.is_delta} if texts else set()
    if not set(texts) - others:
        return file
    metadata = file.metadata
    file.close()
    return parquet().ParquetFile(path, metadata=metadata, buffer_size=1 << 16, read_dictionary=[*(set(texts) - others)])


def batches(file: Any, path: Path, columns: Sequence[str] | None = None, *, most: int) -> Iterator[Any]:
    """Yield record batches of all row groups within the memory limit; arguments as for `rows_at_once`."""
    for group in range(file.num_row_groups):
        rows = rows_at_once(file, path, group, columns, most=most)
        yield from file.iter_batches(rows, row_groups=[group], columns=columns, use_threads=False)


def rows_at_once(file: Any, path: Path, group: int, columns: Sequence[str] | None = None, *, most: int, room: int = ROOM) -> int:
    """Return the number of rows of a row group to read at a time.

    Args:
        file: Result of `opened`.
        columns: Parquet or Arrow names; all columns by default.
        most: Largest number of rows.
        room: Largest size of the rows in bytes.

    Raises:
        CorruptFile: A single row may exceed the limit and far exceeds its size in the file.
    """
    found = _columns(file, path, group, columns)
    for column in found:
        _check(column, path)
    rows = most
    while rows > 1 and sum(column.most(rows) for column in found) > room:
        rows //= 2
    return rows


def check_row(values: Any) -> None:
    """Raise `CorruptFile` if an Arrow array would become too many Python objects."""
    count, size = _weight(values)
    if count > MOST_IN_ROW or size > LARGEST_ROW:
        raise CorruptFile(
            f"a row has {count} list values of {size} bytes; at most {MOST_IN_ROW} values of {LARGEST_ROW} bytes are read"
        )


def _weight(values: Any) -> tuple[int, int]:
    """Return the number of values in a nested array, and their size in bytes."""
    types, kind = arrow().types, values.type
    if types.is_dictionary(kind):
        import pyarrow.compute

        if not len(values.dictionary):
            return len(values), 0
        if types.is_primitive(kind.value_type):
            return len(values), len(values) * WIDEST
        lengths = pyarrow.compute.binary_length(values.dictionary)
        return len(values), pyarrow.compute.sum(lengths.take(values.indices)).as_py() or 0
    if types.is_string_view(kind) or types.is_binary_view(kind):  # nbytes includes the whole parent buffer
        return len(values), int(values.cast(arrow().large_binary()).nbytes)
    if types.is_struct(kind):
        inner = [_weight(field) for field in values.flatten()]
    elif types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        inner = [_weight(values.flatten())]
    elif types.is_map(kind):
        inner = [_weight(values.keys), _weight(values.items)]
    else:
        return len(values), values.nbytes
    return len(values) + sum(count for count, _ in inner), sum(size for _, size in inner)


def _check(column: Column, path: Path) -> None:
    """Raise `CorruptFile` if a column may expand far beyond its size in the file."""
    held = f"{path} cannot be read: {column.name} takes {column.stored} bytes"
    largest = max((page.size for page in column.pages), default=0)
    if largest > max(LARGEST_PAGE, GROWTH * column.stored):
        raise CorruptFile(f"{held}, and has a page of {largest}; at most {LARGEST_PAGE} are read")
    if column.is_nested and column.values > max(MOST_VALUES, GROWTH * column.stored):
        raise CorruptFile(f"{held}, and has {column.values} list values; at most {MOST_VALUES} are read")
    if column.most(1) > max(ROOM, 2 * largest, GROWTH * column.stored):
        raise CorruptFile(f"{held}, and a row may have {column.most(1)}; at most {ROOM} are read")


def _columns(file: Any, path: Path, group: int, names: Sequence[str] | None) -> list[Column]:
    chunks, found = groups(path)[group].chunks, []
    if len(chunks) != len(file.schema):
        raise CorruptFile(f"{path} cannot be read: a row group has {len(chunks)} columns, and the file {len(file.schema)}")
    with path.open("rb") as raw:
        for number, chunk in enumerate(chunks):
            kind, name = file.schema.column(number), chunk.path_in_schema
            if names is not None and not any(name == own or name.startswith(f"{own}.") for own in names):
                continue
            column = Column(name, kind.physical_type in BYTES, kind.max_repetition_level > 0, chunk.total_compressed_size)
            if column.is_bytes or column.is_nested:
                _read_pages(raw, chunk, kind, column, path)
            found.append(column)
    return found


def _read_pages(raw: BinaryIO, chunk: Chunk, kind: Any, column: Column, path: Path) -> None:
    """Read the page headers of a column chunk, for as many values as Arrow reads, and its dictionary."""
    at = chunk.data_page_offset
    if 0 < (chunk.dictionary_page_offset or 0) < at:
        at = chunk.dictionary_page_offset or 0
    end, seen = at + column.stored, 0
    while seen < chunk.num_values and at < end:
        raw.seek(at)
        head = raw.read(FEW)
        page, length, stored = _header(head, raw, path, column.name)
        if len(column.pages) >= MOST_PAGES:
            raise _damaged(path, column.name, f"it has more than {MOST_PAGES} pages")
        at += length
        if page.kind == DICTIONARY_PAGE:
            if page.size > max(LARGEST_PAGE, GROWTH * column.stored):
                raise _damaged(path, column.name, f"its dictionary has {page.size} bytes; at most {LARGEST_PAGE} are read")
            raw.seek(at)
            column.longest = max(column.longest, _longest(raw.read(min(stored, column.stored)), page, chunk, column.is_bytes))
        elif page.kind in (DATA_PAGE, DATA_PAGE_V2):
            if column.is_bytes and column.is_nested and page.encoding in REPEATING:
                raw.seek(at)
                page = replace(page, repeats=_repeats(raw.read(min(stored, column.stored)), page, chunk, kind))
            column.pages.append(page)
            seen += page.values
        at += stored


def _longest(data: bytes, page: Page, chunk: Chunk, is_bytes: bool) -> int:
    """Return the size of the longest dictionary entry; each is preceded by its length as a little-endian uint32."""
    if not is_bytes:
        return WIDEST
    if chunk.physical_type != "BYTE_ARRAY":
        return page.size // max(1, page.values)
    if chunk.compression != "UNCOMPRESSED":
        try:
            data = arrow().Codec(chunk.compression.lower()).decompress(data, page.size, asbytes=True)
        except (ValueError, OSError, NotImplementedError):  # Arrow will say what is wrong, or knows more
            return page.size
    at = longest = 0
    for _ in range(page.values):
        if at + 4 > len(data):
            break
        length = int.from_bytes(data[at : at + 4], "little")
        longest, at = max(longest, length), at + 4 + length
    return min(longest, page.size)


def _repeats(data: bytes, page: Page, chunk: Chunk, kind: Any) -> int:
    """Return the bytes of prefixes that values share with earlier ones; an upper bound if it is small or unknown."""
    most = page.values * page.size
    if most <= ROOM or page.size > LARGEST_PAGE:
        return most
    try:
        packed = data[page.levels :]
        if chunk.compression != "UNCOMPRESSED" and page.size > page.levels:
            packed = arrow().Codec(chunk.compression.lower()).decompress(packed, page.size - page.levels, asbytes=True)
        levels = (kind.max_repetition_level, kind.max_definition_level) if page.kind == DATA_PAGE else ()
        return min(most, parquet_repeats.total(packed, sum(level > 0 for level in levels), page.values))
    except (ValueError, OSError, NotImplementedError, IndexError):  # Arrow will say what is wrong, or knows more
        return most


def _header(head: bytes, raw: BinaryIO, path: Path, name: str) -> tuple[Page, int, int]:
    """Parse a page header; return the page, the header's size and the page's stored size."""
    try:
        try:
            reader = Compact(head)
            fields = reader.struct()
        except IndexError:  # statistics may be long
            reader = Compact(head + raw.read(LARGEST_HEADER))
            fields = reader.struct()
    except (IndexError, ValueError, RecursionError) as error:
        raise _damaged(path, name, "the header of a page is damaged") from error
    kind, size, stored = (fields.get(number) for number in (1, 2, 3))
    within = fields.get({DATA_PAGE: 5, DICTIONARY_PAGE: 7, DATA_PAGE_V2: 8}.get(kind if isinstance(kind, int) else -1, 0), {})
    numbers = within if isinstance(within, dict) else {}
    values, encoding = numbers.get(1, 0), numbers.get(4 if kind == DATA_PAGE_V2 else 2, 0)
    whole = [number for number in (kind, size, stored, values, encoding) if isinstance(number, int) and number >= 0]
    if len(whole) < 5:
        raise _damaged(path, name, "the header of a page is damaged")
    levels = [numbers.get(number) for number in (5, 6)] if kind == DATA_PAGE_V2 else []
    before = sum(length for length in levels if isinstance(length, int) and length > 0)
    return Page(whole[0], whole[1], whole[3], whole[4], before), reader.at, whole[2]


def _damaged(path: Path, name: str, why: str) -> CorruptFile:
    return CorruptFile(f"{path} cannot be read: {name} is damaged: {why}")

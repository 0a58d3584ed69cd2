"""Map-style dataset of tokens."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch.utils.data import Dataset

from ..dataset.row_groups import StoredRow
from ..errors import InvalidInput, InvalidTokens
from ..files import unwritten
from ..forks import Anew
from ..tokens.layouts import TableLayout, TokenLayout, Vocabulary
from ..tokens.tokens import CodecTokens
from ..validation import is_int
from . import order
from .index import Folder, Index
from .remote import is_remote
from .sequences import Sample, sequence

if TYPE_CHECKING:
    from .iterable import IterableTokenDataset

Crop = Literal["random", "start"]
Transform = Callable[[Sample], Sample]
RECENT = 4
"""Row groups that stay in memory for the next access."""


class RowOutOfRange(InvalidInput, IndexError):
    """A row that the dataset does not have."""


class TokenDataset(Dataset[Sample]):
    """Recordings of folders of shards as sequences of ids, by number; `iterable` gives them in an order that is fast to read.

    Item `i` is a `Sample` of row `i`. An access reads one row group. `DataLoader` fetches the items of a batch together, which
    reads each row group once. Memory is bounded by a few row groups. Works with workers by fork and by spawn.

    Args:
        folder: Folder of shards, shard, or address that fsspec opens, such as `s3://bucket/tokens`; or several of these.
        layout: Order of ids, by name or as an object. Without one, samples have the codes of each frame, `(frames, codebooks)`.
        frames: Most frames of a sample, a multiple of the frames that belong together; the whole recording by default.
        crop: Part of a longer recording: `random` in each epoch, or its `start`.
        columns: Names of columns that samples have along, such as `text`.
        specials: Write the layout's ids of the begin before every sequence, and those of the end after one that ends its
            recording.
        num_codebooks: Number of codebooks; the layout's or else all by default.
        stream: Number of the stream of each recording; recordings must have a single one by default.
        codec: Model `family:name` of all rows; that of the first row by default.
        seed: Seed of crops and orders.
        transform: Changes every sample, for instance with `Sample.prompted`. Workers by spawn need a function of a module.
        cache: Local folder for shards of addresses, each fetched whole when it is first read; a temporary one by default.
        storage: Options of the file system of addresses.

    Raises:
        InvalidInput: There are no shards, no rows or not the columns, or an argument is invalid.
        InvalidTokens: The layout, or a number of codebooks or frames, does not fit the first row.
        CorruptFile: A shard is damaged, or is not one of tokens. Access to an item raises this too.
        UnknownCodec: No layout has that name.
        EngineNotAvailable: pyarrow, or a package for the address, is not installed.
    """

    def __init__(
        self,
        folder: Folder | Sequence[Folder],
        *,
        layout: str | TokenLayout | None = None,
        frames: int | None = None,
        crop: Crop = "random",
        columns: Sequence[str] = (),
        specials: bool = False,
        num_codebooks: int | None = None,
        stream: int | None = None,
        codec: str | None = None,
        seed: int = 0,
        transform: Transform | None = None,
        cache: str | PathLike[str] | None = None,
        storage: Mapping[str, Any] | None = None,
    ) -> None:
        folders: list[Folder] = list(folder) if isinstance(folder, list | tuple) else [folder]  # type: ignore[list-item] # a str is a sequence, too
        if not isinstance(columns, list | tuple) or not all(isinstance(name, str) for name in columns):
            raise InvalidInput(f"columns are {columns!r}; expected a list of names")
        if crop not in ("random", "start"):
            raise InvalidInput(f"crop is {crop!r}; expected 'random' or 'start'")
        if not is_int(seed) or seed < 0:
            raise InvalidInput(f"seed is {seed!r}; expected an integer, at least 0")
        self._layout, self._specials = _layout(layout), specials
        self._frames, self._crop, self._columns, self._seed = frames, crop, tuple(columns), int(seed)
        self._books, self._stream = num_codebooks, stream
        if num_codebooks is None and isinstance(self._layout, TableLayout):
            self._books = self._layout.num_codebooks
        self._transform: Transform | None = None
        self._epoch = torch.zeros((), dtype=torch.int64)
        self._epoch.share_memory_()  # type: ignore[no-untyped-call] # workers that go on see later epochs
        self._recent: Anew[OrderedDict[int, list[StoredRow]]] = Anew(OrderedDict)
        self.index = Index(folders, self._columns, self._cache(folders, cache), storage or {})
        first = self.index.read(0, self._columns, 0, 1)[0]
        _, contents, where = first()
        tokens = CodecTokens.restored(contents, where)
        self.codec = tokens.codec if codec is None else codec
        self._strides, self._codebook_size = tokens.strides, tokens.codebook_size
        self.sample(0, first)  # arguments that do not fit are refused here
        self._transform = transform

    def _cache(self, folders: Sequence[Folder], cache: str | PathLike[str] | None) -> Path | None:
        """Return the local folder for remote shards, if any: `cache`, or one that goes with this object."""
        if not any(is_remote(str(folder)) for folder in folders):
            return None
        try:
            if cache is not None:
                Path(cache).mkdir(parents=True, exist_ok=True)
                return Path(cache)
            made = Path(tempfile.mkdtemp(prefix="blazen-codec-"))
        except OSError as error:
            raise unwritten(cache or tempfile.gettempdir(), error) from error
        weakref.finalize(self, _remove, made, os.getpid())
        return made

    @property
    def choices(self) -> tuple[Any, ...]:
        """All arguments that choose what a sample has."""
        layout = self._layout.name if self._layout else None
        return layout, self._frames, self._crop, self._specials, self._stream, self._books

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.index)

    def __getitem__(self, row: int) -> Sample:
        """Return a row's sample; raise `RowOutOfRange` if there is no such row, and `CorruptFile` if its shard is damaged."""
        return self.__getitems__([row])[0]

    def __getitems__(self, rows: Sequence[int]) -> list[Sample]:
        """Return the samples of several rows, which reads each of their row groups once."""
        places = {row: self.index.group_of(self._checked(row)) for row in rows}
        stored = {}
        for row in sorted(places, key=places.__getitem__):
            group, number = places[row]
            stored[row] = self._group(group)[number]
        return [self.sample(self._checked(row), stored[row]) for row in rows]

    def _checked(self, row: int) -> int:
        if not is_int(row) or not -len(self) <= row < len(self):
            raise RowOutOfRange(f"row is {row!r}; expected 0 to {len(self) - 1}")
        return int(row) % len(self)

    def _group(self, group: int) -> list[StoredRow]:
        recent = self._recent.own
        if group not in recent:
            recent[group] = self.index.read(group, self._columns)
            while len(recent) > RECENT:
                recent.popitem(last=False)
        recent.move_to_end(group)
        return recent[group]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_recent"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _recent=Anew(OrderedDict))

    @property
    def seed(self) -> int:
        """Seed of crops and orders."""
        return self._seed

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that samples have along."""
        return self._columns

    @property
    def vocabulary(self) -> Vocabulary:
        """Ids of the samples; raises `InvalidInput` if the dataset has no layout, or one without a vocabulary."""
        if not isinstance(self._layout, TableLayout):
            raise InvalidInput("the dataset has no layout with a vocabulary; pass layout=")
        return self._layout.vocabulary_of(self._strides[: self._books], self._codebook_size)

    @property
    def epoch(self) -> int:
        """Epoch that determines random crops."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, before an iteration, also of workers that go on (`persistent_workers`)."""
        if not is_int(epoch) or epoch < 0:
            raise InvalidInput(f"epoch is {epoch!r}; expected an integer, at least 0")
        self._epoch.fill_(epoch)

    def iterable(self, **options: Any) -> IterableTokenDataset:
        """Return an `IterableTokenDataset` of the same samples; options as there."""
        from .iterable import IterableTokenDataset

        return IterableTokenDataset(self, **options)

    def sample(self, row: int, stored: StoredRow, epoch: int | None = None) -> Sample:
        """Convert the stored form of row number `row` to a sample; raise `CorruptFile` or `InvalidTokens` if it does not fit."""
        columns, contents, where = stored()
        tokens = CodecTokens.restored(contents, where)
        if (tokens.codec, tokens.strides, tokens.codebook_size) != (self.codec, self._strides, self._codebook_size):
            raise InvalidTokens(
                f"{where} has tokens of {tokens.codec} in {tokens.num_codebooks} codebooks; "
                f"expected {self.codec} in {len(self._strides)}. Keep models and bandwidths in folders of their own"
            )
        try:
            part, ends = self._part(tokens, row, self.epoch if epoch is None else epoch)
            made = sequence(part, self._layout, specials=self._specials, ends=ends, columns=columns)
        except InvalidTokens as error:
            raise InvalidTokens(f"{where}: {error}") from error
        if self._transform is None:
            return made
        changed = self._transform(made)
        if not isinstance(changed, Sample):
            raise InvalidInput(f"transform returned {type(changed).__name__}; expected a Sample")
        return changed

    def _part(self, tokens: CodecTokens, row: int, epoch: int) -> tuple[CodecTokens, bool]:
        """Return the stream, codebooks and crop of tokens, and whether the recording ends with them."""
        if self._stream is not None:
            tokens = tokens.stream(self._stream)
        elif tokens.streams != 1:
            raise InvalidTokens(f"the recording has {tokens.streams} streams, one for each channel; choose one with stream=0")
        if (books := self._books) is not None:
            if not is_int(books) or not 1 <= books <= tokens.num_codebooks:
                raise InvalidTokens(f"num_codebooks is {books!r}; expected 1 to {tokens.num_codebooks}")
            tokens = replace(tokens, codes=tokens.codes[:books], strides=tokens.strides[:books])
        if self._frames is None:
            return tokens, True
        unit = tokens.crop_unit
        if not is_int(self._frames) or self._frames < 1 or self._frames % unit:
            raise InvalidTokens(f"frames is {self._frames!r}; expected a positive multiple of {unit}")
        if tokens.frames <= self._frames:
            return tokens, True
        whole = tokens.segment_frames.count(unit) if tokens.segment else tokens.frames // unit
        starts = max(whole - self._frames // unit, 0) + 1
        start = int(order.random(self._seed, order.CROPS, epoch, row).integers(starts)) if self._crop == "random" else 0
        part = tokens.crop(start * unit, self._frames)
        return part, start * unit + part.frames == tokens.frames


def _layout(layout: str | TokenLayout | None) -> TokenLayout | None:
    if layout is None or isinstance(layout, TokenLayout):
        return layout
    if not isinstance(layout, str):
        raise InvalidInput(f"layout is {layout!r}; expected a name or a TokenLayout")
    from ..plugins.registry import Registry

    return Registry().layout(layout)


def _remove(folder: Path, process: int) -> None:
    """Remove a temporary folder, unless this process is a forked child of the one that made it."""
    if os.getpid() == process:
        shutil.rmtree(folder, ignore_errors=True)

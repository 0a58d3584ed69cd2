"""Iterable dataset of tokens: shuffled, shared by ranks and workers, and resumable."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from ..dataset.row_groups import StoredRow
from ..errors import InvalidInput
from ..validation import is_int
from . import order
from .order import Consumer, Part
from .packing import pack as pack_rows
from .sequences import Sample
from .token_dataset import TokenDataset

MOST_BYTES = 64 << 20
"""Most bytes of codes in the shuffle buffer, unless a single row group has more."""
PLACES = ("epoch", "fill", "item")


@dataclass(frozen=True)
class Position:
    """Place of the next item.

    Attributes:
        epoch: Epoch of the item.
        fill: Number of the fill of the shuffle buffer in the epoch.
        item: Number of the item in the fill.
        until: Epoch before which the iteration ends; `None` for none.
    """

    epoch: int
    fill: int = 0
    item: int = 0
    until: int | None = None


class IterableTokenDataset(IterableDataset[Sample | list[Sample]]):
    """Samples of a `TokenDataset`, each row once an epoch over all ranks and their workers.

    Row groups are read in the order of a seed, into a buffer whose rows are shuffled. The order depends on the seed, the epoch,
    and the numbers of ranks and workers alone. `torchdata`'s `StatefulDataLoader` resumes at the next batch by `state_dict`. A
    plain `DataLoader` does not know the states of its workers; `skip_batches` resumes that.

    Args:
        dataset: Dataset of the samples.
        shuffle: Shuffle row groups and rows.
        buffer: Most rows in the shuffle buffer, of at most 64 MiB of codes; or a row group, if that has more.
        epochs: Number of epochs of an iteration, from `dataset.epoch` on; endless if `None`.
        pack: Number of ids of a row of several samples. Items are then lists of samples that fit into a row, out of one fill of
            the buffer.
        even: Give every rank and worker equally many rows, so that all ranks make as many batches. Fewer rows than there are
            ranks times workers are left out.
        rank: Number of this process among `ranks`; by default that of `torch.distributed`, or of the environment as `torchrun`
            sets it.
        ranks: Number of processes that share the rows.

    Raises:
        InvalidInput: An argument is invalid.
    """

    def __init__(
        self,
        dataset: TokenDataset,
        *,
        shuffle: bool = True,
        buffer: int = 4096,
        epochs: int | None = 1,
        pack: int | None = None,
        even: bool = False,
        rank: int | None = None,
        ranks: int | None = None,
    ) -> None:
        super().__init__()
        for name, value in {"buffer": buffer, "epochs": epochs, "pack": pack, "ranks": ranks}.items():
            if (value is not None and (not is_int(value) or value < 1)) or (name == "buffer" and value is None):
                raise InvalidInput(f"{name} is {value!r}; expected an integer of at least 1")
        if (rank is None) != (ranks is None) or (rank is not None and (not is_int(rank) or not 0 <= rank < (ranks or 0))):
            raise InvalidInput(f"rank is {rank!r} of {ranks!r}; expected both or neither, and 0 … ranks - 1")
        self.dataset = dataset
        self._shuffle, self._buffer, self._epochs, self._pack, self._even = shuffle, buffer, epochs, pack, even
        self._share = None if rank is None or ranks is None else Consumer(int(rank), int(ranks))
        self._loaded: Mapping[str, Any] | None = None
        self._skipped: tuple[int, int] | None = None
        self._position = self._first()

    def __iter__(self) -> Iterator[Sample | list[Sample]]:
        """Yield samples, or lists of samples that share a row; raise `CorruptFile` if a shard is damaged."""
        position, consumer, skipped = self._start()
        epoch, until = position.epoch, position.until
        while until is None or epoch < until:
            for number, fill in enumerate(self._fills(epoch, consumer)):
                if number < position.fill:
                    continue
                if not self._pack and skipped >= (rows := sum(part.rows for part in fill)):
                    skipped -= rows
                    continue
                items = self._items(epoch, fill)
                start = min(position.item + skipped, len(items))
                skipped -= start - position.item
                position = Position(epoch, number)
                for item in range(start, len(items)):
                    self._position = Position(epoch, number, item + 1, until)
                    yield self._made(items[item], epoch)
            epoch += 1
            self._position = position = Position(epoch, until=until)

    def set_epoch(self, epoch: int) -> None:
        """Set the first epoch of the next iteration, which starts at its begin, also in workers that go on."""
        self.dataset.set_epoch(epoch)
        self._loaded = self._skipped = None

    def state_dict(self) -> dict[str, Any]:
        """Return the position of the next item in this process: a few numbers, and the settings that it belongs to."""
        if self._loaded is not None:
            return dict(self._loaded)
        return {**asdict(self._position), "settings": self._settings(self._consumer())}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Start the next iteration at a position.

        Args:
            state: Result of `state_dict`, of the same worker of the same rank.

        Raises:
            InvalidInput: This is no such state. The next iteration raises it too, if settings, shards, ranks or workers differ.
        """
        counts = [state.get(name) for name in PLACES] if isinstance(state, Mapping) else [None]
        if not all(is_int(value) and value >= 0 for value in counts) or not {"until", "settings"} <= state.keys():
            raise InvalidInput(f"the state is {state!r:.200}; expected what state_dict returned")
        self._loaded, self._skipped = dict(state), None

    def skip_batches(self, batches: int, batch_size: int) -> None:
        """Start iterations after batches that a plain `DataLoader` gave, until the next `set_epoch`.

        Without workers, only the next iteration skips them. The loader must have the same number of workers, and the dataset the
        same epoch. Exact until the first worker runs out of
        rows, and so always with `epochs=None`. Rows that are packed are read to skip them.

        Args:
            batches: Number of batches since the start of the iteration.
            batch_size: Batch size of the loader.

        Raises:
            InvalidInput: A number is negative or no integer.
        """
        if not is_int(batches) or batches < 0 or not is_int(batch_size) or batch_size < 1:
            raise InvalidInput(f"{batches!r} batches of {batch_size!r} cannot be skipped; expected integers, 0 and 1 or more")
        self._skipped, self._loaded = (batches, batch_size), None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_share": self._ranks()}  # workers by spawn have no process group

    def _ranks(self) -> Consumer:
        if self._share is not None:
            return self._share
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            return Consumer(torch.distributed.get_rank(), torch.distributed.get_world_size())
        rank, ranks = (os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE"))
        if not (rank.isdecimal() and ranks.isdecimal() and int(rank) < int(ranks)):
            return Consumer()
        return Consumer(int(rank), int(ranks))

    def _consumer(self, behind: int = 0) -> Consumer:
        """Return this worker's share; `behind` batches were made, so the next worker's turn is another's."""
        ranks, worker = self._ranks(), get_worker_info()
        number, count = (worker.id, worker.num_workers) if worker else (0, 1)
        return Consumer(ranks.number * count + (number + behind) % count, ranks.count * count)

    def _start(self) -> tuple[Position, Consumer, int]:
        """Return the position to start at, this worker's share, and the number of items to skip."""
        loaded, skipped = self._loaded, self._skipped
        self._loaded = self._skipped = None
        if skipped is not None:
            batches, size = skipped
            consumer, worker = self._consumer(batches), get_worker_info()
            count = worker.num_workers if worker else 1
            return self._first(), consumer, (batches - consumer.number % count + count - 1) // count * size
        consumer = self._consumer()
        self._position = self._first()
        if loaded is not None:
            if loaded["settings"] != (settings := self._settings(consumer)):
                raise InvalidInput(
                    f"the state belongs to settings {loaded['settings']}, and these are {settings}: "
                    "shards, seed, buffer, packing, ranks or workers differ"
                )
            self._position = Position(**{name: loaded[name] for name in (*PLACES, "until")})
        return self._position, consumer, 0

    def _first(self) -> Position:
        epoch = self.dataset.epoch
        return Position(epoch, until=None if self._epochs is None else epoch + self._epochs)

    def _settings(self, consumer: Consumer) -> str:
        """Return a digest of all that determines the order."""
        found = (
            self.dataset.index.fingerprint, self.dataset.seed, self.dataset.choices,
            self._shuffle, self._buffer, self._pack, self._even, consumer.number, consumer.count,
        )  # fmt: skip
        return hashlib.blake2b(repr(found).encode(), digest_size=8).hexdigest()

    def _fills(self, epoch: int, consumer: Consumer) -> Iterator[list[Part]]:
        index = self.dataset.index
        groups = np.arange(len(index.ends))
        if self._shuffle:
            groups = order.random(self.dataset.seed, order.GROUPS, epoch).permutation(groups)
        return order.fills(index.rows, index.sizes, groups, consumer.range(len(index), self._even), self._buffer, MOST_BYTES)

    def _items(self, epoch: int, fill: list[Part]) -> list[Any]:
        """Read a fill of the buffer; return rows with their numbers in order, or lists of samples if they are packed."""
        index, dataset = self.dataset.index, self.dataset
        rows = [
            (index.first(part.group) + part.first + number, stored)
            for part in fill
            for number, stored in enumerate(index.read(part.group, dataset.columns, part.first, part.last))
        ]
        first = rows[0][0]
        if self._shuffle:
            chosen = order.random(dataset.seed, order.ROWS, epoch, first).permutation(len(rows))
            rows = [rows[number] for number in chosen]
        if not self._pack:
            return rows
        samples = [dataset.sample(row, stored, epoch) for row, stored in rows]
        packed = pack_rows([len(sample) for sample in samples], self._pack)
        if self._shuffle:
            chosen = order.random(dataset.seed, order.BINS, epoch, first).permutation(len(packed))
            packed = [packed[number] for number in chosen]
        return [[samples[number] for number in row] for row in packed]

    def _made(self, item: list[Sample] | tuple[int, StoredRow], epoch: int) -> Sample | list[Sample]:
        return item if isinstance(item, list) else self.dataset.sample(*item, epoch)

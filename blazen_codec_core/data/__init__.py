"""Tokens as training data for PyTorch, from folders of shards that `blazen-codec tokenize` wrote.

    dataset = TokenDataset("tokens/", layout="orpheus", frames=256, columns=["text"])
    loader = DataLoader(dataset.iterable(), batch_size=16, num_workers=2, collate_fn=collate)

Data flows `index -> dataset.row_groups -> sequences -> packing -> batches`: row groups are listed, rows are read, recordings are
cropped and become sequences of ids by a layout, sequences share rows, and rows become a batch. `order` has the order of rows as
arithmetic, so that a position is a few numbers.
"""

from ..installation import missing

try:
    import torch as _torch  # noqa: F401
except ImportError as error:
    raise missing("training data needs PyTorch", "torch", "dataset") from error

from .batches import IGNORED, Batch, collate
from .delays import delay, undelay
from .iterable import IterableTokenDataset
from .sequences import Sample, sequence
from .token_dataset import TokenDataset

__all__ = ["IGNORED", "Batch", "IterableTokenDataset", "Sample", "TokenDataset", "collate", "delay", "sequence", "undelay"]

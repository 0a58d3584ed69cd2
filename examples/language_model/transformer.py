"""A small decoder-only transformer over tables of ids, with a head per slot."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from blazen_codec_core.tokens.layouts import Vocabulary


class Block(nn.Module):
    """Causal self-attention and a feed-forward layer, each after a norm."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.feed_forward = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norms[0](x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.dropout(self.out(attended.transpose(1, 2).flatten(2)))
        return x + self.dropout(self.feed_forward(self.norms[1](x)))


class LanguageModel(nn.Module):
    """Predicts the ids of the next step from steps of ids `(batch, steps, slots)`.

    Args:
        vocabulary: Ids of the tokens, which slots share.
        prompt_ids: Number of further ids, of prompts.
        context: Most steps.
    """

    def __init__(
        self, vocabulary: Vocabulary, prompt_ids: int, context: int = 256, width: int = 128, layers: int = 3, heads: int = 4
    ) -> None:
        super().__init__()
        self.vocabulary, self.slots = vocabulary, len(vocabulary.slots)
        self.ids = nn.Embedding(self.slots * (vocabulary.size + prompt_ids), width)
        self.steps = nn.Embedding(context, width)
        self.blocks = nn.Sequential(*[Block(width, heads) for _ in range(layers)], nn.LayerNorm(width))
        self.head = nn.Linear(width, self.slots * vocabulary.size)
        self.register_buffer("firsts", torch.arange(self.slots) * (vocabulary.size + prompt_ids))
        for table in (self.ids, self.steps):
            nn.init.normal_(table.weight, std=0.1)

    def forward(self, ids: Tensor) -> Tensor:
        """Logits `(batch, steps, slots, size)`."""
        x = self.ids(ids + self.firsts).sum(2) + self.steps.weight[: ids.shape[1]]
        return self.head(self.blocks(x)).unflatten(2, (self.slots, self.vocabulary.size))

    @torch.no_grad()
    def sample(self, prompt: Tensor, most: int, temperature: float = 0.7, seed: int = 0) -> Iterator[Tensor]:
        """Yield steps of ids `(slots,)` that follow a prompt `(steps, slots)`, which ends with the begin; at most `most` groups.

        Only ids that the vocabulary allows are drawn. Once the first slot has ended, the others follow.
        """
        draw, groups, step = torch.Generator().manual_seed(seed), None, 0
        ids = prompt
        while groups is None or step < groups + self.vocabulary.delay + 1:
            allowed = np.stack([self.vocabulary.mask(step * self.slots + slot, groups) for slot in range(self.slots)])
            logits = self(ids[None])[0, -1].masked_fill(~torch.from_numpy(allowed), -torch.inf)
            drawn = torch.multinomial((logits / temperature).softmax(-1), 1, generator=draw)[:, 0]
            if groups is None and (drawn[0] >= self.vocabulary.codebook_size or step == most):
                groups = step
                drawn[0] = self.vocabulary.codebook_size
            yield drawn
            ids, step = torch.cat([ids, drawn[None]]), step + 1

"""Codebook vectors as the embedding of a small language model over the tokens of a codec.

    python examples/tensors/codebook_embedding.py speech.wav

The model reads each frame as the sum of its codebook vectors, which the codec knows already, and predicts the next first code.
It is trained beside one whose embedding is drawn at random, on the first part of a recording, and judged on the rest.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch
from torch import Tensor, nn

import blazen_codec_core as bc

CONTEXT = 64


class LanguageModel(nn.Module):
    """Predicts the next code of the first codebook from frames of all codebooks.

    Args:
        tables: One embedding `(entries, latent)` for each codebook, which stays as it is.
    """

    def __init__(self, tables: Sequence[Tensor], width: int = 128) -> None:
        super().__init__()
        self.tables = nn.ModuleList([nn.Embedding.from_pretrained(table) for table in tables])
        self.project = nn.Linear(tables[0].shape[1], width)
        self.recurrent = nn.GRU(width, width, batch_first=True)
        self.head = nn.Linear(width, len(tables[0]))

    def forward(self, codes: Sequence[Tensor]) -> Tensor:
        """Logits `(batch, frames, entries)` from codes `(batch, frames)` of each codebook."""
        x = sum(table(code) for table, code in zip(self.tables, codes, strict=True))
        return self.head(self.recurrent(self.project(x))[0])


def train(tables: Sequence[Tensor], codes: Sequence[Tensor], steps: int) -> float:
    """Train on the first three quarters of the frames; return the loss on the rest, in nats a code."""
    torch.manual_seed(0)
    model = LanguageModel([table / table.std() for table in tables])
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3, weight_decay=0.1)
    split = codes[0].shape[1] * 3 // 4

    def loss_of(part: Sequence[Tensor]) -> Tensor:
        logits = model([code[:, :-1] for code in part])
        return nn.functional.cross_entropy(logits.flatten(0, 1), part[0][:, 1:].flatten())

    for _ in range(steps):
        starts = torch.randint(split - CONTEXT, (8,)).tolist()
        loss = loss_of([torch.cat([code[:, start : start + CONTEXT] for start in starts]) for code in codes])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return loss_of([code[:, split:] for code in codes]).item()


def main(source: str, steps: int = 150) -> tuple[float, float]:
    """Return the held-out loss with the codec's vectors, and with random ones."""
    codec = bc.load("encodec_tiny")
    pcm, rate = bc.read_audio(source)
    x = torch.from_numpy(bc.resample(pcm.mean(0, keepdims=True), rate, codec.sample_rate))[None]
    codes = codec.module.encode(x)
    tables = [table.detach() for table in codec.module.codebooks[: len(codes)]]
    drawn = [torch.randn(table.shape, generator=torch.Generator().manual_seed(1)) for table in tables]
    return train(tables, codes, steps), train(drawn, codes, steps)


if __name__ == "__main__":
    print("held-out loss: {:.3f} with the codebooks' vectors, {:.3f} with random ones".format(*main(sys.argv[1])))

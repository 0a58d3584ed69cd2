"""Whether tokens that differ between two ways to compute them are ties that rounding broke, which no implementation can help."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

import blazen_codec_core as bc
from blazen_codec_core import weights
from blazen_codec_core.nn import FactorizedQuantizer, VectorQuantizer
from blazen_codec_core.torch_backend.segments import split_pcm

TIE = 1e-5
"""By how much of itself one distance may be larger than the other."""


def count_differing(codec: bc.DynCodecProvider, pcm: np.ndarray, a: bc.CodecTokens, b: bc.CodecTokens) -> int:
    """How many tokens differ, all of them because of a tie: at its place in the signal, or in a codebook before."""
    assert [code.shape for code in a.codes] == [code.shape for code in b.codes]
    different = [x != y for x, y in zip(a.codes, b.codes, strict=True)]
    follows = np.zeros((a.streams, a.frames), bool)
    for book, (wrong, stride) in enumerate(zip(different, a.strides, strict=True)):
        after = follows.reshape(a.streams, -1, stride).any(2)
        for stream, place in np.argwhere(wrong & ~after):
            entries = [int(tokens.codes[book][stream, place]) for tokens in (a, b)]
            gap = distance_gap(codec, pcm, a, int(stream), book, int(place), entries)
            assert gap < TIE, f"codebook {book}, token {place}: {entries} are no tie, their distances differ by {gap:.1e}"
        follows |= np.repeat(wrong, stride, axis=1)
    return sum(int(wrong.sum()) for wrong in different)


def distance_gap(
    codec: bc.DynCodecProvider, pcm: np.ndarray, tokens: bc.CodecTokens, stream: int, book: int, place: int, entries: list[int]
) -> float:
    """How much farther one entry is than another from what is to be quantized, in double precision."""
    spec = codec.spec
    backend = codec.backend
    codec.unload()  # what comes is twice as large
    network = backend.build(weights.locate(spec, codec.options)).double()
    signal = np.atleast_2d(pcm).reshape(-1, spec.channels, np.shape(pcm)[-1])[stream].astype(np.float64)
    first, frames = 0, tokens.frames
    if spec.segment:
        number = next(n for n, end in enumerate(np.cumsum(tokens.segment_frames)) if place < end)
        first, frames = sum(tokens.segment_frames[:number]), tokens.segment_frames[number]
        signal = split_pcm(signal, spec.segment)[number]
        signal = signal / (np.sqrt((signal.mean(0) ** 2).mean()) + 1e-8)
    with torch.no_grad():
        x = F.pad(torch.from_numpy(signal.copy()), (0, spec.missing_samples(signal.shape[1]))).t()[None]
        targets: list[tuple[VectorQuantizer, torch.Tensor]] = []

        def choose(quantizer: VectorQuantizer, residual: torch.Tensor) -> torch.Tensor:
            code = tokens.codes[len(targets)][stream : stream + 1]
            targets.append((quantizer, residual.clone()))
            return torch.from_numpy(code[:, first // quantizer.stride : (first + frames) // quantizer.stride].copy())

        network.quantizer.walk(network.encoder(x), choose, book + 1)
        quantizer, residual = targets[book]
        at, book_entries = quantizer.project(residual)[0, place - first // quantizer.stride], quantizer.codebook[entries]
        if isinstance(quantizer, FactorizedQuantizer):
            at, book_entries = F.normalize(at, dim=0), F.normalize(book_entries, dim=1)
        near, far = sorted((at - book_entries).square().sum(1).tolist())
    return (far - near) / far

"""Datasets of tokens, written without a codec: what a row has is known from its number."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import blazen_codec_core as bc
from blazen_codec_core.dataset import shards
from blazen_codec_core.dataset.rows import Row

SNAC, ENCODEC = "snac_tiny", "encodec_tiny"
"""Codebooks of several strides, and of one."""
spec_of = functools.cache(lambda name: bc.Registry().find(name).spec)
layout_of = functools.cache(lambda name: bc.Registry().layout(name))
CARRIED = {"text": "string", "speaker": "int"}


def tokens_of(number: int, codec: str = SNAC, groups: int | None = None, channels: int = 1) -> bc.CodecTokens:
    """Tokens of recording `number`: random, of 1 to 9 groups of frames."""
    spec = spec_of(codec)
    draw = np.random.default_rng([number, spec.num_codebooks])
    frames = (draw.integers(1, 10) if groups is None else groups) * max(spec.strides)
    codes = [draw.integers(0, spec.codebook_size, (channels, frames // stride)) for stride in spec.strides]
    return bc.CodecTokens.from_codes(spec, codes)


def row(number: int, codec: str = SNAC, **options) -> Row:
    carried = {"text": f"text {number}", "speaker": number % 3}
    return Row(str(number), f"{number}.wav", tokens_of(number, codec, **options), 0.0, 16_000, 16_000, 1, carried=carried)


def write(folder: Path, counts: Sequence[int], codec: str = SNAC, format: str = "parquet", **options) -> Path:
    """Write shards with so many rows each, numbered through."""
    folder.mkdir(exist_ok=True)
    kind, first = shards.FORMATS[format], 0
    for number, count in enumerate(counts):
        rows = [row(number, codec, **options) for number in range(first, first + count)]
        name = shards.name_of(number, len(counts), kind.suffix)
        kind.write(folder / name, spec_of(codec), rows, CARRIED)
        first += count
    return folder

"""Python calls of one push of a session, which bound the latency of small models."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from types import FrameType
from typing import Any

from rich.table import Table

import blazen_codec_core as bc

from . import timing

PUSHES = 6
"""Pushes before the counted one, after which the shapes of a stream's state no longer change."""


def run(name: str) -> list[dict[str, Any]]:
    """Count the calls of one push of the shortest tile, to an encoder and to a decoder session."""
    spec = bc.Registry().find(name).spec
    codec = bc.load(name, device="cpu", weights=None if spec.weights.package else "random:0")
    frames = spec.tile_frames if spec.segment else spec.block_frames
    pcm = timing.voices(codec, (PUSHES + 2) * frames * spec.hop_length / spec.sample_rate)
    hop = spec.segment.stride if spec.segment else frames * spec.hop_length
    tokens = codec.encode(pcm, spec.sample_rate)
    encoder, decoder = codec.encoder_session(codec.channels, tile_frames=frames), codec.decoder_session(tile_frames=frames)
    pieces = [pcm[:, start : start + hop] for start in range(0, (PUSHES + 1) * hop, hop)]
    rows = [("encode", encoder.push, pieces), ("decode", decoder.push, list(tokens.parts(frames))[: PUSHES + 1])]
    return [{"codec": name, "what": what, **_count(push, inputs)} for what, push, inputs in rows]


def _count(push: Callable[[Any], Any], inputs: list[Any]) -> dict[str, Any]:
    calls: Counter[str] = Counter()

    def profile(frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            calls[frame.f_code.co_qualname] += 1
        elif event == "c_call":
            calls["C"] += 1

    for piece in inputs[:-1]:
        push(piece)
    sys.setprofile(profile)
    try:
        push(inputs[-1])
    finally:
        sys.setprofile(None)
    of_c = calls.pop("C", 0)
    return {"python": calls.total(), "c": of_c, "most": dict(calls.most_common(12))}


def table(rows: list[dict[str, Any]]) -> Table:
    result = Table("codec", "", "Python calls", "of C", "most called")
    for row in rows:
        most = ", ".join(f"{function} {count}" for function, count in list(row["most"].items())[:5])
        result.add_row(row["codec"], row["what"], str(row["python"]), str(row["c"]), most)
    return result

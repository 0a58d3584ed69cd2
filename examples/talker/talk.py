"""Frames that language models write are heard at once: many conversations through one pool of decoders.

python examples/talker/talk.py qwen3tts_12hz spoken/    # downloads the codec; `--weights random:0` does not
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

import blazen_codec_core as bc

END = 2150


@dataclass
class Heard:
    """Parts of the audio of a conversation, and when they were heard."""

    parts: list[np.ndarray] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    """Time of each part, since the conversation began."""
    frames: list[int] = field(default_factory=list)
    """Frames that had been written when each part was heard."""


async def talker(seed: int, frames: int, interval: float) -> AsyncIterator[np.ndarray]:
    """Stand-in for a language model: the 16 ids of a frame every `interval` seconds, then a step that begins with the end."""
    draw = np.random.default_rng(seed)
    for _ in range(frames):
        await asyncio.sleep(interval)
        yield draw.integers(0, 2048, 16)
    yield np.concatenate([[END], draw.integers(0, 2048, 15)])


async def converse(pool: Any, layout: bc.TokenLayout, spec: bc.CodecSpec, ids: AsyncIterator[np.ndarray]) -> Heard:
    """One conversation: ids in, audio out, in two tasks."""
    heard, stream, reader = Heard(), pool.open(), layout.reader(spec)
    began, written = time.perf_counter(), 0

    async def listen() -> None:
        async for pcm in stream:
            heard.parts.append(pcm)
            heard.seconds.append(time.perf_counter() - began)
            heard.frames.append(written)

    listener = asyncio.create_task(listen())
    async for step in ids:
        tokens = reader.push(step)
        if tokens.frames:
            written += tokens.frames
            await stream.apush(tokens)
        if reader.ended:
            break
    stream.finish()
    await listener
    return heard


async def talk(codec: bc.DynCodecProvider, conversations: int, frames: int, interval: float) -> list[Heard]:
    """Run conversations side by side. The first four tiles of each have one frame, and the others four."""
    layout = bc.Registry().layout("qwen3_tts")
    async with codec.decoder_pool(conversations, tile_frames=4, first_tile_frames=1).serving() as pool:
        talkers = [talker(seed, frames, interval) for seed in range(conversations)]
        return await asyncio.gather(*(converse(pool, layout, codec.spec, ids) for ids in talkers))


def main(
    codec: bc.DynCodecProvider, folder: str, *, conversations: int = 4, frames: int = 50, interval: float = 0.05
) -> list[Heard]:
    """Write what each conversation's listener heard to a folder, and print when it began.

    Args:
        codec: A codec with 16 codebooks of 2048 entries, or its decoder alone.
        folder: Output folder.
        conversations: Number of talkers.
        frames: Frames that each writes.
        interval: Seconds that a talker takes for a frame.
    """
    codec.load()
    found = asyncio.run(talk(codec, conversations, frames, interval))
    Path(folder).mkdir(parents=True, exist_ok=True)
    for number, heard in enumerate(found):
        audio = np.concatenate(heard.parts, axis=1)
        soundfile.write(Path(folder) / f"{number}.wav", audio.T, codec.sample_rate)
        print(
            f"talker {number}: audio after {1000 * heard.seconds[0]:.0f} ms, with {heard.frames[0]} of {frames} frames written; "
            f"{audio.shape[1] / codec.sample_rate:.2f} s in {len(heard.parts)} parts"
        )
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("codec")
    parser.add_argument("folder")
    parser.add_argument("--weights")
    parser.add_argument("--conversations", type=int, default=4)
    options = parser.parse_args()
    main(bc.load(options.codec, weights=options.weights, parts="decoder"), options.folder, conversations=options.conversations)

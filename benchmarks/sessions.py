"""Sessions: how soon they answer, and what they cost when they go on for long."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click
from rich.table import Table

import blazen_codec_core as bc

from . import measure

SHORT = 10
"""Seconds of audio of the short sessions that a long one is compared with."""


def latency(name: str, tiles: Iterable[int], seconds: float) -> list[dict[str, Any]]:
    """Encoder sessions fed frame by frame; see `benchmarks latency --help`."""
    codec = bc.load(name, weights="random:0")
    spec, rate = codec.spec, codec.sample_rate
    pcm = measure.voices(codec, seconds)
    codec.decode(codec.encode(pcm[:, :rate], rate))
    shortest = spec.tile_frames if spec.segment else spec.block_frames
    return [_latency(codec, pcm, tile) for tile in tiles or sorted({shortest, spec.tile_frames})]


def _latency(codec: bc.DynCodecProvider, pcm: Any, tile: int) -> dict[str, Any]:
    spec, rate = codec.spec, codec.sample_rate
    session = codec.encoder_session(codec.channels, tile_frames=tile)
    pushed = covered = first = behind = 0
    taken = []
    for start in range(0, pcm.shape[1] - spec.hop_length + 1, spec.hop_length):
        began = time.perf_counter()
        part = session.push(pcm[:, start : start + spec.hop_length])
        taken.append(time.perf_counter() - began)
        pushed, covered = pushed + spec.hop_length, covered + part.num_samples
        if first:
            behind = max(behind, pushed - 1 - covered + part.num_samples)  # just before this push was complete
        elif covered:
            first = pushed
    return {
        "codec": spec.name,
        "tile_frames": tile,
        "latency_samples": session.latency_samples,
        "first_token_ms_of_audio": 1000 * first / rate,
        "first_token_ms_of_work": 1000 * sum(taken[: first // spec.hop_length]),
        "then_behind_ms_at_most": 1000 * behind / rate,
        "push_ms_median": 1000 * statistics.median(taken),
        "push_ms_worst": 1000 * max(taken),
        "real_time_factor": sum(taken) * rate / pushed,
    }


def latency_table(rows: list[dict[str, Any]]) -> Table:
    made = Table(title="Encoder sessions fed frame by frame, milliseconds")
    columns = ("codec", "frames a tile", "first tokens: audio", "work", "then behind at most", "a push, median", "worst")
    for column in columns:
        made.add_column(column, justify="left" if column == "codec" else "right")
    for row in rows:
        values = [row[key] for key in row if "_ms" in key]
        made.add_row(row["codec"], str(row["tile_frames"]), *(f"{value:.1f}" for value in values))
    return made


def long(name: str, minutes: int) -> Iterator[dict[str, Any]]:
    """An encoder session, then a decoder session of the tokens, each in a process of its own; see `benchmarks long --help`."""
    with tempfile.TemporaryDirectory() as folder:
        for what in ("encode", "decode"):
            program = [sys.executable, "-m", __name__, name, what, str(minutes), folder]
            run = subprocess.run(program, capture_output=True, text=True, check=True)
            yield json.loads(run.stdout)


def long_table(rows: list[dict[str, Any]]) -> Table:
    made = Table(title="Sessions that go on")
    for column in ("codec", "", "minutes", "work a second", f"over that of {SHORT} s", "MiB above the loaded model"):
        made.add_column(column, justify="left" if column in {"codec", ""} else "right")
    for row in rows:
        figures = (f"{row['median']:.4f}", f"{row['over_short']:.2f}×", f"{row['mib']:.0f}")
        made.add_row(row["codec"], row["what"], str(row["minutes"]), *figures)
    return made


def _long(name: str, what: str, minutes: int, folder: Path) -> dict[str, Any]:
    """Minute by minute, and a short session after each."""
    codec = bc.load(name, weights="random:0")
    codec.load()
    memory = measure.Memory()
    tokens, short_tokens = folder / "long", folder / "short"
    if what == "encode":
        second = measure.voices(codec, 1.0)
        short, whole = ([second] * seconds for seconds in (SHORT, 60 * minutes))
        session, made = codec.encoder_session(codec.channels), []
    else:
        spec = codec.spec
        unit = spec.segment.length // spec.hop_length if spec.segment else spec.block_frames
        frames = max(1, round(codec.frame_rate / unit)) * unit
        short, whole = (list(bc.CodecTokens.open(path).parts(frames)) for path in (short_tokens, tokens))
        session, made = codec.decoder_session(), []
    memory.begin()
    (codec.encoder_session(codec.channels) if what == "encode" else codec.decoder_session()).push(short[0])  # what is done once
    longer, shorter = [], []
    for minute in range(minutes):
        began = time.perf_counter()
        for piece in whole[len(whole) * minute // minutes : len(whole) * (minute + 1) // minutes]:
            part = session.push(piece)
            if what == "encode":
                made.append(part)
        longer.append((time.perf_counter() - began) / 60)
        with memory.set_aside():
            began = time.perf_counter()
            other = codec.encoder_session(codec.channels) if what == "encode" else codec.decoder_session()
            parts = [*map(other.push, short), other.finish()]
            shorter.append((time.perf_counter() - began) / SHORT)
    made.append(session.finish())
    peak = memory.peak
    if what == "encode":
        bc.CodecTokens.concat(made).save(tokens)
        bc.CodecTokens.concat(parts).save(short_tokens)
    ratio = statistics.median(own / each for own, each in zip(longer, shorter, strict=True))
    return {
        "codec": name,
        "what": what,
        "minutes": minutes,
        "median": statistics.median(longer),
        "over_short": ratio,
        "mib": peak,
    }


@click.command()
@click.argument("name")
@click.argument("what", type=click.Choice(["encode", "decode"]))
@click.argument("minutes", type=int)
@click.argument("folder", type=click.Path(path_type=Path))
def child(name: str, what: str, minutes: int, folder: Path) -> None:
    click.echo(json.dumps(_long(name, what, minutes, folder)))


if __name__ == "__main__":
    child()

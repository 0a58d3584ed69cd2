"""Latency and long-term cost of sessions."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import click
from rich.table import Table

import blazen_codec_core as bc

from . import timing

SHORT = 10
"""Seconds of audio of the short sessions that a long one is compared with."""


def latency(name: str, tiles: Iterable[int], seconds: float, **options: Any) -> list[dict[str, Any]]:
    """Measure sessions fed frame by frame; see `benchmarks latency --help`."""
    codec = bc.load(name, weights="random:0", **options)
    spec, rate = codec.spec, codec.sample_rate
    pcm = timing.voices(codec, seconds)
    tokens = codec.encode(pcm, rate)
    codec.decode(tokens)
    shortest = spec.tile_frames if spec.segment else spec.block_frames
    sizes = list(tiles or sorted({shortest, spec.tile_frames}))
    return [_encoder(codec, pcm, tile) for tile in sizes] + [_decoder(codec, tokens, tile) for tile in sizes]


def _encoder(codec: bc.DynCodecProvider, pcm: Any, tile: int) -> dict[str, Any]:
    hop = codec.spec.hop_length
    session = codec.encoder_session(codec.channels, tile_frames=tile)
    pieces = [pcm[:, start : start + hop] for start in range(0, pcm.shape[1] - hop + 1, hop)]
    return _measure(codec, "encode", tile, session, pieces, hop, lambda tokens: tokens.num_samples)


def _decoder(codec: bc.DynCodecProvider, tokens: bc.CodecTokens, tile: int) -> dict[str, Any]:
    spec = codec.spec
    unit = tile if spec.segment else spec.block_frames
    pieces = list(tokens.parts(unit))[: tokens.frames // unit]
    hop = spec.segment.stride if spec.segment else unit * spec.hop_length
    return _measure(codec, "decode", tile, codec.decoder_session(tile_frames=tile), pieces, hop, lambda pcm: pcm.shape[1])


def _measure(
    codec: bc.DynCodecProvider, what: str, tile: int, session: Any, pieces: list[Any], samples: int, covers: Callable[[Any], int]
) -> dict[str, Any]:
    """Push pieces of `samples` samples each; `covers` returns the samples that an output covers."""
    pushed = covered = first = behind = 0
    taken = []
    for piece in pieces:
        began = time.perf_counter()
        output = covers(session.push(piece))
        taken.append(time.perf_counter() - began)
        pushed, covered = pushed + samples, covered + output
        if first:
            behind = max(behind, pushed - 1 - covered + output)  # just before this push was complete
        elif covered:
            first = pushed
    rate = codec.sample_rate
    return {
        "codec": codec.spec.name,
        "what": what,
        "tile_frames": tile,
        "latency_samples": session.latency_samples,
        "first_output_ms_of_audio": 1000 * first / rate,
        "first_output_ms_of_work": 1000 * sum(taken[: first // samples]),
        "then_behind_ms_at_most": 1000 * behind / rate,
        "push_ms_median": 1000 * statistics.median(taken),
        "push_ms_worst": 1000 * max(taken),
        "real_time_factor": sum(taken) * rate / pushed,
    }


def latency_table(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="Latency of sessions fed frame by frame, milliseconds")
    columns = (
        "codec",
        "",
        "frames a tile",
        "first output: audio",
        "compute",
        "maximum latency after",
        "per push: median",
        "worst",
    )
    for column in columns:
        table.add_column(column, justify="left" if column in {"codec", ""} else "right")
    for row in rows:
        values = [row[key] for key in row if "_ms" in key]
        table.add_row(row["codec"], row["what"], str(row["tile_frames"]), *(f"{value:.1f}" for value in values))
    return table


def long(name: str, minutes: int) -> Iterator[dict[str, Any]]:
    """Measure an encoder session, then a decoder session of its tokens, each in its own processes.

    See `benchmarks long --help`.
    """
    with tempfile.TemporaryDirectory() as folder:
        for what in ("encode", "decode"):
            row = {"codec": name, "what": what, "minutes": minutes}
            for measured in MEASURED:
                program = [sys.executable, "-m", __name__, name, what, measured, str(minutes), folder]
                run = subprocess.run(program, capture_output=True, text=True, check=True)
                row |= json.loads(run.stdout)
            yield row


def long_table(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="Long sessions")
    for column in ("codec", "", "minutes", "compute a second", f"relative to {SHORT} s", "MiB above the loaded model"):
        table.add_column(column, justify="left" if column in {"codec", ""} else "right")
    for row in rows:
        figures = (f"{row['median']:.4f}", f"{row['over_short']:.2f}×", f"{row['mib']:.0f}")
        table.add_row(row["codec"], row["what"], str(row["minutes"]), *figures)
    return table


class _Sessions:
    """Sessions of a codec in one direction, and their input."""

    def __init__(self, name: str, what: str, minutes: int, folder: Path) -> None:
        self.codec = bc.load(name, weights="random:0")
        self.codec.load()
        self.what, self.minutes, self.folder = what, minutes, folder
        spec = self.codec.spec
        unit = spec.segment.length // spec.hop_length if spec.segment else spec.block_frames
        self._frames = max(1, round(spec.frame_rate / unit)) * unit
        self._second = timing.voices(self.codec, 1.0) if what == "encode" else None

    def begin(self) -> Any:
        return self.codec.encoder_session(self.codec.channels) if self.what == "encode" else self.codec.decoder_session()

    def pieces(self, length: str, seconds: int) -> list[Any]:
        """Return pieces of about a second each, of the `long` or the `short` signal."""
        if self.what == "encode":
            return [self._second] * seconds
        return list(bc.CodecTokens.open(self.folder / length).parts(self._frames))

    def keep(self, length: str, outputs: list[Any]) -> None:
        if self.what == "encode":
            bc.CodecTokens.concat(outputs).save(self.folder / length)


def _cost(sessions: _Sessions) -> dict[str, Any]:
    """Measure compute minute by minute, and a short session after each."""
    minutes = sessions.minutes
    whole, short = sessions.pieces("long", 60 * minutes), sessions.pieces("short", SHORT)
    sessions.begin().push(short[0])  # excludes one-time work
    session, outputs, longer, shorter = sessions.begin(), [], [], []
    for minute in range(minutes):
        began = time.perf_counter()
        outputs += [session.push(piece) for piece in whole[len(whole) * minute // minutes : len(whole) * (minute + 1) // minutes]]
        longer.append((time.perf_counter() - began) / 60)
        began = time.perf_counter()
        other = sessions.begin()
        parts = [*map(other.push, short), other.finish()]
        shorter.append((time.perf_counter() - began) / SHORT)
    sessions.keep("long", [*outputs, session.finish()])
    sessions.keep("short", parts)
    ratio = statistics.median(long / short for long, short in zip(longer, shorter, strict=True))
    return {"median": statistics.median(longer), "over_short": ratio}


def _memory(sessions: _Sessions) -> dict[str, Any]:
    """Run the same session alone; tokens and audio are discarded."""
    memory = timing.Memory()
    whole = sessions.pieces("long", 60 * sessions.minutes)
    memory.begin()
    session = sessions.begin()
    for piece in whole:
        session.push(piece)
    session.finish()
    return {"mib": memory.peak}


MEASURED = {"cost": _cost, "memory": _memory}


@click.command()
@click.argument("name")
@click.argument("what", type=click.Choice(["encode", "decode"]))
@click.argument("measured", type=click.Choice(list(MEASURED)))
@click.argument("minutes", type=int)
@click.argument("folder", type=click.Path(path_type=Path))
def child(name: str, what: str, measured: str, minutes: int, folder: Path) -> None:
    click.echo(json.dumps(MEASURED[measured](_Sessions(name, what, minutes, folder))))


if __name__ == "__main__":
    child()

"""python -m benchmarks compare | memory | latency | startup"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import click

from .compare import compare
from .measure import interleaved, machine


@click.group()
def main() -> None:
    """Measurements, each side by side in one run; they print JSON, and a table on stderr."""


main.add_command(compare)


MEMORY = """
import resource, sys
import numpy as np
import blazen_codec_core as bc
name, what, minutes = sys.argv[1], sys.argv[2], int(sys.argv[3])
codec = bc.load(name, weights="random:0")
rate = codec.sample_rate
second = (np.random.default_rng(0).standard_normal((codec.channels, rate)) * 0.1).astype(np.float32)
codec.decode(codec.encode(np.tile(second, (1, 5)), rate))
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
if what == "session":
    before = peak()
    encoder, decoder = codec.encoder_session(), codec.decoder_session()
    for _ in range(60 * minutes):
        decoder.push(encoder.push(second))
else:
    pcm = np.tile(second, (1, 60 * minutes))
    before = peak()
    tokens = codec.encode(pcm, rate)
    if what == "decode":
        codec.decode(tokens)
print(peak() - before)
"""


@main.command()
@click.option("--codec", "name", default="snac_24khz", show_default=True)
@click.option("--minutes", "lengths", multiple=True, type=int, default=[1, 10], show_default=True)
def memory(name: str, lengths: tuple[int, ...]) -> None:
    """Peak memory above the warm model, in MiB, each figure from a process of its own."""
    rows = []
    for what in ("session", "encode", "decode"):
        for minutes in lengths:
            run = subprocess.run(
                [sys.executable, "-c", MEMORY, name, what, str(minutes)], capture_output=True, text=True, check=True
            )
            rows.append({"codec": name, "what": what, "minutes": minutes, "mib": float(run.stdout)})
            click.echo(f"{name:<12} {what:<8} {minutes:>3} min  {float(run.stdout):8.1f} MiB", err=True)
    click.echo(json.dumps({"machine": machine(), "rows": rows}, indent=2))


@main.command()
@click.option("--codec", "name", default="encodec_24khz", show_default=True)
@click.option(
    "--tile-frames", "tiles", multiple=True, type=int, help="by default the shortest that there can be, and the model's own"
)
@click.option("--seconds", default=10.0, show_default=True, help="of audio")
def latency(name: str, tiles: tuple[int, ...], seconds: float) -> None:
    """Sessions fed frame by frame: how much audio must be in before the first tokens come out, how far behind
    they are from then on at most, and the seconds of work that one push takes."""
    import numpy as np

    import blazen_codec_core as bc
    from blazen_codec_core.conformance.signals import voice

    codec = bc.load(name, weights="random:0")
    spec, rate = codec.spec, codec.sample_rate
    pcm = np.stack([voice(seconds, rate, channel) for channel in range(codec.channels)])
    codec.decode(codec.encode(pcm[:, :rate], rate))
    shortest = spec.tile_frames if spec.segment else spec.block_frames
    rows = []
    for tile in tiles or sorted({shortest, spec.tile_frames}):
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
        row = {
            "codec": name,
            "tile_frames": tile,
            "latency_samples": session.latency_samples,
            "first_token_ms_of_audio": 1000 * first / rate,
            "first_token_ms_of_work": 1000 * sum(taken[: first // spec.hop_length]),
            "then_behind_ms_at_most": 1000 * behind / rate,
            "push_ms_median": 1000 * statistics.median(taken),
            "push_ms_worst": 1000 * max(taken),
            "real_time_factor": sum(taken) * rate / pushed,
        }
        rows.append(row)
        click.echo(
            "  ".join(f"{key} {value:.4g}" if isinstance(value, float) else f"{value}" for key, value in row.items()), err=True
        )
    click.echo(json.dumps({"machine": machine(), "seconds": seconds, "rows": rows}, indent=2))


@main.command()
@click.option("--rounds", default=25, show_default=True)
def startup(rounds: int) -> None:
    """`blazen-codec list` against a bare interpreter and against importing pydantic, in seconds."""
    programs = {
        "pass": [sys.executable, "-c", "pass"],
        "pydantic": [sys.executable, "-c", "from pydantic import BaseModel"],
        "core": [sys.executable, "-c", "import blazen_codec_core as bc; bc.load"],
        "list": [str(Path(sys.executable).parent / "blazen-codec"), "list"],
    }
    work = {name: partial(subprocess.run, program, check=True, capture_output=True) for name, program in programs.items()}
    medians = {name: statistics.median(seconds) for name, seconds in interleaved(work, rounds).items()}
    # Importing pydantic starts an interpreter too, so its median already is that of `pass` plus the import.
    result = {**medians, "list_over_pydantic": medians["list"] / medians["pydantic"]}
    click.echo("  ".join(f"{name} {value:.3f}" for name, value in result.items()), err=True)
    click.echo(json.dumps({"machine": machine(), **result}, indent=2))


if __name__ == "__main__":
    main()

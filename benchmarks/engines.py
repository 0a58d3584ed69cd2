"""Comparison of all codecs on all engines, as a table, JSON and a figure."""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from rich.table import Table

from . import timing

PEERS = ("authors", "authors_windows", "transformers", "rustymimi", "onnxruntime", "openvino")
ENGINES = ("ours", "exported", *PEERS)
CODECS = ("encodec_24khz", "encodec_48khz", "snac_24khz", "dac_44khz", "mimi", "qwen3tts_12hz")
LENGTHS = (1.0, 10.0)
ROUNDS = 5


def run(names: Iterable[str], lengths: Iterable[float], rounds: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Run the measurements; see `benchmarks compare --help`."""
    from . import roofline

    rate = roofline.SgemmRate()
    rate.measure()
    rows = [row for name in names for row in _codec(name, lengths, rounds, rate, say)]
    for row in rows:
        row["floor"] = row["gflop"] / rate.gflops
        row["share_of_floor"] = row["floor"] / row["engines"]["ours"]["median"]
    return {"rounds": rounds, "sgemm_gflops": rate.gflops, "rows": rows}


def _codec(name: str, lengths: Iterable[float], rounds: int, rate: Any, say: Callable[[str], None]) -> list[dict[str, Any]]:
    import blazen_codec_core as bc

    from . import peers, roofline

    ours, theirs = (bc.load(name, weights="random:0", engine=engine) for engine in ("native", "upstream"))
    theirs.load()
    rows = []
    second = timing.voices(ours, 1.0)
    tokens = ours.encode(second, ours.sample_rate)
    job = peers.Job(ours, theirs, second, tokens)
    gflop = {
        "encode": roofline.gflop(job.model, lambda: theirs.encode(second, ours.sample_rate)),
        "decode": roofline.gflop(job.model, lambda: theirs.decode(tokens)),
    }
    for seconds in lengths:
        pcm = timing.voices(ours, seconds)
        job = peers.Job(ours, theirs, pcm, ours.encode(pcm, ours.sample_rate))
        engines = list(peers.engines(job, lambda engine, error: say(f"{name}: {engine} is not available: {error}")))
        kinds: dict[str, Callable[[peers.Engine], Callable[[], Any] | None]] = {
            "encode": lambda engine: engine.encode,
            "decode": lambda engine: engine.decode,
            "encode_stream": lambda engine: engine.encode_stream,
            "decode_stream": lambda engine: engine.decode_stream,
            **{f"decode_steps_{frames}": partial(_steps, frames) for frames in peers.STEPS},
        }
        for what, of in kinds.items():
            work = {engine.name: run for engine in engines if (run := of(engine))}
            if not set(work) & set(PEERS):
                continue
            taken = timing.interleaved(work, rounds, between=rate.measure)
            of_engines = {
                engine: {
                    "median": statistics.median(times) / seconds,
                    "lowest": min(times) / seconds,
                    "highest": max(times) / seconds,
                    "ratio": statistics.median(other / ours for ours, other in zip(taken["ours"], times, strict=True)),
                }
                for engine, times in taken.items()
            }
            rows.append(
                {
                    "codec": name,
                    "what": what,
                    "seconds": seconds,
                    "gflop": gflop[what.partition("_")[0]],
                    "engines": of_engines,
                }
            )
            say(f"{name} {what} {seconds:g} s: " + ", ".join(f"{k} {v['median']:.4f}" for k, v in of_engines.items()))
        del engines, job
        gc.collect()
    return rows


def _steps(frames: int, engine: Any) -> Callable[[], Any] | None:
    """Decoding in steps of some frames; `None` if an engine has none."""
    run: Callable[[], Any] | None = engine.decode_steps.get(frames)
    return run


def table(result: dict[str, Any]) -> Table:
    table = Table(
        title=f"Seconds of compute per second of audio; sgemm {result['sgemm_gflops']:.0f} GFLOP/s",
        caption="brackets: lowest and highest round; against: time of the others relative to ours (median)",
    )
    for column in ("codec", "", "audio", *ENGINES, "floor", "of floor", "against authors", "against the best"):
        table.add_column(column, justify="left" if column in {"codec", ""} else "right")
    for row in result["rows"]:
        engines = row["engines"]
        best = min((engines[peer] for peer in PEERS if peer in engines), key=lambda figures: figures["median"], default=None)
        cells = [
            f"{engines[e]['median']:.4f} ({engines[e]['lowest']:.4f} … {engines[e]['highest']:.4f})" if e in engines else "–"
            for e in ENGINES
        ]
        table.add_row(
            row["codec"],
            row["what"],
            f"{row['seconds']:g} s",
            *cells,
            f"{row['floor']:.4f}",
            f"{row['share_of_floor']:.0%}",
            f"{engines['authors']['ratio']:.2f}×" if "authors" in engines else "–",
            f"{best['ratio']:.2f}×" if best else "–",
        )
    return table


def picture(result: dict[str, Any], path: Path) -> None:
    """Plot seconds of compute per second of audio as bars, one group per row, with the floor as a line."""
    from matplotlib.figure import Figure

    rows = [row for row in result["rows"] if len(row["engines"]) > 1]
    figure = Figure(figsize=(1.5 + 1.3 * len(rows), 5), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(ENGINES)
    for number, engine in enumerate(ENGINES):
        bars = [(index, row["engines"][engine]) for index, row in enumerate(rows) if engine in row["engines"]]
        x = [index + (number - (len(ENGINES) - 1) / 2) * width for index, _ in bars]
        height = [bar["median"] for _, bar in bars]
        spread = [[bar["median"] - bar["lowest"] for _, bar in bars], [bar["highest"] - bar["median"] for _, bar in bars]]
        axes.bar(x, height, width, yerr=spread, capsize=1.5, label=engine, error_kw={"linewidth": 0.8})
    for index, row in enumerate(rows):
        label = "floor at the sgemm rate" if not index else None
        axes.hlines(row["floor"], index - 0.42, index + 0.42, colors="black", linestyles="dashed", label=label)
    axes.set_yscale("log")
    axes.set_ylabel("seconds of compute per second of audio")
    axes.set_xticks(range(len(rows)), [f"{row['codec']}\n{row['what']} {row['seconds']:g} s" for row in rows], fontsize=8)
    axes.grid(axis="y", alpha=0.3)
    axes.legend(ncols=3, fontsize=8)
    figure.savefig(path, dpi=130)

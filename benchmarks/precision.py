"""Half precision against float32, and the authors' package: speed over a batch, and how far the results are apart."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np
from rich.table import Table

import blazen_codec_core as bc

from . import measure

AUTHORS = "authors"


def run(name: str, dtypes: Iterable[str], device: str, batch: int, seconds: float, rounds: int) -> list[dict[str, Any]]:
    """A row an engine; see `benchmarks precision --help`."""
    spec = bc.Registry().find(name).spec
    weights = None if spec.weights.package else "random:0"
    codecs = {dtype: bc.load(name, device=device, dtype=dtype, weights=weights, noise=False) for dtype in dtypes}
    if spec.upstream:
        codecs[AUTHORS] = bc.load(name, device=device, engine="upstream", weights=weights, noise=False)
    reference = codecs["float32"]
    items = [measure.voices(reference, seconds) for _ in range(batch)]
    tokens = reference.encode_batch(items, spec.sample_rate)
    audio = reference.decode(tokens[0])
    encoded = measure.interleaved(
        {key: partial(each.encode_batch, items, spec.sample_rate) for key, each in codecs.items()}, rounds
    )
    decoded = measure.interleaved({key: partial(each.decode_batch, tokens) for key, each in codecs.items()}, rounds)
    rows = []
    for key, codec in codecs.items():
        error = codec.decode(tokens[0]) - audio
        same = zip(codec.encode(items[0], spec.sample_rate).codes, tokens[0].codes, strict=True)
        rows.append(
            {
                "codec": name,
                "engine": key,
                "device": codec.device,
                "batch": batch,
                "seconds": seconds,
                "encode": batch * seconds / statistics.median(encoded[key]),
                "decode": batch * seconds / statistics.median(decoded[key]),
                "agreement": [float((one == other).mean()) for one, other in same],
                "decoded_snr_db": float(10 * np.log10((audio**2).sum() / max((error**2).sum(), 1e-20))),
            }
        )
    return rows


def table(rows: list[dict[str, Any]]) -> Table:
    made = Table(title="Times real time, and against float32")
    for column in ("codec", "engine", "device", "batch", "encode", "decode", "tokens that agree, a codebook", "decoded, SNR dB"):
        made.add_column(column, justify="left" if column in {"codec", "engine", "device"} else "right")
    for row in rows:
        agreement = " ".join(f"{100 * share:.0f}" for share in row["agreement"]) + " %"
        speeds = (f"{row['encode']:.1f}", f"{row['decode']:.1f}")
        made.add_row(
            row["codec"], row["engine"], row["device"], str(row["batch"]), *speeds, agreement, f"{row['decoded_snr_db']:.1f}"
        )
    return made

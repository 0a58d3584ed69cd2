from __future__ import annotations

import time
from typing import Any

import click
import numpy as np

from ..plugins.registry import Registry
from ..specs import LoadOptions
from .options import as_json, print_json


@click.command("warm-up")
@click.argument("names", metavar="[NAME]…", nargs=-1)
@as_json
def command(names: tuple[str, ...], as_json: bool) -> None:
    """Compile what models need on this processor, so that later processes find it in the cache.

    Without names, it is done for all installed models whose weights are installed. Others run with random weights; nothing is
    downloaded. NUMBA_CACHE_DIR says where compiled kernels are cached; by default, beside the installed package.
    """
    registry = Registry()
    entries = [registry.find(name) for name in names] or [entry for entry in registry if entry.spec.weights.package]
    rows = []
    for entry in entries:
        weights = {} if entry.spec.weights.package else {"weights": "random:0"}
        rows.append(_warm_up(registry, entry.qualified_name, LoadOptions.of(device="cpu", **weights)))
        if not as_json:
            click.echo(f"{rows[-1]['codec']:<28} {rows[-1]['seconds']:6.1f} s")
    if as_json:
        print_json(rows)


def _warm_up(registry: Registry, name: str, options: LoadOptions) -> dict[str, Any]:
    """Load a model and run a second of silence through it."""
    start = time.perf_counter()
    codec = registry.provider(name, options)
    silence = np.zeros((codec.channels, codec.sample_rate), np.float32)
    if codec.spec.is_continuous:
        codec.decode_latents(codec.encode_latents(silence, codec.sample_rate))
    else:
        codec.decode(codec.encode(silence, codec.sample_rate))
    return {"codec": name, "seconds": round(time.perf_counter() - start, 2)}

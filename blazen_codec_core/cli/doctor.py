from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import importlib_metadata

from ..api_version import CORE
from ..errors import CodecError
from ..plugins.registry import Registry
from ..specs import LoadOptions
from .options import as_json, print_json

if TYPE_CHECKING:
    import torch

VARIABLES = (
    *("HF_HUB_OFFLINE", "HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME", "NUMBA_CACHE_DIR", "NUMBA_DISABLE_JIT"),
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "TRITON_INTERPRET"),
)
"""Variables of the environment that matter, none of which is secret."""


@click.command("doctor")
@as_json
@click.pass_context
def command(ctx: click.Context, /, as_json: bool) -> None:
    """Report what is installed and what runs here, for an issue report.

    A second of silence is encoded and decoded on each device, by a model whose weights are installed. Nothing is downloaded. The
    exit code is 1 if a plugin is broken or a device fails.
    """
    registry = Registry()
    found: dict[str, Any] = {
        "core": importlib_metadata.version(CORE),
        "python": f"{platform.python_version()} ({platform.python_implementation()})",
        "system": platform.platform(),
        "packages": packages([CORE, *(record.distribution for record in registry.plugins.records)]),
        "plugins": [
            {"name": record.name, "distribution": record.distribution, "version": record.version, "error": record.error}
            for record in registry.plugins.records
        ],
        "processor": processor(),
        "devices": list(devices(registry)),
        "caches": [{"what": what, "path": _short(path), **size_of(path, suffix)} for what, path, suffix in caches()],
        "weights": [entry.qualified_name for entry in registry if at_hand(entry.spec.sources)],
        "environment": {name: _short(os.environ[name]) for name in VARIABLES if name in os.environ},
    }
    if as_json:
        print_json(found)
    else:
        show(found)
    if any(part["error"] for part in (*found["plugins"], *found["devices"])):
        ctx.exit(1)


def packages(distributions: Iterable[str]) -> dict[str, str]:
    """Return the versions of the installed packages that distributions require, also by extras, and of Triton."""
    known = [distribution for distribution in distributions if version_of(distribution)]
    required = [line for distribution in known for line in importlib_metadata.requires(distribution) or []]
    names = {"triton", *(re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in required)}
    own = CORE.removesuffix("core")
    return {name: version for name in sorted(names) if not name.startswith(own) and (version := version_of(name))}


def version_of(package: str) -> str | None:
    """Return the version of an installed distribution."""
    try:
        return importlib_metadata.version(package)
    except importlib_metadata.PackageNotFoundError:
        return None


def at_hand(sources: Any) -> bool:
    """Tell whether one of these sources of weights is on this machine."""
    from .. import weights

    return weights.at_hand(sources, LoadOptions()) is not None


def processor() -> dict[str, Any]:
    """Describe the CPU, and the threads that a call uses."""
    found: dict[str, Any] = {"machine": platform.machine(), "cores": os.cpu_count()}
    if hasattr(os, "sched_getaffinity"):  # on Linux
        found["affinity"] = len(os.sched_getaffinity(0))
    if version_of("torch"):
        import torch

        from ..torch_backend import cpu_threads

        found["instructions"] = torch.backends.cpu.get_cpu_capability()
        found["quota"] = cpu_threads.quota()
        found["threads"] = cpu_threads.usable_threads()
    return found


def devices(registry: Registry) -> Iterator[dict[str, Any]]:
    """Yield the devices of PyTorch, their kernel back ends, and how a model runs there."""
    if not version_of("torch"):
        return
    import torch

    names = {"cpu": platform.processor() or platform.machine()}
    if torch.backends.mps.is_available():
        names["mps"] = "Apple GPU"
    for number in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(number)
        names[f"cuda:{number}"] = f"{facts.name}, {facts.total_memory / 2**30:.0f} GiB, {facts.major}.{facts.minor}"
    for device, name in names.items():
        yield {"device": device, "name": name, "kernels": kernels(torch.device(device)), **checked(registry, device)}


def kernels(device: torch.device) -> list[str]:
    """Return the classes of the kernel back ends of a device, in the order in which they are asked."""
    from ..nn.kernels import dispatch

    return [type(backend).__name__ for backend in dispatch.backends_for(device)]


def checked(registry: Registry, device: str) -> dict[str, Any]:
    """Encode and decode a second of silence by the first model that needs no download."""
    entry = next((entry for entry in registry if entry.spec.weights.package and not entry.spec.is_continuous), None)
    if entry is None:
        return {"model": None, "seconds": None, "error": None}
    import numpy as np

    codec = registry.provider(entry.qualified_name, LoadOptions(device=device))
    silence = np.zeros((codec.channels, codec.sample_rate), np.float32)
    error = None
    try:
        codec.decode(codec.encode(silence, codec.sample_rate))
        started = time.perf_counter()
        codec.decode(codec.encode(silence, codec.sample_rate))
        seconds: float | None = round(time.perf_counter() - started, 4)
    except CodecError as trouble:
        seconds, error = None, f"{type(trouble).__name__}: {trouble}"
    return {"model": entry.qualified_name, "seconds": seconds, "error": error}


def caches() -> Iterator[tuple[str, Path, str]]:
    """Yield the folders where downloads and compiled kernels are kept, and the suffix of the files that count."""
    from .. import weights

    yield "downloads of the Hub", weights.hub_cache(LoadOptions()), ""
    yield "other downloads", weights.cache_folder(LoadOptions()), ""
    kept = os.environ.get("NUMBA_CACHE_DIR")
    yield "compiled kernels", Path(kept) if kept else Path(__file__).parents[1] / "nn" / "kernels" / "cpu", ".loop"


def size_of(folder: Path, suffix: str) -> dict[str, int]:
    """Count the files below a folder, and their bytes; links are not followed."""
    files = size = 0
    for here, _, names in os.walk(folder):
        for name in names:
            path = Path(here, name)
            if name.endswith(suffix) and not path.is_symlink() and path.exists():
                files, size = files + 1, size + path.stat().st_size
    return {"files": files, "bytes": size}


def _short(path: str | Path) -> str:
    """Return a path without the name of the user."""
    home = str(Path.home())
    return "~" + str(path)[len(home) :] if str(path).startswith(home + os.sep) else str(path)


def show(found: dict[str, Any]) -> None:
    """Print the report as lines."""
    for name in ("core", "python", "system"):
        click.echo(f"{name:<12} {found[name]}")
    _rows("packages", [f"{name} {version}" for name, version in found["packages"].items()])
    plugins = [(f"{row['distribution']} {row['version']}", row["error"]) for row in found["plugins"]]
    _rows("plugins", [f"{name}, BROKEN: {error}" if error else name for name, error in plugins])
    _rows("processor", [f"{name} {value}" for name, value in found["processor"].items() if value is not None])
    for row in found["devices"]:
        parts = [row["name"], ", ".join(row["kernels"])]
        if row["model"]:
            runs = f"FAILS: {row['error']}" if row["error"] else f"takes {row['seconds']} s for a second of audio"
            parts.append(f"{row['model']} {runs}")
        _rows(row["device"], parts)
    for row in found["caches"]:
        click.echo(f"{'cache':<12} {row['what']}: {row['bytes'] / 1e6:.1f} MB in {row['files']} files, {row['path']}")
    _rows("weights", found["weights"])
    _rows("environment", [f"{name}={value}" for name, value in found["environment"].items()])


def _rows(title: str, parts: list[str]) -> None:
    click.echo(f"{title:<12} {'; '.join(parts) or 'none'}")

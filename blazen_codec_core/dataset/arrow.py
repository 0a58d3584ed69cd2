"""Lazy imports of pyarrow, an optional dependency."""

from __future__ import annotations

from typing import Any

from ..errors import EngineNotAvailable


def parquet() -> Any:
    """Return `pyarrow.parquet`; raise `EngineNotAvailable` if it is not installed."""
    arrow()
    import pyarrow.parquet

    return pyarrow.parquet


def arrow() -> Any:
    """Return `pyarrow`; raise `EngineNotAvailable` if it is not installed."""
    try:
        import pyarrow
    except ImportError as error:
        raise EngineNotAvailable("Parquet needs pyarrow: pip install 'blazen-codec-core[dataset]'") from error
    return pyarrow

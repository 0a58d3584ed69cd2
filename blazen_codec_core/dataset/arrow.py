"""Lazy imports of pyarrow, an optional dependency."""

from __future__ import annotations

from typing import Any

from ..installation import missing


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
        raise missing("Parquet needs pyarrow", "dataset") from error
    return pyarrow

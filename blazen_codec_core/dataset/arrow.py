"""Arrow and its Parquet, which come with an extra."""

from __future__ import annotations

from typing import Any

from ..errors import EngineNotAvailable


def parquet() -> Any:
    """`pyarrow.parquet`; raises `EngineNotAvailable` where it is not installed."""
    arrow()
    import pyarrow.parquet

    return pyarrow.parquet


def arrow() -> Any:
    """`pyarrow`; raises `EngineNotAvailable` where it is not installed."""
    try:
        import pyarrow
    except ImportError as error:
        raise EngineNotAvailable("Parquet needs pyarrow: pip install 'blazen-codec-core[dataset]'") from error
    return pyarrow

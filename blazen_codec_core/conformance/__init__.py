"""Conformance kit: contracts for codec plugins, run with `pytest --codec NAME` or by a subclass of `Contracts`.

Needs the extra `conformance`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .contracts import ContinuousContracts, Contracts
    from .subject import Subject

__all__ = ["ContinuousContracts", "Contracts", "Subject"]
_HOME = {"Contracts": "contracts", "ContinuousContracts": "contracts", "Subject": "subject"}


def __getattr__(name: str) -> Any:  # lazy, because every pytest loads this package if core is installed
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)

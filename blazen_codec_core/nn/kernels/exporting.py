"""Mode of the dispatcher for graphs that other runtimes run: PyTorch's own operations alone, on signals of symbolic lengths.

Layers run as where gradients are recorded, without kernels that write to memory. A step of a symbolic length is a signal's last.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

_is_exporting = ContextVar("is_exporting", default=False)


def is_exporting() -> bool:
    """Tell whether kernels are for a graph that is exported. `torch.compile` makes none, and cannot trace a context variable."""
    return not torch.compiler.is_dynamo_compiling() and _is_exporting.get()


def is_symbolic(frames: object) -> bool:
    """Tell whether a number of frames is a symbol, so that nothing may depend on its value."""
    return isinstance(frames, torch.SymInt)


@contextmanager
def exporting() -> Iterator[None]:
    """Context in which kernels are chosen for a graph, and layers run in operations that can be traced."""
    token = _is_exporting.set(True)
    try:
        with torch.enable_grad():
            yield
    finally:
        _is_exporting.reset(token)

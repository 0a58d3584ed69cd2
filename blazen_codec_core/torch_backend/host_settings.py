"""Isolation from the settings of PyTorch that the host program has made.

Settings of the calling thread are changed for the duration of a call. The default dtype belongs to the whole process, so it is
not changed; tensors created here name their dtype. The one exception is the precision of float32 products, which belongs to the
process and has no other switch. If the host has lowered it, it is full while networks run, and the host's again afterwards.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from ..forks import Anew, is_forked_child
from ..nn.kernels.thread_counts import available_threads, threads

_CPU = torch.device("cpu")
_AUTOCAST_DEVICES = ("cpu", "cuda", "mps")
"""Types of the devices on which networks run."""
_PRODUCTS: Mapping[str, Any] = {
    **{name: getattr(torch.backends.mkldnn, name) for name in ("matmul", "conv", "rnn")},
    "cuda": torch.backends.cuda.matmul,
}
"""Operations whose precision is set; convolutions of cuDNN have a scope of their own."""
_EXACT = frozenset({"none", "ieee"})


class _FullPrecision:
    """Full precision of float32 products, while any call needs it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls = 0
        self._lowered: dict[str, str] = {}

    @contextmanager
    def scope(self) -> Iterator[None]:
        """Context of a call."""
        with self._lock:
            if not self._calls:
                values = {name: operation.fp32_precision for name, operation in _PRODUCTS.items()}
                self._lowered = {name: value for name, value in values.items() if value not in _EXACT}
                for name in self._lowered:
                    _PRODUCTS[name].fp32_precision = "ieee"
            self._calls += 1
        try:
            yield
        finally:
            with self._lock:
                self._calls -= 1
                if not self._calls:
                    for name, value in self._lowered.items():
                        self._restore(_PRODUCTS[name], value)

    @staticmethod
    def _restore(operation: Any, value: str) -> None:
        operation.fp32_precision = "none"  # inherits what the host has set for all operations
        if operation.fp32_precision != value:
            operation.fp32_precision = value


_full_precision = Anew(_FullPrecision)


@contextmanager
def isolated_settings() -> Iterator[None]:
    """Context without autocast, with the CPU as the default device, exact products, and no more threads than are available.

    A forked child has one thread. OpenMP keeps its threads from one parallel loop to the next, and a fork has none of them. The
    next loop would wait for them forever, at least in GNU's OpenMP.
    """
    autocasts = [kind for kind in _AUTOCAST_DEVICES if torch.is_autocast_enabled(kind)]
    has_other_default = _has_other_default_device()
    count = 1 if is_forked_child() else available_threads()
    has_excess_threads = count < torch.get_num_threads()
    with _full_precision.own.scope(), ExitStack() as stack:
        for kind in autocasts:
            stack.enter_context(torch.autocast(kind, enabled=False))
        if has_other_default:
            stack.enter_context(_CPU)
        if has_excess_threads:
            stack.enter_context(threads(count))
        yield


def _has_other_default_device() -> bool:
    """Tell whether the default device of the thread is not the CPU."""
    try:
        return torch.get_default_device() != _CPU
    except Exception:  # PyTorch raises errors of several types for a missing device
        return True


_has_other_default_device()  # the first call imports a part of PyTorch, which a later fork would not wait for

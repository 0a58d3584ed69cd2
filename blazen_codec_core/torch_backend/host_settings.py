"""Isolation from the settings of PyTorch that the host program has made.

Only settings of the calling thread are changed, for the duration of a call. The default dtype belongs to the whole process, so
it is not changed; tensors created here name their dtype.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

from ..forks import is_forked_child
from ..nn.kernels.thread_counts import available_threads, threads

_CPU = torch.device("cpu")
_AUTOCAST_DEVICES = ("cpu", "cuda", "mps")
"""Types of the devices on which networks run."""


@contextmanager
def isolated_settings() -> Iterator[None]:
    """Context without autocast, with the CPU as the default device, and with no more threads than are available.

    A forked child has one thread. OpenMP keeps its threads from one parallel loop to the next, and a fork has none of them. The
    next loop would wait for them forever, at least in GNU's OpenMP.
    """
    autocasts = [kind for kind in _AUTOCAST_DEVICES if torch.is_autocast_enabled(kind)]
    has_other_default = _has_other_default_device()
    count = 1 if is_forked_child() else available_threads()
    has_excess_threads = count < torch.get_num_threads()
    if not (autocasts or has_other_default or has_excess_threads):
        yield
        return
    with ExitStack() as stack:
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

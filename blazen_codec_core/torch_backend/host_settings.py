"""Settings of PyTorch that whoever calls us has made for their own work, kept away from ours.

Only those of the calling thread are changed, for as long as a call lasts. The default dtype belongs to the whole process, so it
is not changed; whatever is made here names its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

from ..forks import is_forked_child
from ..nn.kernels.thread_counts import threads, threads_to_be_had

_CPU = torch.device("cpu")
_AUTOCAST = ("cpu", "cuda", "mps")
"""Types of device on which networks run."""


@contextmanager
def own_settings() -> Iterator[None]:
    """No autocast, tensors on the CPU where nothing else is said, and no more threads than there will be.

    In a forked child that is one. OpenMP keeps its threads from one parallel loop to the next. A fork has none of them, and
    its next loop would wait for them forever, in GNU's OpenMP at least; numba ends such a process.
    """
    casts = [kind for kind in _AUTOCAST if torch.is_autocast_enabled(kind)]
    elsewhere = _is_elsewhere()
    count = 1 if is_forked_child() else threads_to_be_had()
    fewer = count < torch.get_num_threads()
    if not (casts or elsewhere or fewer):
        yield
        return
    with ExitStack() as stack:
        for kind in casts:
            stack.enter_context(torch.autocast(kind, enabled=False))
        if elsewhere:
            stack.enter_context(_CPU)
        if fewer:
            stack.enter_context(threads(count))
        yield


def _is_elsewhere() -> bool:
    try:
        return torch.get_default_device() != _CPU
    except Exception:  # what PyTorch raises of a device that is not there
        return True


_is_elsewhere()  # PyTorch imports a part of itself the first time, and no fork waits for that later

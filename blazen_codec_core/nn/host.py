"""Settings of PyTorch that whoever calls us has made for their own work, kept away from ours.

Only those of the calling thread are changed, for as long as a call lasts. The default dtype belongs to the whole process, so it
is not changed; whatever is made here names its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

from ..forks import is_forked_child
from .one_thread import one_thread

_CPU = torch.device("cpu")
_AUTOCAST = ("cpu", "cuda", "mps")
"""Types of device on which networks run."""


@contextmanager
def own_settings() -> Iterator[None]:
    """No autocast, tensors on the CPU where nothing else is said, and in a forked child a single thread.

    OpenMP keeps its threads from one parallel loop to the next. A fork has none of them, and its next loop would wait for them
    forever, in GNU's OpenMP at least; numba ends such a process.
    """
    casts = [kind for kind in _AUTOCAST if torch.is_autocast_enabled(kind)]
    elsewhere = torch.get_default_device() != _CPU
    if not (casts or elsewhere or is_forked_child()):
        yield
        return
    with ExitStack() as stack:
        for kind in casts:
            stack.enter_context(torch.autocast(kind, enabled=False))
        if elsewhere:
            stack.enter_context(_CPU)
        if is_forked_child():
            stack.enter_context(one_thread())
        yield

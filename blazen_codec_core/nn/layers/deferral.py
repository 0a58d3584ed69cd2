"""Parameters without memory, for networks of which only a part will get values."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils.weak import WeakIdKeyDictionary


class Deferral:
    """Parameters that a thread has deferred: replaced by ones on PyTorch's device `meta`, which have no memory."""

    def __init__(self) -> None:
        self._deferred = WeakIdKeyDictionary()
        """Replacements, by the originals."""
        self._memory: list[StorageWeakRef] = []
        """Memory of the originals."""

    @property
    def is_complete(self) -> bool:
        """Tell whether nothing else refers to the memory of the originals; it would not get the values of the replacements."""
        return all(memory.expired() for memory in self._memory)  # type: ignore[no-untyped-call]  # PyTorch's

    def defer(self, module: nn.Module) -> None:
        """Replace the parameters of a module and of those in it; shared ones stay shared."""
        for inner in module.modules():
            for name, parameter in list(inner.named_parameters(recurse=False, remove_duplicate=False)):
                if not parameter.is_meta:
                    setattr(inner, name, self.replacement(parameter))  # a recurrent layer of PyTorch lists its weights

    def replacement(self, parameter: nn.Parameter) -> nn.Parameter:
        """Parameter of the same shape and dtype without memory."""
        if parameter.is_meta:
            return parameter
        if parameter not in self._deferred:
            self._deferred[parameter] = nn.Parameter(parameter.to("meta"), requires_grad=parameter.requires_grad)
            self._memory.append(StorageWeakRef(parameter.untyped_storage()))  # type: ignore[no-untyped-call]
        replacement: nn.Parameter = self._deferred[parameter]
        return replacement


class _Current(threading.local):
    deferral: Deferral | None = None


_current = _Current()


def current_deferral() -> Deferral | None:
    """Deferral of this thread, if it constructs modules in `deferred_parameters`."""
    return _current.deferral


@contextmanager
def deferred_parameters() -> Iterator[Deferral]:
    """Context in which `StreamingModule`s that this thread constructs have parameters without memory.

    PyTorch's own modules are constructed as usual. Their parameters are replaced when a `StreamingModule` gets them as an
    attribute. Buffers and other tensors keep their memory.
    """
    _current.deferral = deferral = Deferral()
    try:
        yield deferral
    finally:
        _current.deferral = None

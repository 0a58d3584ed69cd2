"""Guard of every run of a network: inference mode, settings of PyTorch, errors, cancellation and forks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from .. import cancellation
from ..errors import CodecError, InferenceError, reason
from ..forks import held_off
from .host_settings import isolated_settings


@contextmanager
def inference_guard(inference: bool = True) -> Iterator[None]:
    """Context that runs a network: inference mode on or off and isolated settings, whatever the caller's are.

    Forks of other threads wait until it ends.

    Args:
        inference: Enable inference mode, or disable it.

    Raises:
        InferenceError: The task was cancelled before the context began, or PyTorch raised an error in it.
    """
    cancellation.check()
    try:
        with held_off(), torch.inference_mode(inference), isolated_settings():
            yield
    except CodecError:
        raise
    except (RuntimeError, MemoryError, IndexError, ValueError) as error:
        raise InferenceError(f"the network failed: {reason(error)}") from error

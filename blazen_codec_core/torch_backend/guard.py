"""The guard around every run of a network: inference mode, the settings of the host, errors, and forks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from .. import cancellation
from ..errors import CodecError, InferenceError, reason
from ..forks import held_off
from .host_settings import own_settings


@contextmanager
def inference_guard(inference: bool = True) -> Iterator[None]:
    """Inference mode, or certainly not, and settings of our own, whatever the caller's; torch's errors become `InferenceError`.

    Not even begun where the task that asked for it was cancelled. Forks of other threads wait.
    """
    cancellation.check()
    try:
        with held_off(), torch.inference_mode(inference), own_settings():
            yield
    except CodecError:
        raise
    except (RuntimeError, MemoryError, IndexError, ValueError) as error:
        raise InferenceError(f"the network failed while running: {reason(error)}") from error

"""Guard of every run of a network: inference mode, settings of PyTorch, errors, cancellation and forks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from .. import cancellation
from ..errors import CodecError, InferenceError, reason
from ..forks import held_off, helping
from ..nn.kernels.thread_counts import one_thread
from .cpu_threads import usable_threads
from .host_settings import isolated_settings

NETWORK_ERRORS = (RuntimeError, MemoryError, IndexError, ValueError)
"""What PyTorch and kernels raise in a network."""


def network_failure(error: BaseException) -> InferenceError:
    """Error for callers of a network that failed."""
    return InferenceError(f"the network failed: {reason(error)}")


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
    except NETWORK_ERRORS as error:
        raise network_failure(error) from error


@contextmanager
def network_guard(device: torch.device, *, is_native: bool = True) -> Iterator[int]:
    """`inference_guard` of a network on a device; yield the number of threads that may work for the calling one.

    On a CPU, each of them computes alone, so that results do not depend on their number.

    Args:
        is_native: The network is a `CodecNetwork`. Others have one caller, whose operations may use all of PyTorch's threads.
    """
    with inference_guard():
        if device.type != "cpu" or not is_native:
            yield 1
            return
        threads = usable_threads()
        with one_thread():
            yield threads


@contextmanager
def helper_guard() -> Iterator[None]:
    """Context of a thread that works for another one within its `network_guard`."""
    with helping(), torch.inference_mode(), isolated_settings(), one_thread():
        yield

"""A remark that kernels are being compiled, for those who wait for it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..nn.kernels.backends import load_cpu_backend

log = logging.getLogger(__name__)
REMARK = "compiling kernels for this processor, once, for up to a minute; blazen-codec warm-up does it ahead"
_said: list[str] = []


@contextmanager
def remarked() -> Iterator[None]:
    """Log `REMARK` at level INFO if numba compiles in this block, once a process. Kernels in its cache are not compiled."""
    if _said or load_cpu_backend() is None:
        yield
        return
    from numba.core import event

    class Listener(event.Listener):  # type: ignore[misc]
        def on_start(self, event: Any) -> None:
            if not _said:
                _said.append(REMARK)
                log.info(REMARK)

        def on_end(self, event: Any) -> None:
            pass

    with event.install_listener("numba:compile", Listener()):
        yield

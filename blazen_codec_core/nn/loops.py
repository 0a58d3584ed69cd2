"""Whether there are compiled loops."""

from __future__ import annotations

import functools
from typing import Any


@functools.cache
def load_loops() -> Any:
    """`fused`, its loops compiled, where numba is installed to compile them; the first time it takes a second."""
    try:
        from . import fused
    except ImportError:
        return None
    return fused

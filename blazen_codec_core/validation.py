"""What values are, before anything is known of who passed them."""

from __future__ import annotations

from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from .errors import CodecError, InvalidTokens


def is_whole(value: object) -> TypeGuard[int]:
    """Whether this is a whole number; `True` is none."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def check_count(name: str, value: object, least: int) -> int:
    """Raises `InvalidTokens` unless what is called so is a whole number from `least` on."""
    if not is_whole(value) or value < least:
        raise InvalidTokens(f"{name} is a whole number from {least} on, not {value!r}")
    return int(value)


def as_array(values: Any, complaint: str, kind: type[CodecError] = InvalidTokens) -> NDArray[Any]:
    """Anything as an array; an error of this kind, beginning with the complaint, where it can be none.

    Tensors may be on any device and may need gradients. Nothing but the methods they bring is asked for that.
    """
    try:
        for method in ("detach", "cpu"):
            values = getattr(values, method)() if hasattr(values, method) else values
        if hasattr(values, "__dlpack__") and not hasattr(values, "__array__"):
            return np.from_dlpack(values)
        return np.asarray(values)
    except Exception as error:  # whatever the object's own conversion raises
        raise kind(f"{complaint}: {error}") from error

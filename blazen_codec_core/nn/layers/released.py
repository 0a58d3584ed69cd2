"""Parameters whose values a prepared kernel holds in its own order, so that a network on a CPU does not hold them twice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

REFUSAL = (
    "this weight was released when its network was prepared: only a kernel holds it. network.state_dict() and "
    "weight.detach() rebuild it exactly; to train or to change it, load the state dict into a new network"
)


class ReleasedParameter(nn.Parameter):
    """Parameter with a shape and a dtype, and without values of its own. `detach` rebuilds these; any other use raises.

    Args:
        parameter: The parameter that it replaces.
        rebuild: Function that returns the values.
    """

    _rebuild: Callable[[], Tensor]
    is_meta = False  # `load_state_dict` would pass over it, with a warning

    def __new__(cls, parameter: Tensor, rebuild: Callable[[], Tensor]) -> ReleasedParameter:
        released: ReleasedParameter = super().__new__(cls, parameter.detach().to("meta"), requires_grad=False)
        released._rebuild = rebuild
        return released

    def __init__(self, parameter: Tensor, rebuild: Callable[[], Tensor]) -> None:
        super().__init__()

    def __deepcopy__(self, memo: dict[int, Any]) -> ReleasedParameter:
        return self

    def __repr__(self) -> str:  # type: ignore[override]
        return f"ReleasedParameter({tuple(self.shape)}, {self.dtype})"

    def detach(self) -> Tensor:
        return self._rebuild()

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None) -> Any:
        try:
            with torch._C.DisableTorchFunctionSubclass():
                result = func(*args, **(kwargs or {}))
        except (RuntimeError, TypeError) as error:
            raise RuntimeError(REFUSAL) from error
        if isinstance(result, Tensor) and func is not Tensor.requires_grad_:
            raise RuntimeError(REFUSAL)
        return result

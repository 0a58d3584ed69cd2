"""ConvNeXt blocks that stream.

Source: Liu et al. 2022, "A ConvNet for the 2020s".
"""

from __future__ import annotations

from .activation import GELU, LayerScale
from .containers import Residual, Sequential
from .conv import Conv1d
from .norm import LayerNorm


def convnext_block(channels: int, *, kernel: int = 7, expansion: int = 4, epsilon: float = 1e-6, scale: float = 0.1) -> Residual:
    """Causal ConvNeXt block: a depthwise convolution, a norm, two projections around a GELU, a scale, and a shortcut.

    Args:
        expansion: Ratio of the channels between the projections and outside.
        epsilon: Least variance that the norm divides by.
        scale: First value of the scales of all channels.
    """
    branch = [
        Conv1d(channels, channels, kernel, padding=(kernel - 1, 0), groups=channels),
        LayerNorm(channels, epsilon),
        Conv1d(channels, expansion * channels, 1),
        GELU(),
        Conv1d(expansion * channels, channels, 1),
        LayerScale(channels, scale),
    ]
    return Residual(channels, Sequential(branch))

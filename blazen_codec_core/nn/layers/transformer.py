"""Transformer layers that stream."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..kernels.epilogue import IDENTITY, Epilogue
from .activation import GELU, LayerScale
from .base import Layer, State, StreamingModule, StreamSetup
from .causal_attention import AttentionState, CausalAttention
from .conv import Conv1d
from .fusion import Pointwise, activate
from .norm import ChannelNorm, LayerNorm


class FeedForward(StreamingModule):
    """Two projections around an activation; gated, the activation of one projection times another (Shazeer 2020, "GLU variants").

    Args:
        hidden: Channels between the projections.
        activation: Activation; GELU by default.
        gated: Multiply by a second projection of the input.
        bias: The projections have biases.
    """

    def __init__(
        self, channels: int, hidden: int, *, activation: Pointwise | None = None, gated: bool = False, bias: bool = False
    ) -> None:
        super().__init__()
        self.to_hidden = Conv1d(channels, hidden, 1, bias=bias)
        self.to_gate = Conv1d(channels, hidden, 1, bias=bias) if gated else None
        self.activation = activation or GELU()
        self.to_out = Conv1d(hidden, channels, 1, bias=bias)

    def hidden(self, x: Tensor, last: bool) -> Tensor:
        """Input of the last projection, `(batch, frames, hidden)`."""
        first = self.to_gate or self.to_hidden
        if torch.is_grad_enabled():
            h = self.activation.differentiable(first.project(x, last))
            return h if self.to_gate is None else h * self.to_hidden.project(x, last)
        h = project(first, x, last, self.activation.activation)
        return h if self.to_gate is None else h.mul_(self.to_hidden.project(x, last))


def project(layer: Conv1d, x: Tensor, last: bool, epilogue: Epilogue) -> Tensor:
    """Projection with an epilogue, which is fused if the layer takes one. It records no gradients."""
    if layer.takes_epilogue:
        return layer.project(x, last, epilogue)
    y = layer.project(x, last)
    if epilogue.activation != IDENTITY.activation:
        y = activate(epilogue.with_residual(None), y)
    return y if epilogue.residual is None else y.add_(epilogue.residual)


@dataclasses.dataclass
class TransformerState(State):
    attention: AttentionState


class TransformerLayer(Layer):
    """Attention and feed-forward, each after a norm, with a scale a channel and a shortcut around it ("pre-norm").

    Args:
        attention: The attention.
        feed_forward: The feed-forward part.
        norm: Makes a norm for a number of channels.
        scale: First value of the scales; `None` for no scales.
    """

    def __init__(
        self,
        attention: CausalAttention,
        feed_forward: FeedForward,
        *,
        norm: Callable[[int], ChannelNorm] = LayerNorm,
        scale: float | None = None,
    ) -> None:
        super().__init__()
        channels = self.channels = attention.channels
        self.attention_norm, self.attention = norm(channels), attention
        self.feed_forward_norm, self.feed_forward = norm(channels), feed_forward
        self.attention_scale = None if scale is None else LayerScale(channels, scale)
        self.feed_forward_scale = None if scale is None else LayerScale(channels, scale)

    def init_state(self, setup: StreamSetup) -> TransformerState:
        return TransformerState(self.attention.init_state(setup))

    @property
    def benefits_from_batching(self) -> bool:
        return self.attention.to_qkv.takes_epilogue

    def step(self, x: Tensor, state: TransformerState, last: bool) -> Tensor:
        return self._run([x], [state], last)[0]

    def step_many(self, xs: Sequence[Tensor], states: Sequence[TransformerState], lasts: Sequence[bool]) -> list[Tensor]:
        if not self.benefits_from_batching or torch.is_grad_enabled():
            return super().step_many(xs, states, lasts)
        return self._run(xs, states, any(lasts))

    def _run(self, xs: Sequence[Tensor], states: Sequence[TransformerState], last: bool) -> list[Tensor]:
        """Run streams; the weights are read once for all of their frames."""
        x = xs[0] if len(xs) == 1 else torch.cat([signal.reshape(1, -1, self.channels) for signal in xs], dim=1)
        qkv = self.attention.to_qkv.project(self.attention_norm.normalize(x), last)
        if len(xs) == 1:
            y = self.attention.attend(qkv, states[0].attention)
        else:
            parts = torch.split(qkv, [signal.shape[0] * signal.shape[1] for signal in xs], dim=1)
            made = [
                self.attention.attend(part.reshape(*signal.shape[:2], part.shape[2]), state.attention)
                for part, signal, state in zip(parts, xs, states, strict=True)
            ]
            y = torch.cat([signal.reshape(1, -1, signal.shape[2]) for signal in made], dim=1)
        x = self._add(x, self.attention.to_out, y, self.attention_scale, last)
        y = self.feed_forward.hidden(self.feed_forward_norm.normalize(x), last)
        x = self._add(x, self.feed_forward.to_out, y, self.feed_forward_scale, last)
        if len(xs) == 1:
            return [x]
        parts = torch.split(x, [signal.shape[0] * signal.shape[1] for signal in xs], dim=1)
        return [part.reshape(signal.shape) for part, signal in zip(parts, xs, strict=True)]

    @staticmethod
    def _add(x: Tensor, layer: Conv1d, y: Tensor, scale: LayerScale | None, last: bool) -> Tensor:
        """`x` plus the scaled projection of `y`."""
        if torch.is_grad_enabled():
            made = layer.project(y, last)
            return x + (made if scale is None else scale.differentiable(made))
        activation = IDENTITY if scale is None else scale.activation
        return project(layer, y, last, activation.with_residual(x))

"""Padding before a signal begins and after it has ended."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import InferenceError
from ..kernels import dispatch
from ..kernels.epilogue import IDENTITY, Epilogue
from ..kernels.exporting import is_symbolic
from .base import COUNTS, Layer, State, StreamSetup
from .fusion import activate


@dataclasses.dataclass
class SignalLengths(State):
    """Total number of frames of each signal in a batch; `None` if all have the same."""

    frames: tuple[int, ...] | None

    def take(self, rows: Sequence[int]) -> SignalLengths:
        return self if self.frames is None else SignalLengths(tuple(self.frames[row] for row in rows))


@dataclasses.dataclass
class LengthState(State):
    """State of a layer that needs the length of each signal."""

    lengths: SignalLengths
    seen: Any = dataclasses.field(metadata={COUNTS: True})

    def remaining(self) -> tuple[int, ...] | None:
        """Frames still to come of each signal; `None` if all have the same."""
        frames = self.lengths.frames
        return None if frames is None or len(set(frames)) == 1 else tuple(count - self.seen for count in frames)


def length_tensor(frames: tuple[int, ...], x: Tensor) -> Tensor:
    """Lengths as a tensor `(batch,)` on the device of `x`."""
    return torch.tensor(frames, dtype=torch.int32, device=x.device)


def assemble_input(
    tail: Tensor,
    x: Tensor,
    left: int,
    right: int,
    prologue: Epilogue = IDENTITY,
    *,
    lengths: tuple[int, ...] | None = None,
    allow_tf32: bool = False,
) -> Tensor:
    """`[tail | left zeros | prologue(x) | right zeros]` in one buffer.

    Args:
        prologue: An activation; `IDENTITY` where gradients are recorded.
        lengths: Frames of `x` that each signal still has; the rest of its row is zeros.
        allow_tf32: The frames of `x` are rounded to TF32, where kernels gain from it.
    """
    batch, frames, channels = x.shape
    start = tail.shape[1] + left
    if not start + right and lengths is None:
        return activate(prologue, x)
    if torch.is_grad_enabled():
        return torch.cat([tail, F.pad(_masked(x, lengths), (0, 0, left, right))], dim=1)
    out = x.new_empty(batch, start + frames + right, channels)
    counts = None if lengths is None else length_tensor(lengths, x)
    dispatch.elementwise(x.device, x.dtype).assemble_input(tail, x, left, prologue, out, counts, allow_tf32=allow_tf32)
    return out


def _masked(x: Tensor, lengths: tuple[int, ...] | None) -> Tensor:
    """`x` with zeros from each signal's length on."""
    if lengths is None:
        return x
    frame = torch.arange(x.shape[1], device=x.device)
    return x.masked_fill((frame >= length_tensor(lengths, x)[:, None])[:, :, None], 0)


class Padding(Layer):
    """Frames before a signal begins and after it has ended, which a convolution may add while it copies its input."""

    @abstractmethod
    def assemble(
        self, tail: Tensor, x: Tensor, state: Any, last: bool, prologue: Epilogue = IDENTITY, *, allow_tf32: bool = False
    ) -> Tensor:
        """Input of a convolution: the `tail` of earlier frames, then `step` of the activation `prologue` of `x`.

        Args:
            allow_tf32: See `assemble_input`.
        """


@dataclasses.dataclass
class ZeroState(LengthState):
    begun: bool


class ZeroPadding(Padding):
    """Zeros before and after the signal."""

    def __init__(self, left: int, right: int) -> None:
        super().__init__()
        self.left, self.right = left, right

    def init_state(self, setup: StreamSetup) -> ZeroState:
        return ZeroState(SignalLengths(setup.lengths), 0, begun=False)

    def assemble(
        self, tail: Tensor, x: Tensor, state: ZeroState, last: bool, prologue: Epilogue = IDENTITY, *, allow_tf32: bool = False
    ) -> Tensor:
        lengths = state.remaining() if last else None
        left, right = 0 if state.begun else self.left, self.right if last else 0
        state.begun, state.seen = True, state.seen + x.shape[1]
        return assemble_input(tail, x, left, right, prologue, lengths=lengths, allow_tf32=allow_tf32)

    def step(self, x: Tensor, state: ZeroState, last: bool) -> Tensor:
        return self.assemble(x[:, :0], x, state, last)

    def frames_out(self, frames: int, last: bool) -> int:
        return self.left + frames + (self.right if last else 0)


@dataclasses.dataclass
class ReflectState(LengthState):
    """State of `ReflectPadding`.

    Attributes:
        waiting: The signal so far, until there is enough of it to mirror.
        recent: The last frames from then on.
        begun: Frames have come out.
    """

    waiting: Tensor
    recent: Tensor
    begun: bool

    def signature(self) -> tuple[Any, ...]:
        return *super().signature(), None if self.begun else self.seen


class ReflectPadding(Padding):
    """Reflection padding to a multiple of `stride` frames.

        3 2 1 | 0 1 2 3 4 5 6 7 8 | 7 6 5        left and right are 3

    Frames that a signal lacks to a multiple of `stride` are mirrored as well. A signal too short to be mirrored is first extended
    by zeros, as far as the longer padding needs; these count as padding.

    The rule for short signals is that of Défossez et al. 2022, "High Fidelity Neural Audio Compression".

    Args:
        left: Frames before the signal. Output begins once `left + 1` frames are in.
        right: Frames after the signal.
        stride: Stride of the convolution that follows.
    """

    def __init__(self, channels: int, left: int, right: int, stride: int = 1) -> None:
        super().__init__()
        self.channels, self.left, self.right, self.stride = channels, left, right, stride
        self.max_right = right + stride - 1
        """Most frames of right padding."""
        self.needed = left + 1
        """Input frames needed before any come out."""

    def init_state(self, setup: StreamSetup) -> ReflectState:
        return ReflectState(
            SignalLengths(setup.lengths), 0, setup.zeros(0, self.channels), setup.zeros(0, self.channels), begun=False
        )

    def right_padding(self, frames: int) -> int:
        """Frames of right padding of a signal of `frames` frames."""
        return self.right + -frames % self.stride

    def frames_out(self, frames: int, last: bool) -> int:
        if last:
            return self.left + frames + self.right_padding(frames) if frames else 0
        return self.left + frames if frames >= self.needed else 0

    def step(self, x: Tensor, state: ReflectState, last: bool) -> Tensor:
        if is_symbolic(x.shape[1]):
            return self._pad_symbolic(x, state)
        if last and (frames := state.remaining()) is not None:
            return self._pad_ragged(x, frames, state)
        state.seen += x.shape[1]
        if state.waiting.shape[1]:
            x = torch.cat([state.waiting, x], dim=1)
        if not state.begun and not last and state.seen < self.needed:
            state.waiting = x
            return x[:, :0]
        self._remember(x, state)
        parts = [x]
        if not state.begun:
            state.begun, state.waiting = True, x[:, :0].clone()
            if self.left and state.seen:
                parts.insert(0, self._left_part(x))
        if last and state.seen and self.right_padding(state.seen):
            parts.append(self._right_part(state))
        return torch.cat(parts, dim=1) if len(parts) > 1 else x

    def assemble(
        self, tail: Tensor, x: Tensor, state: ReflectState, last: bool, prologue: Epilogue = IDENTITY, *, allow_tf32: bool = False
    ) -> Tensor:
        frames, ragged = x.shape[1], last and state.remaining() is not None
        if ragged or torch.is_grad_enabled() or not self.reflects_at_once(frames, state, last):
            return assemble_input(tail, self.step(activate(prologue, x), state, last), 0, 0)
        left, right = self.pads_for_step(frames, state, last)
        out = assemble_input(tail, x, left, right, prologue, allow_tf32=allow_tf32)
        end = out.shape[1] - right
        self.mirror(out, slice(end - frames, end), left, right, state)
        return out

    def reflects_at_once(self, frames: int, state: ReflectState, last: bool) -> bool:
        """Tell whether the next frames come out at once, and contain all frames to be mirrored around them."""
        begins = state.begun or (not state.seen and frames >= self.needed)
        return begins and (not last or frames > self.max_right)

    def pads_for_step(self, frames: int, state: ReflectState, last: bool) -> tuple[int, int]:
        """Numbers of mirrored frames before and after the frames of this step."""
        left = 0 if state.begun else self.left
        state.begun, state.seen = True, state.seen + frames
        return left, self.right_padding(state.seen) if last else 0

    def mirror(self, x: Tensor, signal: slice, left: int, right: int, state: ReflectState) -> None:
        """Mirror the frames `signal` of `x` into the `left` frames before and the `right` frames after them, in place."""
        start, end = signal.start, signal.stop
        x[:, start - left : start] = x[:, start + 1 : start + left + 1].flip(1)
        x[:, end : end + right] = x[:, end - right - 1 : end - 1].flip(1)
        self._remember(x[:, signal], state)

    def _pad_ragged(self, x: Tensor, frames: tuple[int, ...], state: ReflectState) -> Tensor:
        if not self.reflects_at_once(min(frames), state, True):
            raise InferenceError("a signal too short to be mirrored cannot be batched; run it by itself")
        left, right = self.pads_for_step(x.shape[1], state, True)
        x = F.pad(x, (0, 0, left, right))
        if left:
            x[:, :left] = x[:, left + 1 : 2 * left + 1].flip(1)
        frame, lengths = torch.arange(x.shape[1], device=x.device), (length_tensor(frames, x) + left)[:, None]
        frame = torch.where(frame < lengths, frame, (2 * (lengths - 1) - frame).clamp(min=0))
        return x.gather(1, frame[:, :, None].expand_as(x))

    def _pad_symbolic(self, x: Tensor, state: ReflectState) -> Tensor:
        """`step` of the last frames, in operations that are the same for any number of them."""
        left, right = 0 if state.begun else self.left, self.right_padding(state.seen + x.shape[1])
        known = torch.cat([state.recent, x], dim=1) if state.begun else x
        frame = torch.arange(state.recent.shape[1] if state.begun else -left, known.shape[1] + right, device=x.device)
        count = torch.scalar_tensor(known.shape[1], dtype=torch.int64, device=x.device)
        return self._padded_frames(known, frame, count, left, right)

    def _padded_frames(self, x: Tensor, frame: Tensor, count: Tensor, left: int, right: int) -> Tensor:
        """Frames of the padded signal, by their numbers in the signal `x` of `count` frames."""
        extended = torch.maximum(count, torch.scalar_tensor(right + 1, dtype=torch.int64, device=x.device)).clamp(min=left + 1)
        frame = torch.minimum(frame.abs(), 2 * (extended - 1) - frame.abs())
        return x.index_select(1, torch.minimum(frame, count - 1)).masked_fill((frame >= count)[None, :, None], 0)

    def _left_part(self, x: Tensor) -> Tensor:
        """Frames before the signal, which begins with `x`."""
        extended = F.pad(x, (0, 0, 0, max(0, self.left + 1 - x.shape[1])))
        return extended[:, 1 : self.left + 1].flip(1)

    def _remember(self, x: Tensor, state: ReflectState) -> None:
        if self.max_right:
            recent = torch.cat([state.recent, x], dim=1) if x.shape[1] <= self.max_right else x
            state.recent = recent[:, -self.max_right - 1 :].clone()

    def _right_part(self, state: ReflectState) -> Tensor:
        """Zeros that extend a short signal, then the mirrored end."""
        count = self.right_padding(state.seen)
        zeros = max(0, max(self.left, count) + 1 - state.seen)
        end = F.pad(state.recent, (0, 0, 0, zeros))
        return torch.cat([end[:, state.recent.shape[1] :], end[:, :-1].flip(1)], dim=1)[:, :count]


class EdgePadding(ReflectPadding):
    """Padding by the first and last frame, or by zeros; otherwise as `ReflectPadding`.

        0 0 0 | 0 1 2 3 4 5 6 7 8 | 8 8 8        left and right are 3

    Args:
        silent: Pad with zeros.
    """

    def __init__(self, channels: int, left: int, right: int, stride: int = 1, *, silent: bool) -> None:
        super().__init__(channels, left, right, stride)
        self.needed, self.silent = 1, silent

    def mirror(self, x: Tensor, signal: slice, left: int, right: int, state: ReflectState) -> None:
        start, end = signal.start, signal.stop
        x[:, start - left : start] = 0 if self.silent else x[:, start : start + 1]
        x[:, end : end + right] = 0 if self.silent else x[:, end - 1 : end]
        self._remember(x[:, signal], state)

    def _pad_ragged(self, x: Tensor, frames: tuple[int, ...], state: ReflectState) -> Tensor:
        if not self.reflects_at_once(min(frames), state, True):
            raise InferenceError("a signal shorter than its padding cannot be batched; run it by itself")
        left, right = self.pads_for_step(x.shape[1], state, True)
        first = self._left_part(x) if left else x[:, :0]
        x = F.pad(torch.cat([first, x], dim=1), (0, 0, 0, right))
        frame, lengths = torch.arange(x.shape[1], device=x.device), (length_tensor(frames, x) + left)[:, None]
        if self.silent:
            return x.masked_fill((frame >= lengths)[:, :, None], 0)
        return x.gather(1, torch.minimum(frame, lengths - 1)[:, :, None].expand_as(x))

    def _padded_frames(self, x: Tensor, frame: Tensor, count: Tensor, left: int, right: int) -> Tensor:
        inside = torch.minimum(frame.clamp(min=0), count - 1)
        padded = x.index_select(1, inside)
        return padded.masked_fill((frame != inside)[None, :, None], 0) if self.silent else padded

    def _left_part(self, x: Tensor) -> Tensor:
        return self._repeated(x[:, :1], self.left)

    def _right_part(self, state: ReflectState) -> Tensor:
        return self._repeated(state.recent[:, -1:], self.right_padding(state.seen))

    def _repeated(self, frame: Tensor, count: int) -> Tensor:
        frame = torch.zeros_like(frame) if self.silent else frame
        return frame.expand(-1, count, -1)


@dataclasses.dataclass
class CropState(State):
    held: Tensor
    to_drop: int


class Crop(Layer):
    """Drop the first `left` and the last `right` frames of a signal."""

    def __init__(self, channels: int, left: int, right: int) -> None:
        super().__init__()
        self.channels, self.left, self.right = channels, left, right

    def init_state(self, setup: StreamSetup) -> CropState:
        return CropState(setup.zeros(0, self.channels), self.left)

    def frames_out(self, frames: int, last: bool) -> int:
        return max(0, frames - self.left - self.right)

    def step(self, x: Tensor, state: CropState, last: bool) -> Tensor:
        if state.held.shape[1]:
            x = torch.cat([state.held, x], dim=1)
        if is_symbolic(x.shape[1]):
            return x[:, state.to_drop : x.shape[1] - self.right]
        drop = min(state.to_drop, x.shape[1])
        state.to_drop -= drop
        ready = max(drop, x.shape[1] - self.right)
        state.held = x[:, ready:].clone()
        return x[:, drop:ready]


def same_padding(span: int, stride: int, causal: bool) -> tuple[int, int]:
    """Left and right padding with which a convolution gives one frame for every `stride`; all on the left if causal."""
    total = span - stride
    right = 0 if causal else total // 2
    return total - right, right

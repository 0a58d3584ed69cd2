"""Padding before a signal begins and after it has ended."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import InferenceError
from .base import COUNTS, Layer, State, StreamSetup


@dataclasses.dataclass
class SignalLengths(State):
    """Total number of frames of each signal in a batch; `None` if all signals have the same."""

    frames: tuple[int, ...] | None

    def take(self, rows: Sequence[int]) -> SignalLengths:
        return self if self.frames is None else SignalLengths(tuple(self.frames[row] for row in rows))


@dataclasses.dataclass
class LengthState(State):
    """State of a layer that must know where each signal ends."""

    ends: SignalLengths
    seen: int = dataclasses.field(metadata={COUNTS: True})

    def left(self) -> tuple[int, ...] | None:
        """Number of frames still to come of each signal; `None` if all signals have the same."""
        frames = self.ends.frames
        return None if frames is None or len(set(frames)) == 1 else tuple(count - self.seen for count in frames)


def counted(frames: tuple[int, ...], x: Tensor) -> Tensor:
    """`(batch,)`, where the signal is."""
    return torch.tensor(frames, dtype=torch.int32, device=x.device)


@dataclasses.dataclass
class ZeroState(LengthState):
    begun: bool


class ZeroPadding(Layer):
    """So many zeros before the signal and after it."""

    def __init__(self, left: int, right: int) -> None:
        super().__init__()
        self.left, self.right = left, right

    def init_state(self, setup: StreamSetup) -> ZeroState:
        return ZeroState(SignalLengths(setup.ends), 0, begun=False)

    def now(self, frames: int, state: ZeroState, last: bool) -> tuple[int, int]:
        """Numbers of zeros before and after the frames of this step."""
        left, right = 0 if state.begun else self.left, self.right if last else 0
        state.begun, state.seen = True, state.seen + frames
        return left, right

    def step(self, x: Tensor, state: ZeroState, last: bool) -> Tensor:
        left, right = self.now(x.shape[1], state, last)
        return F.pad(x, (0, 0, left, right)) if left or right else x

    def frames_out(self, frames: int, last: bool) -> int:
        return self.left + frames + (self.right if last else 0)


@dataclasses.dataclass
class ReflectState(LengthState):
    """`waiting` is the signal until there is enough of it to reflect; `recent` its last frames from then on."""

    waiting: Tensor
    recent: Tensor
    begun: bool


class ReflectPadding(Layer):
    """The signal mirrored at its ends, after a multiple of `stride` frames.

        3 2 1 | 0 1 2 3 4 5 6 7 8 | 7 6 5        left and right are 3

    The frames that a signal lacks to a multiple of `stride` are mirrored in as well. A signal too short to be mirrored is
    extended by zeros first, as far as the longer of the two paddings needs, and they count as padding.

    The rule for short signals is that of Défossez et al. 2022, "High Fidelity Neural Audio Compression".

    Args:
        left: Frames before the signal, which begins to come out when `left + 1` frames are in.
        right: Frames after it.
        stride: Of the convolution that follows.
    """

    def __init__(self, channels: int, left: int, right: int, stride: int = 1) -> None:
        super().__init__()
        self.channels, self.left, self.right, self.stride = channels, left, right, stride
        self.most = right + stride - 1
        """The most frames that can follow the signal."""
        self.needed = left + 1
        """Frames that must be in before any come out."""

    def init_state(self, setup: StreamSetup) -> ReflectState:
        return ReflectState(
            SignalLengths(setup.ends), 0, setup.zeros(0, self.channels), setup.zeros(0, self.channels), begun=False
        )

    def after(self, frames: int) -> int:
        """Number of mirrored frames after a signal of `frames` frames."""
        return self.right + -frames % self.stride

    def frames_out(self, frames: int, last: bool) -> int:
        if last:
            return self.left + frames + self.after(frames) if frames else 0
        return self.left + frames if frames >= self.needed else 0

    def step(self, x: Tensor, state: ReflectState, last: bool) -> Tensor:
        if last and (frames := state.left()) is not None:
            return self._each_end(x, frames, state)
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
                parts.insert(0, self._start(x))
        if last and state.seen and self.after(state.seen):
            parts.append(self._end(state))
        return torch.cat(parts, dim=1) if len(parts) > 1 else x

    def plain(self, frames: int, state: ReflectState, last: bool) -> bool:
        """Tell whether the next frames come out at once, and hold all that is to be mirrored around them."""
        begins = state.begun or (not state.seen and frames >= self.needed)
        return begins and (not last or frames > self.most)

    def now(self, frames: int, state: ReflectState, last: bool) -> tuple[int, int]:
        """Numbers of mirrored frames before and after the frames of this step."""
        left = 0 if state.begun else self.left
        state.begun, state.seen = True, state.seen + frames
        return left, self.after(state.seen) if last else 0

    def mirror(self, x: Tensor, plain: slice, left: int, right: int, state: ReflectState) -> None:
        """Writes mirror images of plain frames, which are those in the slice of x, over so many before and after them."""
        start, end = plain.start, plain.stop
        x[:, start - left : start] = x[:, start + 1 : start + left + 1].flip(1)
        x[:, end : end + right] = x[:, end - right - 1 : end - 1].flip(1)
        self._remember(x[:, plain], state)

    def _each_end(self, x: Tensor, frames: tuple[int, ...], state: ReflectState) -> Tensor:
        if not self.plain(min(frames), state, True):
            raise InferenceError("a signal too short to be mirrored cannot run beside others")
        left, right = self.now(x.shape[1], state, True)
        x = F.pad(x, (0, 0, left, right))
        if left:
            x[:, :left] = x[:, left + 1 : 2 * left + 1].flip(1)
        place, ends = torch.arange(x.shape[1], device=x.device), (counted(frames, x) + left)[:, None]
        place = torch.where(place < ends, place, (2 * (ends - 1) - place).clamp(min=0))
        return x.gather(1, place[:, :, None].expand_as(x))

    def _start(self, x: Tensor) -> Tensor:
        """Frames before the signal, which begins with x."""
        enough = F.pad(x, (0, 0, 0, max(0, self.left + 1 - x.shape[1])))
        return enough[:, 1 : self.left + 1].flip(1)

    def _remember(self, x: Tensor, state: ReflectState) -> None:
        if self.most:
            known = torch.cat([state.recent, x], dim=1) if x.shape[1] <= self.most else x
            state.recent = known[:, -self.most - 1 :].clone()

    def _end(self, state: ReflectState) -> Tensor:
        """The zeros of a short signal, then the mirrored end."""
        count = self.after(state.seen)
        zeros = max(0, max(self.left, count) + 1 - state.seen)
        end = F.pad(state.recent, (0, 0, 0, zeros))
        return torch.cat([end[:, state.recent.shape[1] :], end[:, :-1].flip(1)], dim=1)[:, :count]


class EdgePadding(ReflectPadding):
    """The signal continued at its ends, after a multiple of `stride` frames, as `ReflectPadding` otherwise.

        0 0 0 | 0 1 2 3 4 5 6 7 8 | 8 8 8        left and right are 3

    Args:
        silent: Zeros before and after it, in place of its first and its last frame.
    """

    def __init__(self, channels: int, left: int, right: int, stride: int = 1, *, silent: bool) -> None:
        super().__init__(channels, left, right, stride)
        self.needed, self.silent = 1, silent

    def mirror(self, x: Tensor, plain: slice, left: int, right: int, state: ReflectState) -> None:
        start, end = plain.start, plain.stop
        x[:, start - left : start] = 0 if self.silent else x[:, start : start + 1]
        x[:, end : end + right] = 0 if self.silent else x[:, end - 1 : end]
        self._remember(x[:, plain], state)

    def _each_end(self, x: Tensor, frames: tuple[int, ...], state: ReflectState) -> Tensor:
        if not self.plain(min(frames), state, True):
            raise InferenceError("a signal shorter than its padding cannot run beside others")
        left, right = self.now(x.shape[1], state, True)
        first = self._start(x) if left else x[:, :0]
        x = F.pad(torch.cat([first, x], dim=1), (0, 0, 0, right))
        place, ends = torch.arange(x.shape[1], device=x.device), (counted(frames, x) + left)[:, None]
        if self.silent:
            return x.masked_fill((place >= ends)[:, :, None], 0)
        return x.gather(1, torch.minimum(place, ends - 1)[:, :, None].expand_as(x))

    def _start(self, x: Tensor) -> Tensor:
        return self._repeated(x[:, :1], self.left)

    def _end(self, state: ReflectState) -> Tensor:
        return self._repeated(state.recent[:, -1:], self.after(state.seen))

    def _repeated(self, frame: Tensor, count: int) -> Tensor:
        frame = torch.zeros_like(frame) if self.silent else frame
        return frame.expand(-1, count, -1)


@dataclasses.dataclass
class CropState(State):
    held: Tensor
    to_drop: int


class Crop(Layer):
    """Drops the first `left` frames of a signal, and its last `right`."""

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
        drop = min(state.to_drop, x.shape[1])
        state.to_drop -= drop
        ready = max(drop, x.shape[1] - self.right)
        state.held = x[:, ready:].clone()
        return x[:, drop:ready]


def same_padding(span: int, stride: int, causal: bool) -> tuple[int, int]:
    """The paddings with which a convolution gives a frame for every `stride` frames: all before the signal if causal."""
    total = span - stride
    right = 0 if causal else total // 2
    return total - right, right


Padding = ZeroPadding | ReflectPadding

"""Streams over a network: the signal is cut on a fixed grid of tiles, whatever pieces it arrives in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..backend import CodecBackend, DecoderSession, EncoderSession, Pcm
from ..errors import CodecError, InferenceError, InvalidInput, InvalidTokens, reason
from ..tokens import CodecTokens
from .layer import StreamSetup
from .network import CodecNetwork


@contextmanager
def running(inference: bool = True) -> Iterator[None]:
    """Inference mode, or certainly not, whatever the caller's; torch's own errors become `InferenceError`."""
    try:
        with torch.inference_mode(inference):
            yield
    except CodecError:
        raise
    except (RuntimeError, MemoryError, IndexError, ValueError) as error:
        raise InferenceError(f"the network failed while running: {reason(error)}") from error


class Tiles:
    """Collects a signal of `(streams, time)` and gives it back in tiles of equal length."""

    def __init__(self, streams: int, length: int, dtype: np.dtype[Any]) -> None:
        self._buffer = np.zeros((streams, length), dtype)
        self.filled = 0

    def push(self, piece: NDArray[Any]) -> Iterator[NDArray[Any]]:
        """Every tile that `piece` completes; all is stored once they have been taken."""
        at, length = 0, self._buffer.shape[1]
        while piece.shape[1] - at >= length - self.filled:
            end = at + length - self.filled
            self.store(piece[:, at:end])
            at, self.filled = end, 0
            yield self._buffer.copy()
        self.store(piece[:, at:])

    def store(self, piece: NDArray[Any]) -> None:
        """Adds what does not go beyond the tile."""
        self._buffer[:, self.filled : self.filled + piece.shape[1]] = piece
        self.filled += piece.shape[1]

    def rest(self) -> NDArray[Any]:
        """What is left at the end of the signal."""
        return self._buffer[:, : self.filled].copy()


def worst_delay(tile: int, covered: Callable[[int], int], step: int) -> int:
    """The most input, in its own units, that can be in and not yet covered by the output.

    Args:
        tile: How much runs at a time.
        covered: How much of the input the output covers once that many units have run.
        step: The smallest amount pushed.
    """
    return max((n + 1) * tile - step - covered(n * tile) for n in range(64))


class OneSignal:
    """A session is of one signal: it ends when that ends, or when the network fails half way."""

    _ended = False

    def _check_open(self) -> None:
        if self._ended:
            raise InvalidInput("this session has ended; open another one")

    @contextmanager
    def _step(self) -> Iterator[None]:
        """Around a step of the network."""
        try:
            with running():
                yield
        except CodecError:
            self._ended = True
            raise


class TileEncoderSession(OneSignal, EncoderSession):
    """Audio in tiles through the encoder and the quantizer."""

    def __init__(
        self, backend: CodecBackend, network: CodecNetwork, setup: StreamSetup, channels: int, tile_frames: int, weights: str
    ) -> None:
        self._backend, self._network, self._setup = backend, network, setup
        self._channels, self._tile, self._weights = channels, tile_frames * backend.spec.hop_length, weights
        self._tiles = Tiles(channels, self._tile, np.dtype(np.float32))
        self._pushed = self._ran = self._frames = self._covered = 0
        with running():
            self._state = network.encoder_state(setup)
        self._none = self._run([], 0, last=False)

    @property
    def latency_samples(self) -> int:
        hop = self._backend.spec.hop_length
        return worst_delay(self._tile, lambda samples: self._network.frames_encoded(samples, False) * hop, 1)

    def push(self, pcm: object) -> CodecTokens:
        self._check_open()
        array = self._backend.check_pcm(pcm, self._backend.sample_rate, empty=True)
        if array.shape[0] != self._channels:
            raise InvalidInput(f"this session is of {self._channels} channels, the audio has {array.shape[0]}")
        self._pushed += array.shape[1]
        ready = self._pushed - self._pushed % self._tile
        if ready == self._ran:
            self._tiles.store(array)
            return self._none
        return self._run(self._tiles.push(array), ready, last=False)

    def finish(self) -> CodecTokens:
        self._check_open()
        if not self._pushed:
            raise InvalidInput("the audio is empty: nothing was pushed")
        spec = self._backend.spec
        padding = -self._pushed % (spec.block_frames * spec.hop_length)
        rest = np.pad(self._tiles.rest(), ((0, 0), (0, padding)))
        tokens = self._run([rest], self._pushed + padding, last=True)
        self._ended = True
        return tokens

    def _run(self, tiles: Iterable[NDArray[Any]], ready: int, last: bool) -> CodecTokens:
        """Runs the tiles up to sample `ready`, into arrays of the final size: small ones that outlive the large ones between
        them would fragment the heap, until an hour of audio takes gigabytes."""
        spec, network = self._backend.spec, self._network
        start, self._ran = self._frames, ready
        self._frames = network.frames_encoded(ready, last)
        codes = [np.empty((self._channels, (self._frames - start) // stride), np.int32) for stride in spec.strides]
        at = 0
        for tile in tiles:
            with self._step():
                x = torch.from_numpy(tile).to(self._setup.device, self._setup.dtype)[..., None]
                indices = network.encode_step(x, self._state, last)
                end = at + indices[0].shape[1] * spec.strides[0]
                for code, index, stride in zip(codes, indices, spec.strides, strict=True):
                    code[:, at // stride : end // stride] = index.cpu().numpy()
            at = end
        samples = self._pushed - self._covered if last else at * spec.hop_length
        self._covered += samples
        return CodecTokens.from_codes(spec, codes, num_samples=samples, weights=self._weights)


class TileDecoderSession(OneSignal, DecoderSession):
    """Tokens in tiles through the decoder."""

    def __init__(
        self, backend: CodecBackend, network: CodecNetwork, setup: Callable[[int], StreamSetup], tile_frames: int
    ) -> None:
        self._backend, self._network, self._setup_of = backend, network, setup
        self._tile = tile_frames
        self._first: CodecTokens | None = None
        self._frames = self._samples = self._made = self._returned = 0

    @property
    def latency_samples(self) -> int:
        spec = self._backend.spec
        hop = spec.hop_length
        return worst_delay(
            self._tile * hop, lambda samples: self._network.samples_decoded(samples // hop, False), spec.block_frames * hop
        )

    def push(self, tokens: CodecTokens) -> Pcm:
        self._check_open()
        self._backend.check_tokens(tokens, part=True)
        if self._first is None:
            self._begin(tokens)
        assert self._first is not None
        self._first.check_joins(tokens)
        if tokens.num_samples and self._samples < self._frames * tokens.hop_length:
            raise InvalidTokens("the audio of the tokens before these has ended: these are of another recording")
        self._frames += tokens.frames
        self._samples += tokens.num_samples
        tiles = [book.push(code) for book, code in zip(self._tiles, tokens.codes, strict=True)]
        return self._run(zip(*tiles, strict=True), self._frames - self._frames % self._tile, last=False)

    def finish(self) -> Pcm:
        self._check_open()
        if not self._frames:
            raise InvalidTokens("there are no tokens: nothing was pushed")
        self._backend.check_blocks(self._frames)
        audio = self._run([[book.rest() for book in self._tiles]], self._frames, last=True)
        self._ended = True
        return audio

    def _begin(self, tokens: CodecTokens) -> None:
        self._first = tokens
        self._setup = self._setup_of(tokens.streams)
        self._tiles = [Tiles(tokens.streams, self._tile // stride, np.dtype(np.int32)) for stride in tokens.strides]
        with running():
            self._state = self._network.decoder_state(self._setup)

    def _run(self, tiles: Iterable[Sequence[NDArray[Any]]], ready: int, last: bool) -> Pcm:
        """Runs the tiles up to frame `ready`, into an array of the final size, and leaves out what is past the end."""
        start, self._made = self._made, self._network.samples_decoded(ready, last)
        audio = np.empty((self._setup.batch, self._made - start), np.float32)
        at = 0
        for tile in tiles:
            with self._step():
                indices = [torch.from_numpy(codes).to(self._setup.device) for codes in tile]
                y = self._network.decode_step(indices, self._state, last)[..., 0]
                audio[:, at : at + y.shape[1]] = y.float().cpu().numpy()
            at += y.shape[1]
        audio = audio[:, : self._samples - self._returned]
        self._returned += audio.shape[1]
        return audio

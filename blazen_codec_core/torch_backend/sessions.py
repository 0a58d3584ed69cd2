"""Streams over a network: the signal is cut on a fixed grid of tiles, whatever pieces it arrives in."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..backend import CodecBackend, DecoderSession, EncoderSession
from ..checks import check_blocks, check_piece
from ..errors import CodecError, InvalidInput, InvalidTokens
from ..nn.codec_network import CodecNetwork
from ..nn.layers.base import State, StreamSetup
from ..tokens.tokens import CodecTokens
from ..validation import Pcm
from .guard import inference_guard
from .transfers import codes_to_host, to_device, to_host


class TileBuffer:
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
        """Copy of the incomplete tile that is left at the end of the signal."""
        return self._buffer[:, : self.filled].copy()


def max_latency(tile: int, covered: Callable[[int], int], step: int) -> int:
    """The most input, in its own units, that can be in and not yet covered by the output.

    Args:
        tile: How much runs at a time.
        covered: How much of the input the output covers once that many units have run.
        step: The smallest amount pushed.
    """
    return max((n + 1) * tile - step - covered(n * tile) for n in range(64))


def samples_to_first_output(tile: int, made: Callable[[int], int]) -> int:
    """Amount of input that is in when the first output comes out.

    Args:
        tile: How much runs at a time.
        made: How much has come out once that many units have run.
    """
    return next(n * tile for n in itertools.count(1) if made(n * tile))


def signals(pcm: Sequence[Pcm], length: int, channels: int, setup: StreamSetup) -> Tensor:
    """Audio `(streams * channels, samples)` to the `(streams, length, channels)` of a network, with zeros after it."""
    x = to_device(pcm, length, setup.device)
    return x.reshape(x.shape[0] // channels, channels, length).to(setup.dtype).transpose(1, 2)


def audio(y: Tensor) -> Pcm:
    """Convert a network's output `(streams, samples, channels)` to audio `(streams * channels, samples)`; see `to_host`."""
    return to_host(y.transpose(1, 2).flatten(0, 1).float())


class SessionBase:
    """A session is of one signal: it ends when that ends, or when the network fails half way."""

    _ended = False

    def _check_open(self) -> None:
        if self._ended:
            raise InvalidInput("this session has ended; open another one")

    @contextmanager
    def _step(self) -> Iterator[None]:
        """Around a step of the network."""
        try:
            with inference_guard():
                yield
        except CodecError:
            self._ended = True
            raise


class DecoderSessionBase(SessionBase):
    """The tokens that a decoder session is given have to belong together."""

    def __init__(self, backend: CodecBackend) -> None:
        self._backend = backend
        self._label = backend.weights_label  # at the start: a session keeps its weights
        self._first: CodecTokens | None = None
        self._continues = True
        self._frames = self._samples = self._returned = 0

    def _accept(self, tokens: CodecTokens) -> CodecTokens:
        """Checks and counts the next tokens; returns the first that there were."""
        self._check_open()
        self._backend.check_tokens(tokens, part=True)
        self._backend.check_weights(tokens, self._label)
        if tokens.loudness is not None:
            raise InvalidTokens(
                "the level of these tokens depends on how loud all of their audio is: decode them whole, or remove it with "
                "dataclasses.replace(tokens, loudness=None)"
            )
        first = self._first or tokens
        first.check_joins(tokens)
        if not self._continues and (tokens.num_samples or (tokens.segment and tokens.frames)):
            raise InvalidTokens("the audio of the tokens before these has ended: these are of another recording")
        self._first, self._continues = first, self._continues and tokens.continues
        self._frames += tokens.frames
        self._samples += tokens.num_samples
        return first

    def _check_complete(self) -> None:
        self._check_open()
        if not self._frames:
            raise InvalidTokens("there are no tokens: nothing was pushed")
        check_blocks(self._backend.spec, self._frames)

    def _trimmed(self, made: Pcm) -> Pcm:
        """Without what is past the end of the signal."""
        made = made[:, : self._samples - self._returned]
        self._returned += made.shape[1]
        return made


class TileEncoderSession(SessionBase, EncoderSession):
    """Audio in tiles through the encoder and the quantizer.

    Args:
        setup: With a row for each stream.
        channels: Of the audio.
        books: How many of the first codebooks are used.
        weights: Which weights the network has, for the tokens to say.
    """

    def __init__(
        self,
        backend: CodecBackend,
        network: CodecNetwork,
        setup: StreamSetup,
        *,
        channels: int,
        books: int,
        tile_frames: int,
        weights: str,
    ) -> None:
        self._backend, self._network, self._setup = backend, network, setup
        self._channels, self._tile, self._weights = channels, tile_frames * backend.spec.hop_length, weights
        self._strides = backend.spec.strides[:books]
        self._tiles = TileBuffer(channels, self._tile, np.dtype(np.float32))
        self._pushed = self._ran = self._frames = self._covered = 0
        with inference_guard():
            self._state = network.encoder_state(setup, books)
        self._none = self._run([], 0, last=False)

    def _covered_by(self, samples: int) -> int:
        return self._network.frames_encoded(samples, False) * self._backend.spec.hop_length

    @property
    def latency_samples(self) -> int:
        return max_latency(self._tile, self._covered_by, 1)

    @property
    def first_samples(self) -> int:
        return samples_to_first_output(self._tile, self._covered_by)

    def push(self, pcm: object) -> CodecTokens:
        self._check_open()
        array = check_piece(self._backend.spec, pcm, self._channels)
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
        padding = self._backend.spec.missing_samples(self._pushed)
        rest = np.pad(self._tiles.rest(), ((0, 0), (0, padding)))
        tokens = self._run([rest], self._pushed + padding, last=True)
        self._ended = True
        return tokens

    def _run(self, tiles: Iterable[NDArray[Any]], ready: int, last: bool) -> CodecTokens:
        """Runs the tiles up to sample `ready`, into arrays of the final size: small ones that outlive the large ones between
        them would fragment the heap, until an hour of audio takes gigabytes.
        """
        spec, network, strides = self._backend.spec, self._network, self._strides
        start, self._ran = self._frames, ready
        self._frames = network.frames_encoded(ready, last)
        codes = [np.empty((self._setup.batch, (self._frames - start) // stride), np.int32) for stride in strides]
        at = 0
        for tile in tiles:
            with self._step():
                x = signals([tile], tile.shape[1], spec.channels, self._setup)
                indices = codes_to_host(network.encode_step(x, self._state, last))
                end = at + indices[0].shape[1] * strides[0]
                for code, index, stride in zip(codes, indices, strides, strict=True):
                    code[:, at // stride : end // stride] = index
            at = end
        samples = self._pushed - self._covered if last else at * spec.hop_length
        self._covered += samples
        return CodecTokens.from_codes(spec, codes, num_samples=samples, weights=self._weights)


class StreamingDecoder(Protocol):
    """Network methods that a session needs to decode; see `CodecNetwork`."""

    def decoder_state(self, setup: StreamSetup) -> State: ...
    def decode_step(self, indices: Sequence[Tensor], state: Any, last: bool) -> Tensor: ...
    def samples_decoded(self, frames: int, last: bool) -> int: ...


class TileDecoderSession(DecoderSessionBase, DecoderSession):
    """Tokens in tiles through the decoder."""

    def __init__(
        self, backend: CodecBackend, network: CodecNetwork, setup: Callable[[int], StreamSetup], tile_frames: int
    ) -> None:
        super().__init__(backend)
        self._network: StreamingDecoder = network
        self._setup_of, self._tile = setup, tile_frames
        self._made = 0

    @property
    def latency_samples(self) -> int:
        spec = self._backend.spec
        hop = spec.hop_length
        return max_latency(
            self._tile * hop, lambda samples: self._network.samples_decoded(samples // hop, False), spec.block_frames * hop
        )

    def push(self, tokens: CodecTokens) -> Pcm:
        begun = self._first is not None
        first = self._accept(tokens)
        if not begun:
            self._begin(first)
        tiles = [book.push(code) for book, code in zip(self._tiles, tokens.codes, strict=True)]
        return self._run(zip(*tiles, strict=True), self._frames - self._frames % self._tile, last=False)

    def finish(self) -> Pcm:
        self._check_complete()
        made = self._run([[book.rest() for book in self._tiles]], self._frames, last=True)
        self._ended = True
        return made

    def _begin(self, tokens: CodecTokens) -> None:
        """Makes ready for tokens such as these, the first."""
        self._setup = self._setup_of(tokens.streams)
        self._tiles = [TileBuffer(tokens.streams, self._tile // stride, np.dtype(np.int32)) for stride in tokens.strides]
        with inference_guard():
            self._state = self._network.decoder_state(self._setup)

    def _run(self, tiles: Iterable[Sequence[NDArray[Any]]], ready: int, last: bool) -> Pcm:
        """Runs the tiles up to frame `ready`, into an array of the final size."""
        start, self._made = self._made, self._network.samples_decoded(ready, last)
        made = np.empty((self._setup.batch * self._backend.channels, self._made - start), np.float32)
        at = 0
        for tile in tiles:
            with self._step():
                indices = [torch.from_numpy(codes).to(self._setup.device) for codes in tile]
                y = audio(self._network.decode_step(indices, self._state, last))
                made[:, at : at + y.shape[1]] = y
            at += y.shape[1]
        return self._trimmed(made)

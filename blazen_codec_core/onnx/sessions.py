"""Sessions over exported graphs: the streams of a signal run one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..checks import check_begun, check_piece
from ..sessions import DecoderSession, EncoderSession, ends_on_failure
from ..specs import CodecSpec
from ..token_stream import TokenStream
from ..tokens.tokens import CodecTokens
from ..validation import Pcm
from .manifest import AUDIO, NUM_CODEBOOKS, Part, Stream, code_names
from .runtime import Arrays, GraphStream, Runtime

if TYPE_CHECKING:
    from ..backend import CodecBackend


def encoder_inputs(spec: CodecSpec, pcm: Pcm) -> list[Arrays]:
    """Inputs of the encoder for each stream of audio `(channels, samples)`."""
    return [{AUDIO: pcm[start : start + spec.channels][None]} for start in range(0, pcm.shape[0], spec.channels)]


def decoder_inputs(spec: CodecSpec, codes: Sequence[NDArray[Any]]) -> list[Arrays]:
    """Inputs of the decoder for each stream of codes `(streams, frames / stride)`; codebooks that are not used are zeros."""
    (streams, count), strides = codes[0].shape, spec.strides
    unused = [np.zeros((streams, count * strides[0] // stride), np.int64) for stride in strides[len(codes) :]]
    rows = zip(*(code[:, None].astype(np.int64) for code in [*codes, *unused]), strict=True)
    return [{**dict(zip(code_names(spec), row, strict=True)), NUM_CODEBOOKS: np.array([len(codes)])} for row in rows]


def codes_of(spec: CodecSpec, outputs: Sequence[Sequence[Arrays]], num_codebooks: int) -> list[NDArray[np.int32]]:
    """Codes `(streams, frames / stride)` of the first codebooks from the outputs of each stream."""
    empty = np.zeros((1, 0), np.int64)
    names = code_names(spec)[:num_codebooks]
    rows = [[np.concatenate([empty, *(output[name] for output in stream)], 1) for name in names] for stream in outputs]
    return [np.concatenate(codes).astype(np.int32) for codes in zip(*rows, strict=True)]


def audio_of(spec: CodecSpec, outputs: Sequence[Sequence[Arrays]]) -> Pcm:
    """Audio `(channels, samples)` from the outputs of each stream."""
    empty = np.zeros((spec.channels, 0), np.float32)
    return np.concatenate([np.concatenate([empty, *(output[AUDIO][0] for output in stream)], 1) for stream in outputs])


def first_blocks(stream: Stream) -> int:
    """Blocks after which the first output comes out."""
    gives_output = any(value.shape[-1] for value in stream.begin.outputs[:1])
    return stream.begin.blocks + (0 if gives_output else stream.step.blocks)


class GraphEncoderSession(EncoderSession):
    """Encoder session of one signal."""

    def __init__(self, backend: CodecBackend, runtime: Runtime, part: Part, channels: int, num_codebooks: int) -> None:
        super().__init__()
        self._spec, self._label, self._part = backend.spec, runtime.manifest.label, part
        self._channels, self._num_codebooks = channels, num_codebooks
        self._stream = part.existing_stream
        self._streams = [GraphStream(runtime, part, None) for _ in range(channels // self._spec.channels)]
        self._pushed = self._covered = 0

    @property
    def latency_samples(self) -> int:
        return self._stream.latency_samples

    @property
    def first_samples(self) -> int:
        return first_blocks(self._stream) * self._part.block_samples

    def _push(self, chunk: Any) -> CodecTokens:
        pcm = check_piece(self._spec, chunk, self._channels)
        self._pushed += pcm.shape[1]
        return self._run(pcm, last=False)

    def _finish(self) -> CodecTokens:
        check_begun(self._pushed)
        return self._run(np.zeros((self._channels, self._spec.missing_samples(self._pushed)), np.float32), last=True)

    @ends_on_failure
    def _run(self, pcm: Pcm, last: bool) -> CodecTokens:
        """Tokens of the tiles that audio completes, and of the rest if the signal ends with it."""
        inputs = encoder_inputs(self._spec, pcm)
        outputs = [stream.run(row, last) for stream, row in zip(self._streams, inputs, strict=True)]
        codes = codes_of(self._spec, outputs, self._num_codebooks)
        frames = codes[0].shape[1] * self._spec.strides[0]
        samples = self._pushed - self._covered if last else frames * self._spec.hop_length
        self._covered += samples
        return CodecTokens.from_codes(self._spec, codes, num_samples=samples, weights=self._label)

    def _free(self) -> None:
        self._streams = []


class GraphDecoderSession(DecoderSession):
    """Decoder session of one signal.

    Args:
        seed: As for `runtime.Noise`.
    """

    def __init__(self, backend: CodecBackend, runtime: Runtime, part: Part, seed: int | None) -> None:
        super().__init__()
        self._spec, self._tokens, self._part = backend.spec, TokenStream(backend), part
        self._new_stream = partial(GraphStream, runtime, part, seed)
        self._stream = part.existing_stream
        self._streams: list[GraphStream] = []

    @property
    def latency_samples(self) -> int:
        return self._stream.latency_samples

    @property
    def first_frames(self) -> int:
        return first_blocks(self._stream) * self._spec.block_frames

    def _push(self, chunk: CodecTokens) -> Pcm:
        first = self._tokens.accept(chunk)
        self._streams = self._streams or [self._new_stream() for _ in range(first.streams)]
        return self._run(decoder_inputs(self._spec, chunk.codes), last=False)

    def _finish(self) -> Pcm:
        self._tokens.check_complete()
        assert self._tokens.first is not None
        return self._run(decoder_inputs(self._spec, [code[:, :0] for code in self._tokens.first.codes]), last=True)

    @ends_on_failure
    def _run(self, inputs: Sequence[Arrays], last: bool) -> Pcm:
        """Audio of the tiles that codes complete, and of the rest if the signal ends with them."""
        outputs = [stream.run(row, last) for stream, row in zip(self._streams, inputs, strict=True)]
        return self._tokens.trim(audio_of(self._spec, outputs))

    def _free(self) -> None:
        self._streams = []

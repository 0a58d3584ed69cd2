"""Messages between a server of codecs and its clients, and their binary forms; docs/serving.md describes the protocol."""

from __future__ import annotations

import math
from typing import Annotated, Literal, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from . import errors
from .errors import CodecError, InvalidInput, InvalidTokens, NotYetImplemented, ServiceError, reason
from .specs import CodecSpec, Direction, Latency
from .tokens.layouts import Errors
from .tokens.tokens import CodecTokens
from .validation import Pcm

T = TypeVar("T")
SampleFormat = Literal["pcm16", "float32"]
TokenForm = Literal["int32", "container"]
PCM_TYPES: dict[SampleFormat, np.dtype[np.generic]] = {"pcm16": np.dtype("<i2"), "float32": np.dtype("<f4")}
FULL_SCALE = 1 << 15
LARGEST_MESSAGE = 1 << 20
"""Largest message in bytes, in either direction."""
MOST_TOKEN_BYTES = 512
"""Longest bearer token."""

ERRORS: dict[str, type[CodecError]] = {
    "unknown_codec": errors.UnknownCodec,
    "plugin_error": errors.PluginError,
    "engine_not_available": errors.EngineNotAvailable,
    "device_unavailable": errors.DeviceUnavailable,
    "weights_unavailable": errors.WeightsUnavailable,
    "pool_full": errors.PoolFull,
    "invalid_input": errors.InvalidInput,
    "invalid_tokens": errors.InvalidTokens,
    "corrupt_file": errors.CorruptFile,
    "inference_error": errors.InferenceError,
    "not_yet_implemented": errors.NotYetImplemented,
}
"""Error classes of codecs by their codes; more special classes first."""
SERVICE_CODES = {
    "protocol": "a message or a query that the protocol does not have",
    "unauthorized": "no bearer token, or an unknown one",
    "forbidden": "a page of another origin",
    "too_large": "more bytes or more audio than the server takes",
    "too_many": "more streams or requests at once than one client may have",
    "busy": "all places are taken, of the server",
    "draining": "the server is about to end, and opens no streams",
    "stalled": "the client sent nothing, or took nothing, for too long",
    "internal": "an error of the server, which is in its log",
}
"""Codes of `ServiceError`, with their meanings."""


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Open(_Message):
    """First message of a client: the codec, the direction and the forms of what follows.

    Attributes:
        codec: Name of an offered codec.
        direction: `decode` for tokens to audio, `encode` for audio to tokens.
        token: Bearer token, for clients that cannot send the header `Authorization`.
        latency: `lowest` for the shortest tiles, `throughput` for the model's own.
        tile_frames: Frames of a tile, instead of `latency`.
        num_codebooks: Number of codebooks; the default of the codec if not given.
        bandwidth: Bandwidth in kbps instead, for `encode`.
        sample_format: `pcm16` or `float32`, little-endian, channels interleaved.
        sample_rate: Sample rate of the audio in Hz, the codec's if not given. For `encode`, audio of another rate is resampled.
        channels: Channels of the audio. Only the codec's number is accepted.
        tokens: Form of tokens in binary messages: `int32` groups, or a `container` file in each message.
        layout: Name of a layout, whose ids stand for tokens.
        layout_errors: Treatment of wrong ids: `raise`, `drop` or `repeat`, as for readers of layouts.
    """

    type: Literal["open"] = "open"
    codec: Annotated[str, Field(min_length=1, max_length=200)]
    direction: Direction
    token: Annotated[str, Field(max_length=MOST_TOKEN_BYTES)] | None = None
    latency: Latency = "lowest"
    tile_frames: Annotated[int, Field(gt=0, lt=1 << 31)] | None = None
    num_codebooks: Annotated[int, Field(gt=0, lt=1 << 31)] | None = None
    bandwidth: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    sample_format: SampleFormat = "float32"
    sample_rate: int | None = None
    channels: int | None = None
    tokens: TokenForm = "int32"
    layout: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    layout_errors: Errors = "raise"


class Ids(_Message):
    """Ids of the layout, in place of a binary message."""

    type: Literal["ids"] = "ids"
    ids: list[int]


class Text(_Message):
    """Ids of the layout as a language model writes them, such as `<custom_token_7>`; an id may be cut anywhere."""

    type: Literal["text"] = "text"
    text: str


class Ping(_Message):
    """Question whether the server is there."""

    type: Literal["ping"] = "ping"
    id: int | Annotated[str, Field(max_length=200)] | None = None


class End(_Message):
    """End of the signal; the rest of the output follows."""

    type: Literal["end"] = "end"


ClientMessage = Annotated[Ids | Text | Ping | End, Field(discriminator="type")]


class Ready(_Message):
    """Answer to `open`.

    Attributes:
        codec: Model `family:name`.
        sample_rate: Sample rate of the codec in Hz.
        channels: Channels of the audio.
        hop_length: Samples per frame.
        strides: Frames per token of each codebook.
        tile_frames: Frames of a tile.
        first_frames: Frames of input before the first output.
        latency_samples: Most samples of input whose output is not out.
    """

    type: Literal["ready"] = "ready"
    codec: str
    sample_rate: int
    channels: int
    hop_length: int
    strides: tuple[int, ...]
    tile_frames: int
    first_frames: int
    latency_samples: int


class Ack(_Message):
    """Input that has been taken so far: messages, and frames of tokens or samples of audio."""

    type: Literal["ack"] = "ack"
    messages: int
    taken: int


class Pong(_Message):
    """Answer to `ping`, with its id."""

    type: Literal["pong"] = "pong"
    id: int | str | None = None


class Ended(_Message):
    """Last message of a complete stream.

    Attributes:
        taken: Frames of tokens or samples of audio that were taken.
        samples: Samples per channel of audio that were sent, or that the sent tokens have at the codec's rate.
        frames: Frames of the tokens.
        lost: Groups of ids that were wrong, and so dropped or repeated.
    """

    type: Literal["ended"] = "ended"
    taken: int
    samples: int
    frames: int
    lost: int = 0


class Error(_Message):
    """Last message of a stream that failed; also the body of failed HTTP requests.

    Attributes:
        code: Reason as a word that stays the same between releases.
        error: Class of the error in Python.
        message: What is wrong and what to do about it.
    """

    type: Literal["error"] = "error"
    code: str
    error: str
    message: str


ServerMessage = Annotated[Ready | Ack | Pong | Ended | Error, Field(discriminator="type")]
CLIENT_MESSAGES: TypeAdapter[ClientMessage] = TypeAdapter(ClientMessage)
SERVER_MESSAGES: TypeAdapter[ServerMessage] = TypeAdapter(ServerMessage)
OPEN: TypeAdapter[Open] = TypeAdapter(Open)


class EncodedTokens(BaseModel):
    """Tokens as JSON, of `/v1/encode?format=json` and for `/v1/decode`.

    Attributes:
        codec: Model `family:name`, or a name.
        codes: Codes `(streams, frames / stride)` of each codebook.
        num_samples: Samples per channel; those of all frames if not given.
    """

    model_config = ConfigDict(extra="forbid")

    codec: Annotated[str, Field(min_length=1, max_length=200)]
    codes: list[list[list[int]]]
    num_samples: Annotated[int, Field(ge=0)] | None = None


def parsed(adapter: TypeAdapter[T], text: str | bytes) -> T:
    """Parse a JSON message.

    Raises:
        ServiceError: The message is none of the protocol's (`protocol`).
    """
    try:
        return adapter.validate_json(text)
    except (ValidationError, RecursionError) as error:
        raise ServiceError(f"the message is invalid: {reason(error)}", "protocol") from error


def code_of(error: BaseException) -> str:
    """Return the code of an error."""
    if isinstance(error, ServiceError):
        return error.code
    return next((code for code, kind in ERRORS.items() if isinstance(error, kind)), "internal")


def error_of(message: Error) -> CodecError:
    """Return the error that a server sent, of the class that it has in Python."""
    kind = ERRORS.get(message.code)
    return kind(message.message) if kind else ServiceError(message.message, message.code)


def pcm_to_bytes(pcm: Pcm, sample_format: SampleFormat) -> bytes:
    """Serialize audio `(channels, samples)`, interleaved; `pcm16` is rounded to 1/32768 and clipped."""
    samples = np.ascontiguousarray(pcm.T)
    if sample_format == "pcm16":
        samples = np.clip(np.rint(samples * FULL_SCALE), -FULL_SCALE, FULL_SCALE - 1)
    return samples.astype(PCM_TYPES[sample_format]).tobytes()


def pcm_from_bytes(data: bytes, sample_format: SampleFormat, channels: int) -> Pcm:
    """Parse audio to float32 `(channels, samples)`.

    Raises:
        InvalidInput: The bytes are no whole number of samples of all channels.
    """
    kind = PCM_TYPES[sample_format]
    if len(data) % (kind.itemsize * channels):
        raise InvalidInput(f"{len(data)} bytes are no whole samples; {sample_format} has {kind.itemsize * channels} for each")
    samples = np.frombuffer(data, kind).astype(np.float32)
    if sample_format == "pcm16":
        samples /= FULL_SCALE
    return np.ascontiguousarray(samples.reshape(-1, channels).T)


class TokenGroups:
    """Tokens of one stream as little-endian int32, group after group.

    A group has the frames of the least common multiple of the strides, in the flat form: codebook after codebook. If all
    codebooks have one rate, that is `(frames, codebooks)`. A group of SNAC has 1 + 2 + 4 codes.

    Args:
        spec: Model of the tokens.
        num_codebooks: Number of codebooks.

    Raises:
        NotYetImplemented: The codec has segments, which containers can hold alone.
    """

    def __init__(self, spec: CodecSpec, num_codebooks: int) -> None:
        if spec.segment is not None:
            raise NotYetImplemented(f"{spec.name} encodes in segments; its tokens are sent as containers (tokens: container)")
        self._spec, self._strides = spec, spec.strides[:num_codebooks]
        self.frames = math.lcm(*self._strides)
        self._counts = [self.frames // stride for stride in self._strides]

    def pack(self, tokens: CodecTokens) -> bytes:
        """Serialize tokens of whole groups.

        Raises:
            InvalidTokens: The tokens have other codebooks, several streams, or no whole groups.
        """
        if tokens.strides != self._strides or tokens.streams != 1 or tokens.frames % self.frames:
            raise InvalidTokens(
                f"tokens of {tokens.frames} frames, {tokens.streams} streams and strides {tokens.strides} are no groups of "
                f"{self.frames} frames with strides {self._strides}"
            )
        tables = [code.reshape(-1, count) for code, count in zip(tokens.codes, self._counts, strict=True)]
        return np.concatenate(tables, axis=1).astype("<i4").tobytes()

    def unpack(self, data: bytes) -> CodecTokens:
        """Parse whole groups.

        Raises:
            InvalidTokens: The bytes are no whole groups, or a code is out of range.
        """
        size = 4 * sum(self._counts)
        if len(data) % size:
            raise InvalidTokens(
                f"{len(data)} bytes are no whole groups; {self._spec.name} has {size} bytes for {self.frames} frames"
            )
        table = np.frombuffer(data, "<i4").reshape(-1, sum(self._counts))
        parts = np.split(table, np.cumsum(self._counts)[:-1], axis=1)
        return CodecTokens.from_codes(self._spec, [part.reshape(1, -1) for part in parts])

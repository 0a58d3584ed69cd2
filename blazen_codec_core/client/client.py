"""The client: streams, and whole recordings with the names and types of a provider."""

from __future__ import annotations

import dataclasses
import io
import ssl
from collections.abc import Callable, Sequence
from functools import partial
from os import PathLike
from typing import Any, BinaryIO, TypeVar, cast

import numpy as np
import soundfile
from pydantic import ValidationError

from .. import cancellation
from ..errors import InvalidInput, InvalidTokens, ServiceError, UnknownCodec, reason
from ..files import existing
from ..protocol import Ids, Open, SampleFormat, Text, pcm_from_bytes, pcm_to_bytes
from ..specs import Latency
from ..tokens.layouts import Errors
from ..tokens.tokens import CodecTokens
from ..validation import Pcm, as_array, check_audio, check_count, check_rate
from .http import Server, parsed_object
from .opening import StreamOpening
from .streams import AsyncStream, Codes, Message, split_bytes

R = TypeVar("R")
TokenInput = CodecTokens | Sequence[int] | str | Any
CODES_AT_ONCE = 1 << 17
"""Most codes in a message."""
BYTES = "application/octet-stream"


class Client:
    """A server of codecs, as started by `blazen-codec serve`. It holds no connection between calls.

    `encode`, `decode`, `encode_file` and `codecs` have `async` twins with the prefix `a`.

    Args:
        url: Address of the server, such as `http://127.0.0.1:8765`, or `https://…` behind a proxy.
        token: Bearer token, if the server needs one.
        retries: Further tries, with longer and longer waits, if the server cannot be reached, is busy or drains; also the number
            of times that a stream is resumed in a row without getting further.
        timeout: Seconds without any sign of the server until it is taken for lost.
        tls: Settings of TLS; the system's if `None`.

    Raises:
        InvalidInput: The address is invalid.
    """

    def __init__(
        self, url: str, token: str | None = None, *, retries: int = 3, timeout: float = 60.0, tls: ssl.SSLContext | None = None
    ) -> None:
        self._server = Server(url, token, check_count("retries", retries, 0, InvalidInput), timeout, tls)
        self._codecs: dict[str, dict[str, Any]] | None = None

    def __repr__(self) -> str:
        return f"<Client of {self._server.url}>"

    # streams

    def decoder(
        self,
        codec: str,
        *,
        latency: Latency = "lowest",
        tile_frames: int | None = None,
        layout: str | None = None,
        layout_errors: Errors = "raise",
        num_codebooks: int | None = None,
        sample_format: SampleFormat = "float32",
    ) -> StreamOpening[TokenInput, Pcm]:
        """Open a stream that decodes, with `async with` or `with`; it gives float32 `(channels, samples)`.

        Args:
            codec: Name of a codec that the server offers.
            latency: As for `CodecBackend.decoder_pool`.
            tile_frames: As for `CodecBackend.decoder_pool`.
            layout: Name of a layout, whose ids or text are pushed in place of tokens.
            layout_errors: Treatment of wrong ids, as for `TokenLayout.reader`.
            num_codebooks: Number of codebooks of the ids of a layout.
            sample_format: `pcm16` for half the bytes, rounded to 1/32768.

        Raises:
            InvalidInput: An option is invalid.
        """
        asked = _asked(
            codec=codec,
            direction="decode",
            latency=latency,
            tile_frames=tile_frames,
            num_codebooks=num_codebooks,
            layout=layout,
            layout_errors=layout_errors,
            sample_format=sample_format,
            tokens="container",
        )

        def make() -> AsyncStream[TokenInput, Pcm]:
            def unpack(data: bytes) -> Pcm:
                return pcm_from_bytes(data, sample_format, stream.ready.channels)

            pack = _token_messages if layout is None else _id_messages
            stream = AsyncStream[TokenInput, Pcm](self._server, asked, Codes(pack, unpack, 1, lambda pcm: pcm.shape[1]))
            return stream

        return StreamOpening(make)

    def encoder(
        self,
        codec: str,
        *,
        latency: Latency = "lowest",
        tile_frames: int | None = None,
        bandwidth: float | None = None,
        num_codebooks: int | None = None,
        sample_rate: int | None = None,
        sample_format: SampleFormat = "float32",
    ) -> StreamOpening[Any, CodecTokens]:
        """Open a stream that encodes, with `async with` or `with`; it takes audio and gives `CodecTokens`.

        Args:
            codec: Name of a codec that the server offers.
            latency: As for `CodecBackend.encoder_pool`, as are the others.
            sample_rate: Rate in hertz of the audio, from which the server resamples; the codec's if `None`.
            sample_format: `pcm16` for half the bytes, rounded to 1/32768.

        Raises:
            InvalidInput: An option is invalid.
        """
        asked = _asked(
            codec=codec,
            direction="encode",
            latency=latency,
            tile_frames=tile_frames,
            bandwidth=bandwidth,
            num_codebooks=num_codebooks,
            sample_rate=sample_rate,
            sample_format=sample_format,
            tokens="container",
        )

        def make() -> AsyncStream[Any, CodecTokens]:
            def pack(pcm: Any) -> list[Message]:
                audio = check_audio(pcm, empty=True)
                if audio.shape[0] != stream.ready.channels:
                    raise InvalidInput(f"audio has {audio.shape[0]} channels; {codec} takes {stream.ready.channels}")
                data = pcm_to_bytes(audio, sample_format)
                return split_bytes(data, len(data) // audio.shape[1]) if data else []

            codes: Codes[Any, CodecTokens] = Codes(pack, CodecTokens.from_bytes, None, lambda tokens: tokens.num_samples)
            stream = AsyncStream(self._server, asked, codes)
            return stream

        return StreamOpening(make)

    # whole recordings

    def codecs(self) -> list[dict[str, Any]]:
        """List the codecs that the server offers: name, sample_rate, channels and so on, as `GET /v1/codecs` gives them.

        Raises:
            ServiceError: The server cannot be reached, or refuses.
        """
        data, _ = self._server.request("/v1/codecs", {})
        return cast(list[dict[str, Any]], parsed_object(data, self._server.url)["codecs"])

    async def acodecs(self) -> list[dict[str, Any]]:
        """Coroutine that runs `codecs` in a thread."""
        return await _in_thread(self.codecs)

    def encode(
        self,
        codec: str,
        pcm: Any,
        sample_rate: int,
        *,
        bandwidth: float | None = None,
        num_codebooks: int | None = None,
        normalize_db: float | None = None,
    ) -> CodecTokens:
        """Encode audio, with the result of `DynCodecProvider.encode` on the server.

        Args:
            codec: Name of a codec that the server offers.
            pcm: Floating point, nominally -1 … 1, `(channels, samples)` or `(samples,)`.
            sample_rate: Rate in hertz, which must be the codec's.
            bandwidth: As for `CodecBackend.encode`, as are the others.

        Raises:
            InvalidInput: The audio, its rate or an option cannot be used.
            UnknownCodec: The server does not offer the codec.
            ServiceError: The server cannot be reached, or refuses.
            CodecError: The server failed.
        """
        audio, offered = check_audio(pcm), self._offered(codec)
        if check_rate(sample_rate) != offered["sample_rate"]:
            raise InvalidInput(
                f"sample rate is {sample_rate} Hz; {codec} takes {offered['sample_rate']} Hz. Resample, or encode_file"
            )
        if audio.shape[0] % offered["channels"]:
            raise InvalidInput(f"audio has {audio.shape[0]} channels; {codec} takes {offered['channels']}")
        file = io.BytesIO()
        soundfile.write(file, audio.T, sample_rate, "FLOAT", format="WAV")
        query = {"codec": codec, "bandwidth": bandwidth, "num_codebooks": num_codebooks, "normalize_db": normalize_db}
        return self._encoded(file.getvalue(), query)

    async def aencode(self, codec: str, pcm: Any, sample_rate: int, **options: Any) -> CodecTokens:
        """Coroutine that runs `encode` in a thread."""
        return await _in_thread(partial(self.encode, codec, pcm, sample_rate, **options))

    def encode_file(
        self,
        codec: str,
        path: str | PathLike[str],
        *,
        bandwidth: float | None = None,
        num_codebooks: int | None = None,
        mono: bool = False,
        normalize_db: float | None = None,
    ) -> CodecTokens:
        """Encode an audio file of any format that the server reads, converted to the codec's rate and channels.

        The file is sent as it is read. The tokens record the conversion, as those of `blazen-codec encode` do.

        Args:
            codec: Name of a codec that the server offers.
            path: Path of the file.
            mono: Mix the channels down to one.
            bandwidth: As for `encode`, as are the others.

        Raises:
            InvalidInput: The file does not exist, or an option cannot be used.
            CodecError: As `encode`.
        """
        query = {"codec": codec, "bandwidth": bandwidth, "num_codebooks": num_codebooks, "normalize_db": normalize_db}
        with existing(path).open("rb") as file:
            return self._encoded(file, {**query, "mono": mono or None})

    async def aencode_file(self, codec: str, path: str | PathLike[str], **options: Any) -> CodecTokens:
        """Coroutine that runs `encode_file` in a thread."""
        return await _in_thread(partial(self.encode_file, codec, path, **options))

    def _encoded(self, body: bytes | BinaryIO, query: dict[str, Any]) -> CodecTokens:
        data, _ = self._server.request("/v1/encode", {**query, "format": "tokens"}, body, BYTES)
        return CodecTokens.from_container(data, "the answer")

    def decode(self, tokens: CodecTokens) -> Pcm:
        """Decode tokens to float32 `(channels, samples)`, with the result of `DynCodecProvider.decode` on the server.

        Raises:
            InvalidTokens: The tokens are not of their model, or incomplete.
            UnknownCodec: The server does not offer their codec.
            ServiceError: The server cannot be reached, or refuses.
            CodecError: The server failed.
        """
        if not isinstance(tokens, CodecTokens):
            raise InvalidTokens(f"tokens are {type(tokens).__name__}; expected CodecTokens")
        body = dataclasses.replace(tokens, source=None).to_bytes()
        data, headers = self._server.request("/v1/decode", {"format": "float32"}, body, BYTES)
        try:
            channels = int(headers["blazen-channels"])
        except (KeyError, ValueError) as error:
            raise ServiceError(f"{self._server.url} does not say how many channels its audio has", "protocol") from error
        return pcm_from_bytes(data, "float32", channels)

    async def adecode(self, tokens: CodecTokens) -> Pcm:
        """Coroutine that runs `decode` in a thread."""
        return await _in_thread(partial(self.decode, tokens))

    def _offered(self, codec: str) -> dict[str, Any]:
        if self._codecs is None:
            listed = self.codecs()
            self._codecs = {codec[key]: codec for codec in listed for key in ("codec", "name")}
        if codec not in self._codecs:
            names = ", ".join(sorted({offered["name"] for offered in self._codecs.values()}))
            raise UnknownCodec(f"{codec} is not offered by {self._server.url}; it has {names}")
        return self._codecs[codec]


async def _in_thread(call: Callable[[], R]) -> R:
    return await cancellation.run_in_thread(call)


def _asked(**fields: Any) -> Open:
    """First message of a stream; raise `InvalidInput` if an option is invalid."""
    try:
        return Open(**fields)
    except ValidationError as error:
        raise InvalidInput(f"option {reason(error)}") from error


def _token_messages(tokens: Any) -> list[Message]:
    if not isinstance(tokens, CodecTokens):
        raise InvalidTokens(f"tokens are {type(tokens).__name__}; expected CodecTokens. Ids need layout=")
    if not tokens.frames:
        return []
    unit = tokens.crop_unit
    per_unit = tokens.streams * sum(unit // stride for stride in tokens.strides)
    return [part.to_bytes() for part in tokens.parts(unit * max(1, CODES_AT_ONCE // per_unit))]


def _id_messages(ids: Any) -> list[Message]:
    if isinstance(ids, str):
        return [Text(text=ids[at : at + CODES_AT_ONCE]).model_dump_json() for at in range(0, len(ids), CODES_AT_ONCE)]
    array = as_array(ids, "ids cannot be an array").reshape(-1)
    if array.size and array.dtype.kind not in "iu":
        raise InvalidTokens(f"ids are {array.dtype}; expected integers, or text")
    if array.size and np.abs(array).max() >= 1 << 31:
        return [Ids(ids=array.tolist()).model_dump_json()]
    return split_bytes(array.astype("<i4").tobytes(), 4)

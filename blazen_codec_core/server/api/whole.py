"""Whole recordings over HTTP: audio files to tokens, and tokens to audio files. Memory does not grow with the length of audio."""

from __future__ import annotations

import asyncio
import io
import tempfile
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal, TypeVar, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from ... import cancellation, transcode
from ...audio import AudioReader
from ...errors import InvalidTokens, ServiceError, reason
from ...foreign_json import NotJson, parse_object
from ...protocol import EncodedTokens, SampleFormat, pcm_to_bytes
from ...provider import DynCodecProvider
from ...tokens.tokens import CodecTokens
from ...transcode import Advance, Progress, Recording
from . import answers
from .service import CodecService
from .stream import client_of

T = TypeVar("T")
TOKENS_TYPE, JSON_TYPE = "application/vnd.blazen-codec.tokens", "application/json"
AUDIO_TYPES = {
    "wav": "audio/wav",
    "flac": "audio/flac",
    "ogg": "audio/ogg",
    "pcm16": "application/octet-stream",
    "float32": "application/octet-stream",
}
LARGEST_JSON = 1 << 24
"""Largest body of JSON tokens in bytes."""


class EncodeQuery(BaseModel):
    """Query of `/v1/encode`.

    Attributes:
        codec: Name of an offered codec.
        bandwidth: Bandwidth in kbps.
        num_codebooks: Number of codebooks instead.
        mono: Mix the channels down to one.
        normalize_db: Loudness in LUFS to which the audio is normalized first; decoding restores the original.
        format: `tokens` for a token container, `json` for codes as numbers.
    """

    model_config = ConfigDict(extra="forbid")

    codec: Annotated[str, Field(min_length=1, max_length=200)]
    bandwidth: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    num_codebooks: Annotated[int, Field(gt=0)] | None = None
    mono: bool = False
    normalize_db: Annotated[float, Field(allow_inf_nan=False)] | None = None
    format: Literal["tokens", "json"] | None = None


class DecodeQuery(BaseModel):
    """Query of `/v1/decode`.

    Attributes:
        format: Format of the audio; `pcm16` and `float32` are little-endian samples without a header, channels interleaved.
    """

    model_config = ConfigDict(extra="forbid")

    format: Literal["wav", "flac", "ogg", "pcm16", "float32"] = "wav"


async def encode(request: Request, service: CodecService) -> Response:
    """Encode an audio file of any format that the command line reads."""
    client = client_of(request, service)
    query = answers.asked(EncodeQuery, request)
    name, codec = service.find(query.codec)
    count = codec.spec.codebooks_for(query.bandwidth, query.num_codebooks)
    async with service.job_place(client):
        with _temporary() as file:
            await answers.receive_body(request, file, service.limits.bytes, service.limits.stall_seconds)
            tokens = await _in_thread(request, service, lambda: _encode(codec, file, count, query, service.limits.seconds))
    service.metrics.audio.labels(name, "encode").inc(tokens.seconds)
    if query.format == "json" or (query.format is None and request.headers.get("accept") == JSON_TYPE):
        body = EncodedTokens(codec=tokens.codec, codes=[code.tolist() for code in tokens.codes], num_samples=tokens.num_samples)
        return _in_parts(io.BytesIO(body.model_dump_json().encode()), JSON_TYPE, service)
    return _in_parts(io.BytesIO(tokens.to_bytes()), TOKENS_TYPE, service)


def _encode(codec: DynCodecProvider, file: BinaryIO, num_codebooks: int, query: EncodeQuery, seconds: float) -> CodecTokens:
    recording = Recording(lambda: AudioReader("the body", content=file), codec, query.mono)
    if recording.seconds is not None:
        _check_seconds(recording.seconds, seconds)
    bandwidth = codec.spec.kbps(num_codebooks)
    return transcode.encode(codec, recording, bandwidth=bandwidth, normalize_db=query.normalize_db, progress=_at_most(seconds))


async def decode(request: Request, service: CodecService) -> Response:
    """Decode tokens, a container or JSON, to an audio file with the rate, channels and length of the original."""
    client = client_of(request, service)
    query = answers.asked(DecodeQuery, request)
    is_json = request.headers.get("content-type", "").partition(";")[0].strip().lower() == JSON_TYPE
    async with service.job_place(client):
        with _temporary() as file:
            most = min(service.limits.bytes, LARGEST_JSON) if is_json else service.limits.bytes
            await answers.receive_body(request, file, most, service.limits.stall_seconds)
            data = file.read()
        tokens, codec = await _in_thread(request, service, lambda: _tokens(data, is_json, service))
        audio = _temporary()
        try:
            await _in_thread(request, service, lambda: _decode(codec, tokens, query.format, audio))
        except BaseException:
            audio.close()
            raise
    service.metrics.audio.labels(codec.spec.name, "decode").inc(tokens.seconds)
    restored = transcode.SourceRestorer(tokens)
    headers = {
        "Blazen-Sample-Rate": str(restored.sample_rate),
        "Blazen-Channels": str(restored.channels.count),
        "Blazen-Samples": str(restored.num_samples),
    }
    return _in_parts(audio, AUDIO_TYPES[query.format], service, headers)


def _tokens(data: bytes, is_json: bool, service: CodecService) -> tuple[CodecTokens, DynCodecProvider]:
    """Parse tokens; return them with their codec, which is offered."""
    if is_json:
        try:
            made = EncodedTokens.model_validate(parse_object(data.decode()))
        except (NotJson, UnicodeDecodeError, ValidationError) as error:
            raise InvalidTokens(f"the JSON is invalid: {reason(error)}") from error
        codec = service.find(made.codec)[1]
        tokens = CodecTokens.from_codes(codec.spec, made.codes, num_samples=made.num_samples)
    else:
        tokens = CodecTokens.from_container(data, "the body")
        codec = service.find(tokens.codec)[1]
    _check_seconds(tokens.seconds, service.limits.seconds)
    if tokens.source is not None:
        _check_seconds(tokens.source.num_samples / tokens.source.sample_rate, service.limits.seconds + transcode.SOURCE_SECONDS)
    return tokens, codec


def _decode(codec: DynCodecProvider, tokens: CodecTokens, form: str, audio: BinaryIO) -> None:
    if form in ("pcm16", "float32"):
        for piece in transcode.restored_pieces(codec, tokens):
            audio.write(pcm_to_bytes(piece, cast(SampleFormat, form)))
        return
    with tempfile.TemporaryDirectory(prefix="blazen-codec-") as folder:
        path = Path(folder) / f"audio.{form}"
        transcode.decode_to_file(codec, tokens, path)
        with path.open("rb") as file:
            while part := file.read(answers.PART):
                audio.write(part)


def _check_seconds(seconds: float, most: float) -> None:
    if seconds > most:
        raise ServiceError(f"the audio exceeds the limit of {most:g} s", "too_large")


def _at_most(most: float) -> Progress:
    """Progress that ends the work once more audio than `most` seconds has been read, whatever its header said."""

    def begun(_what: str, _seconds: float | None) -> AbstractContextManager[Advance]:
        done = 0.0

        def advance(seconds: float) -> None:
            nonlocal done
            done += seconds
            _check_seconds(done, most)

        return nullcontext(advance)

    return begun


def _in_parts(file: BinaryIO, media_type: str, service: CodecService, headers: Mapping[str, str] | None = None) -> Response:
    return answers.FileResponse(file, media_type, service.limits.stall_seconds, service.progress(), headers)


def _temporary() -> BinaryIO:
    """Open an unnamed temporary file."""
    return cast(BinaryIO, tempfile.TemporaryFile())


async def _in_thread(request: Request, service: CodecService, work: Callable[[], T]) -> T:
    """Run work in a thread of the service. When the client disconnects, cancel the work and wait for its end.

    Raises:
        ClientDisconnect: The client has gone.
    """
    gone = threading.Event()

    def wanted() -> T:
        with cancellation.cancel_scope(gone):
            cancellation.check()
            return work()

    working: asyncio.Future[Any] = asyncio.get_running_loop().run_in_executor(service.workers, wanted)
    watching: asyncio.Future[Any] = asyncio.create_task(answers.until_gone(request))
    try:
        await asyncio.wait((working, watching), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        made: T = working.result()
        return made
    finally:
        watching.cancel()
        gone.set()
        await asyncio.gather(working, return_exceptions=True)  # it still uses the files

"""Server of a page that speaks: texts in, a language model's ids through a pool of decoders, sound out.

python examples/orpheus_server/speech.py --language-model http://127.0.0.1:8001/v1    # then open http://127.0.0.1:8000
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import uvicorn
from openai import APIError, AsyncOpenAI
from pydantic import BaseModel, Field, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

import blazen_codec_core as bc

LAYOUT = "orpheus"
PROMPT = "<custom_token_3><|begin_of_text|>{voice}: {text}<|eot_id|><custom_token_4><custom_token_5><custom_token_1>"
"""Orpheus's prompt. It ends with the id that begins speech."""
SAMPLING = {"temperature": 0.6, "top_p": 0.9, "max_tokens": 4096}
NOT_OF_OPENAI = {"repetition_penalty": 1.1, "stop_token_ids": [128258], "skip_special_tokens": False, "add_special_tokens": False}
"""Options of vLLM and SGLang: the id that ends speech stops the model, special ids are in the text, the prompt has its own."""


class Wanted(BaseModel):
    """Request of a listener, the first message."""

    text: Annotated[str, Field(min_length=1, max_length=2000)]
    voice: Annotated[str, Field(pattern=r"^[a-z]{1,20}$")] = "tara"


class Speaker:
    """A language model and a codec that speak to many listeners.

    Args:
        codec: Codec of the model's ids, or its decoder alone.
        language_model: Client of the language model's server.
        model: Name of the model there.
        listeners: Most listeners at once.
    """

    def __init__(self, codec: bc.DynCodecProvider, language_model: AsyncOpenAI, model: str, listeners: int) -> None:
        self.codec, self._language_model, self._model = codec, language_model, model
        self._layout = bc.Registry().layout(LAYOUT)
        self._pool = codec.decoder_pool(listeners, latency="lowest")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Context in which the pool steps by itself. It ends the pool and the client."""
        async with self._language_model, self._pool.serving():
            yield

    async def _texts(self, wanted: Wanted) -> AsyncIterator[str]:
        """Ids as the model writes them, as text that may be cut anywhere."""
        prompt = PROMPT.format(voice=wanted.voice, text=wanted.text)
        answer = await self._language_model.completions.create(
            model=self._model, prompt=prompt, stream=True, extra_body=NOT_OF_OPENAI, **SAMPLING
        )
        async with answer:  # leaving it ends the request, and the model stops
            async for event in answer:
                if event.choices:
                    yield event.choices[0].text

    async def speak(self, wanted: Wanted, socket: WebSocket) -> None:
        """Send the sound of a text as it is made; see `listen` for the messages.

        Raises:
            CodecError: No listener more can be served, or the ids are no speech.
            APIError: The language model failed.
        """
        reader = self._layout.reader(self.codec.spec, errors="drop")
        ids = 0
        with self._pool.open() as stream:

            async def read() -> None:
                nonlocal ids
                async with aclosing(self._texts(wanted)) as texts:
                    async for text in texts:
                        tokens = reader.push(text)
                        ids += text.count(">")
                        if tokens.frames:
                            await stream.apush(tokens)
                        if reader.ended:
                            break
                stream.finish()

            async def send() -> None:
                samples = 0
                async for pcm in stream:
                    if pcm.shape[1] and not samples:
                        await socket.send_json({"type": "began", "ids": ids})
                    samples += pcm.shape[1]
                    await socket.send_bytes(np.rint(pcm[0].clip(-1, 1) * 32767).astype("<i2").tobytes())
                await socket.send_json({"type": "ended", "ids": ids, "samples": samples, "lost": reader.lost})

            async with asyncio.TaskGroup() as tasks:
                gone = tasks.create_task(until_gone(socket))
                tasks.create_task(read())
                await send()
                gone.cancel()


async def until_gone(socket: WebSocket) -> None:
    """Wait until the listener leaves, which raises `WebSocketDisconnect`."""
    while True:
        await socket.receive_text()


def application(speaker: Speaker) -> Starlette:
    """Build the page and its WebSocket `/speak`.

    The first message is a `Wanted`. Then come `{"type": "format", "sample_rate": …}`, `{"type": "began", "ids": …}` with the ids
    that the model had written, PCM in binary messages (16 bits, little-endian, mono), and `{"type": "ended", …}`; or
    `{"type": "error", "message": …}`.
    """
    page = Path(__file__).with_name("page.html").read_text()

    async def show(_: Request) -> HTMLResponse:
        return HTMLResponse(page)

    async def listen(socket: WebSocket) -> None:
        await socket.accept()
        message: str | None = None
        try:
            wanted = Wanted.model_validate_json(await socket.receive_text())
            await socket.send_json({"type": "format", "sample_rate": speaker.codec.sample_rate})
            await speaker.speak(wanted, socket)
        except* WebSocketDisconnect:
            pass
        except* ValidationError:
            message = "expected a text of 1 to 2000 characters, and the name of a voice"
        except* bc.CodecError as errors:
            message = str(errors.exceptions[0])
        except* APIError as errors:
            message = f"the language model failed: {errors.exceptions[0]}"
        with suppress(WebSocketDisconnect, RuntimeError):
            if message is not None:
                await socket.send_json({"type": "error", "message": message})
            await socket.close()

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with speaker.running():
            yield

    return Starlette(routes=[Route("/", show), WebSocketRoute("/speak", listen)], lifespan=lifespan)


def speaker_of(codec: str, language_model: str, model: str, listeners: int, **options: Any) -> Speaker:
    """Load the decoder of a codec and make a client of the language model."""
    decoder = bc.load(codec, parts="decoder", **options)
    decoder.load()
    decoder.decode(bc.CodecTokens.from_codes(decoder.spec, [np.zeros((1, 4 // s), np.int32) for s in decoder.spec.strides]))
    return Speaker(decoder, AsyncOpenAI(base_url=language_model, api_key="none", max_retries=0, timeout=60.0), model, listeners)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--codec", default="snac_tiny", help="snac_24khz for Orpheus")
    parser.add_argument("--weights")
    parser.add_argument("--language-model", default="http://127.0.0.1:8001/v1")
    parser.add_argument("--model", default="orpheus")
    parser.add_argument("--listeners", type=int, default=128)
    parser.add_argument("--port", type=int, default=8000)
    options = parser.parse_args()
    made = speaker_of(options.codec, options.language_model, options.model, options.listeners, weights=options.weights)
    uvicorn.run(application(made), port=options.port, log_level="warning")

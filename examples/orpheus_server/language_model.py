"""Stand-in for the server of a speech language model: OpenAI's completions, streamed, of ids that were made from a recording.

python examples/orpheus_server/language_model.py examples/speech.flac    # http://127.0.0.1:8001/v1
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Any

import soundfile
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

import blazen_codec_core as bc

LAYOUT = "orpheus"


def ids_as_text(codec: bc.DynCodecProvider, recording: str) -> tuple[list[str], float]:
    """Ids of a recording as a language model writes them, each as text, and their number in a second of sound."""
    pcm, rate = soundfile.read(recording, dtype="float32", always_2d=True)
    layout = bc.Registry().layout(LAYOUT)
    vocabulary = layout.vocabulary(codec.spec)
    ids = layout.pack(codec.encode(pcm.mean(axis=1), rate), specials=True)
    return [vocabulary.to_text([id]) for id in ids], vocabulary.ids_per_group * codec.frame_rate / vocabulary.frames_per_group


def application(model: str, written: Sequence[str], ids_per_second: float, ids_per_event: int = 7) -> Starlette:
    """Build the server, which answers any prompt with `written`.

    Args:
        model: Name of the model.
        written: Pieces of text, one per id.
        ids_per_second: Speed of each answer. All answers run side by side.
        ids_per_event: Ids that are sent at once, as by vLLM's `--stream-interval`.
    """

    def said(event: str, text: str, reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": reason}
        return {"id": event, "object": "text_completion", "created": int(time.time()), "model": model, "choices": [choice]}

    async def pieces(event: str, most: int) -> AsyncIterator[str]:
        began = time.perf_counter()
        for start in range(0, most, ids_per_event):
            some = written[start : min(start + ids_per_event, most)]
            await asyncio.sleep(max(0.0, began + (start + len(some)) / ids_per_second - time.perf_counter()))
            yield f"data: {json.dumps(said(event, ''.join(some)))}\n\n"
        reason = "length" if most < len(written) else "stop"
        yield f"data: {json.dumps(said(event, '', reason))}\n\ndata: [DONE]\n\n"

    async def complete(request: Request) -> StreamingResponse | JSONResponse:
        asked = await request.json()
        if asked.get("model") != model:
            error = {"message": f"The model {asked.get('model')!r} does not exist", "type": "invalid_request_error", "code": 404}
            return JSONResponse({"error": error}, status_code=404)
        event, most = f"cmpl-{uuid.uuid4().hex}", min(int(asked.get("max_tokens") or 16), len(written))
        if asked.get("stream"):
            return StreamingResponse(pieces(event, most), media_type="text/event-stream")
        return JSONResponse(said(event, "".join(written[:most]), "length" if most < len(written) else "stop"))

    async def models(_: Request) -> JSONResponse:
        return JSONResponse({"object": "list", "data": [{"id": model, "object": "model", "created": 0, "owned_by": "nobody"}]})

    return Starlette(routes=[Route("/v1/completions", complete, methods=["POST"]), Route("/v1/models", models)])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recording")
    parser.add_argument("--codec", default="snac_tiny", help="that of the page's server")
    parser.add_argument("--weights")
    parser.add_argument("--model", default="orpheus")
    parser.add_argument("--port", type=int, default=8001)
    parser.add_argument("--speed", type=float, default=1.3, help="times real time")
    parser.add_argument("--ids-per-event", type=int, default=7)
    options = parser.parse_args()
    text, rate = ids_as_text(bc.load(options.codec, weights=options.weights), options.recording)
    uvicorn.run(
        application(options.model, text, options.speed * rate, options.ids_per_event), port=options.port, log_level="warning"
    )

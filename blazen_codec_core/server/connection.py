"""A WebSocket connection: receives a request and a file; sends audio as it is decoded, figures, metrics and tokens.

The client sends a `CompareRequest` as JSON and receives its position in the queue (`{"type": "waiting", "place": 2}`). After
`{"type": "ready"}` it sends the file in binary messages, and receives:

- `{"type": "loading"}`: the file has arrived, and models are loaded;
- `{"type": "begun", "recording": …}`: name, seconds, sample_rate, channels, and the names of the versions, the original first;
- binary messages: a kind and the index of a version, two little-endian uint32, followed by
  - kind 0: the next audio, little-endian float32, channel after channel;
  - kind 1: the tokens, a container file;
- `{"type": "ended"}`: the audio is complete;
- `{"type": "shown", "recording": …}`: the result of `comparison.serialize.page_data`;
- `{"type": "done"}` at the end, or `{"type": "error", "message": …}` on failure.

Uploads are stored in unnamed temporary files, and nothing is kept after a request. Work stops when the client disconnects.
"""

from __future__ import annotations

import asyncio
import logging
import struct
import tempfile
import threading
from collections.abc import Coroutine
from pathlib import PurePath
from typing import Any, BinaryIO, cast

import numpy as np
from starlette.websockets import WebSocket, WebSocketDisconnect

from .. import cancellation
from ..comparison import compare, serialize
from ..comparison.compare import Clip, Comparison
from ..errors import CodecError, InvalidInput
from ..validation import Pcm
from . import catalog
from .admission import QueueFull
from .catalog import CodecCatalog, CompareRequest

log = logging.getLogger(__name__)
AUDIO, TOKENS = 0, 1
SLOWEST = 60.0
"""Send timeout in seconds; slower clients are disconnected."""
SLOWEST_UPLOAD = 250_000
"""Least upload rate in bytes per second, because uploads occupy a turn."""
CHUNKS = 4
"""Number of file chunks that are buffered."""


class Connection:
    """Connection of one client. Errors are reported to the client."""

    def __init__(self, socket: WebSocket, at: CodecCatalog) -> None:
        self._socket, self._house = socket, at
        self._chunks: asyncio.Queue[bytes] = asyncio.Queue(CHUNKS)
        self._gone = threading.Event()

    async def run(self) -> None:
        """Serve the client until the connection ends."""
        await self._socket.accept()
        try:
            async with asyncio.TaskGroup() as tasks:
                await self._serve(tasks)
                await self._say("done")
            await self._socket.close()
        except* (CodecError, QueueFull) as errors:
            await self._end(str(errors.exceptions[0]))
        except* TimeoutError:
            await self._end("timed out waiting for the browser. Try again")
        except* WebSocketDisconnect:  # no client to report to
            pass
        except* Exception as errors:
            log.error("a visit failed", exc_info=errors)
            await self._end("internal error; see the server's log")
        finally:
            self._gone.set()

    async def _serve(self, tasks: asyncio.TaskGroup) -> None:
        asked = await self._asked()
        self._house.check(asked)
        listening = tasks.create_task(self._listen())
        async with self._house.line.turn(lambda place: self._say("waiting", place=place)):
            await self._say("ready")
            with tempfile.TemporaryFile() as file:
                await self._receive(cast(BinaryIO, file), asked.size)
                await self._in_thread(self._work, asked, file)
        listening.cancel()

    async def _asked(self) -> CompareRequest:
        async with asyncio.timeout(self._house.limits.patience):
            return catalog.asked(await self._heard("text"))

    async def _listen(self) -> None:
        """Receive chunks, which also detects a disconnect."""
        while True:
            await self._chunks.put(await self._heard("bytes"))

    async def _heard(self, kind: str) -> Any:
        """Receive the next message, which must be of type `kind`."""
        message = await self._socket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message["code"])
        if message.get(kind) is None:
            raise InvalidInput("unexpected message; expected the request as text, then the file in binary messages")
        return message[kind]

    async def _receive(self, file: BinaryIO, size: int) -> None:
        """Receive a file of `size` bytes."""
        left = size
        async with asyncio.timeout(self._house.limits.patience + size / SLOWEST_UPLOAD):
            while left:
                async with asyncio.timeout(self._house.limits.patience):
                    chunk = await self._chunks.get()
                left -= len(chunk)
                if left < 0:
                    raise InvalidInput(f"the file is larger than the stated {size} bytes")
                file.write(chunk)
        file.seek(0)

    async def _in_thread(self, work: Any, *arguments: Any) -> None:
        """Run work in a thread. When the client disconnects, cancel the work and wait for its end."""
        self._loop = asyncio.get_running_loop()

        def wanted() -> None:
            with cancellation.cancel_scope(self._gone):
                cancellation.check()
                work(*arguments)

        working = self._loop.run_in_executor(self._house.workers, wanted)
        try:
            await asyncio.shield(working)
        except asyncio.CancelledError:
            self._gone.set()
            await asyncio.gather(working, return_exceptions=True)  # it still reads the file
            raise

    def _work(self, asked: CompareRequest, file: BinaryIO) -> None:
        """Compare the file with the chosen systems; runs in a thread."""
        most = self._house.limits.seconds
        excerpt = Clip(PurePath(asked.name).name or asked.name, content=file, mono=asked.mono, seconds=most + 1)
        if excerpt.seconds > most:
            raise InvalidInput(f"{excerpt.name} exceeds the limit of {most:.0f} s of audio")
        self._now(self._say("loading"))
        chosen = [self._house.system(name) for name in asked.systems]
        names = [compare.ORIGINAL, *(system.name for system in chosen)]
        self._now(self._say("begun", recording={**serialize.heading(excerpt), "versions": [{"name": name} for name in names]}))
        made = compare.compare(
            excerpt, chosen, self._house.judge, on_audio=self._play, on_decoded=lambda: self._now(self._say("ended"))
        )
        self._now(self._say("shown", recording=serialize.page_data(made, audio=False)))
        self._give_tokens(made)

    def _play(self, number: int, pcm: Pcm) -> None:
        self._now(self._send(AUDIO, number, np.ascontiguousarray(pcm, "<f4").tobytes()))

    def _give_tokens(self, made: Comparison) -> None:
        for number, version in enumerate(made.versions):
            if version.tokens is not None:
                self._now(self._send(TOKENS, number, version.tokens.to_bytes()))

    def _now(self, message: Coroutine[Any, Any, None]) -> None:
        """Send a message from the worker thread, and wait until it is sent, so that messages do not pile up."""
        asyncio.run_coroutine_threadsafe(message, self._loop).result()

    async def _send(self, kind: int, number: int, content: bytes) -> None:
        async with asyncio.timeout(SLOWEST):
            await self._socket.send_bytes(struct.pack("<II", kind, number) + content)

    async def _say(self, kind: str, **facts: Any) -> None:
        async with asyncio.timeout(SLOWEST):
            await self._socket.send_json({"type": kind, **facts})

    async def _end(self, message: str) -> None:
        try:
            await self._say("error", message=message)
            await self._socket.close()
        except (WebSocketDisconnect, RuntimeError, TimeoutError):  # the client has disconnected
            pass

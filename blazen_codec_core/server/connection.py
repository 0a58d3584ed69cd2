"""A WebSocket connection: the request, the file, and then audio as it is made, pictures, numbers and tokens.

The visitor says a `CompareRequest` as JSON, is told its place in the line (`{"type": "waiting", "place": 2}`), sends the file in
binary messages once it is told `{"type": "ready"}`, and hears:

- `{"type": "loading"}`: the file is there, and models are made ready;
- `{"type": "begun", "recording": …}`: name, seconds, sample_rate, channels, and the names of the versions, the original first;
- binary messages, each a kind and the number of a version, two little-endian uint32, and then
  - kind 0: the next audio of it, float32, little-endian, channel after channel;
  - kind 1: its tokens, a container file;
- `{"type": "ended"}`: there is no more audio;
- `{"type": "shown", "recording": …}`: all of `comparison.serialize.page_data`;
- `{"type": "done"}` at the end, or, wherever it fails, `{"type": "error", "message": …}`.

The file is held in one without a name, and nothing is left of a visit that has ended. Whoever goes away stops the work.
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
"""Seconds that a message may take to leave; who takes it no faster is gone."""
SLOWEST_UPLOAD = 250_000
"""Bytes a second that a file has to come at: it takes the turn of others."""
CHUNKS = 4
"""Of a file, that wait to be written."""


class Connection:
    """One visitor. What is raised while it is served is said to them."""

    def __init__(self, socket: WebSocket, at: CodecCatalog) -> None:
        self._socket, self._house = socket, at
        self._chunks: asyncio.Queue[bytes] = asyncio.Queue(CHUNKS)
        self._gone = threading.Event()

    async def run(self) -> None:
        """From the first word to the last."""
        await self._socket.accept()
        try:
            async with asyncio.TaskGroup() as tasks:
                await self._serve(tasks)
                await self._say("done")
            await self._socket.close()
        except* (CodecError, QueueFull) as errors:
            await self._end(str(errors.exceptions[0]))
        except* TimeoutError:
            await self._end("nothing was heard for too long: try again")
        except* WebSocketDisconnect:  # nobody is there to be told
            pass
        except* Exception as errors:
            log.error("a visit failed", exc_info=errors)
            await self._end("something went wrong here; the server's output says what")
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
        """Takes what comes, and so notices when the visitor goes."""
        while True:
            await self._chunks.put(await self._heard("bytes"))

    async def _heard(self, kind: str) -> Any:
        """The next message, which has to be of that kind."""
        message = await self._socket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message["code"])
        if message.get(kind) is None:
            raise InvalidInput("first say as text what is asked for, then send the file in binary messages")
        return message[kind]

    async def _receive(self, file: BinaryIO, size: int) -> None:
        """The file, as large as was said."""
        left = size
        async with asyncio.timeout(self._house.limits.patience + size / SLOWEST_UPLOAD):
            while left:
                async with asyncio.timeout(self._house.limits.patience):
                    chunk = await self._chunks.get()
                left -= len(chunk)
                if left < 0:
                    raise InvalidInput(f"more came than the {size} bytes that were said")
                file.write(chunk)
        file.seek(0)

    async def _in_thread(self, work: Any, *arguments: Any) -> None:
        """Work that ends soon after the visitor has gone, which is waited for."""
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
        """All that takes long, in a thread."""
        most = self._house.limits.seconds
        excerpt = Clip(PurePath(asked.name).name or asked.name, content=file, mono=asked.mono, seconds=most + 1)
        if excerpt.seconds > most:
            raise InvalidInput(f"{excerpt.name} is over {most:.0f} s of audio, and {most:.0f} s at most are taken here")
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
            if version.tokens:
                self._now(self._send(TOKENS, number, version.tokens.to_bytes()))

    def _now(self, message: Coroutine[Any, Any, None]) -> None:
        """Sends a message from the thread, and waits until it has left, so that nothing piles up."""
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
        except (WebSocketDisconnect, RuntimeError, TimeoutError):  # who is gone meanwhile needs no answer
            pass

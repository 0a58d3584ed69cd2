"""A stream on a server: what was pushed is kept, so that another server can go on after the connection broke.

The state of a stream is lost with its server. After a break, everything pushed so far is sent again, on a new connection, and
the output that was received already is left out once more. It is compared by digest: if another server's output differs, or if
more was pushed than is kept, the stream ends with `ConnectionLost`. So the output is that of one unbroken stream, or an error.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import Future
from typing import Any, Generic, Self, TypeVar

from ..errors import CodecError, ConnectionLost, InvalidInput, ServiceError, reason
from ..installation import missing
from ..protocol import (
    LARGEST_MESSAGE,
    SERVER_MESSAGES,
    Ack,
    End,
    Ended,
    Error,
    Open,
    Ping,
    Ready,
    ServerMessage,
    error_of,
    parsed,
)
from ..sessions import Closable
from .http import AGAIN, Server, failure_of, wait_before

In = TypeVar("In")
Out = TypeVar("Out")
T = TypeVar("T")
PING_SECONDS = 15.0
"""Seconds without anything to send after which a ping is sent."""
KEPT_BYTES = 64 << 20
"""Most bytes that are kept for sending again: hours of tokens, or minutes of audio."""
BUFFERED_BYTES = 64 << 20
"""Most bytes of output that wait to be taken; beyond that the socket is not read."""
END = End().model_dump_json()
PING = Ping().model_dump_json()
Message = bytes | str


class Codes(Generic[In, Out]):
    """Conversions of a stream between values and messages.

    Args:
        pack: Converts what is pushed to messages.
        unpack: Converts the bytes of an output to a value.
        unit: Bytes of the smallest piece of output; `None` if each message is a piece.
        count: Counts the samples of an output.
    """

    def __init__(
        self, pack: Callable[[In], list[Message]], unpack: Callable[[bytes], Out], unit: int | None, count: Callable[[Out], int]
    ) -> None:
        self.pack, self.unpack, self.unit, self.count = pack, unpack, unit, count


class AsyncStream(Generic[In, Out]):
    """One stream on a server, for one event loop, with the shape of a pool's stream.

    Attributes:
        ready: What the server said when it opened the stream.
        acknowledged: Frames of tokens, or samples of audio, that the server has taken, on the connection that is open.
        reconnects: Number of connections that broke and were replaced.
    """

    ready: Ready

    def __init__(self, server: Server, asked: Open, codes: Codes[In, Out]) -> None:
        self._server, self._asked, self._codes = server, asked, codes
        self.acknowledged = self.reconnects = 0
        self._log: deque[Message] = deque()
        self._dropped = self._log_bytes = 0
        self._keeps = True
        self._sent = 0
        self._changed = asyncio.Condition()
        self._finished = False
        self._outputs: deque[Out | None] = deque()
        self._buffered: deque[int] = deque()
        self._received = self._samples = self._tries = 0
        self._digest = hashlib.blake2b()
        self._error: CodecError | None = None
        self._over = False
        self._opened: asyncio.Future[Ready] | None = None
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> Self:
        """Connect, and wait until the server is ready.

        Raises:
            ConnectionLost: The server cannot be reached.
            CodecError: The server refused; of the class that it named.
        """
        self._opened = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._run())
        try:
            await self._opened
        except BaseException:
            await self.aclose()
            raise
        return self

    async def apush(self, value: In) -> None:
        """Send the next tokens, audio or ids; wait while the server takes no more.

        Raises:
            InvalidInput: The stream has ended, or the value cannot be sent.
            CodecError: The stream failed.
        """
        if self._finished:
            raise InvalidInput("the stream has ended; open another one")
        messages = self._codes.pack(value)
        async with self._changed:
            self._check()
            self._log.extend(messages)
            self._log_bytes += sum(map(len, messages))
            last = self._dropped + len(self._log)
            self._changed.notify_all()
            await self._changed.wait_for(lambda: self._sent >= last or self._over)
            self._check()

    async def afinish(self) -> None:
        """End the signal; the rest of its output follows.

        Raises:
            InvalidInput: The stream has ended.
            CodecError: The stream failed.
        """
        if self._finished:
            raise InvalidInput("the stream has ended; open another one")
        async with self._changed:
            self._check()
            self._finished = True
            self._log.append(END)
            self._changed.notify_all()

    async def aclose(self) -> None:
        """Leave at once; the server frees the stream."""
        self._finished = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        async with self._changed:
            self._end(None)
            self._changed.notify_all()

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(self, *details: object) -> None:
        await self.aclose()

    async def __aiter__(self) -> AsyncIterator[Out]:
        """Outputs as they come, each once. An error that ended the stream is raised after those that came before it."""
        while (output := await self.anext()) is not None:
            yield output

    async def anext(self) -> Out | None:
        """Wait for the next output; `None` at the end.

        Raises:
            CodecError: The stream failed; `ConnectionLost` if its server was lost before the end.
        """
        async with self._changed:
            await self._changed.wait_for(lambda: bool(self._outputs) or self._over)
            if self._outputs:
                self._buffered.popleft()
                output = self._outputs.popleft()
                self._changed.notify_all()
                return output
        if self._error:
            raise self._error
        return None

    def _check(self) -> None:
        if self._error:
            raise self._error
        if self._over:
            raise InvalidInput("the stream has ended; open another one")

    def _end(self, error: CodecError | None) -> None:
        if not self._over:
            self._over, self._error = True, error

    # the connection

    async def _run(self) -> None:
        error: CodecError | None = None
        try:
            await self._run_to_end()
        except CodecError as failed:
            error = failed
        except Exception as failed:
            error = ServiceError(f"the stream failed: {reason(failed)}", "protocol")
            error.__cause__ = failed
        if error is not None and self._opened is not None and not self._opened.done():
            self._opened.set_exception(error)
        async with self._changed:
            self._end(error)
            self._changed.notify_all()

    async def _run_to_end(self) -> None:
        while True:
            try:
                await self._connection()
                return
            except ServiceError as error:
                if error.code not in AGAIN or self._tries >= self._server.retries:
                    raise
                if not self._keeps:
                    raise ConnectionLost(
                        f"the connection broke after more than {KEPT_BYTES >> 20} MiB were pushed, which are not kept: {error}"
                    ) from error
                await asyncio.sleep(wait_before(self._tries))
                self._tries += 1
                if self._opened is not None and self._opened.done():
                    self.reconnects += 1

    async def _connection(self) -> None:
        """Run the stream on one connection, from its beginning to its end."""
        try:
            from websockets.asyncio.client import connect
            from websockets.exceptions import InvalidHandshake, InvalidStatus, WebSocketException
        except ImportError as error:
            raise missing("streams of a client need websockets", "client") from error
        server = self._server
        options: dict[str, Any] = {} if server.tls is None else {"ssl": server.tls}
        try:
            async with connect(
                server.stream_url,
                additional_headers=server.headers,
                compression=None,
                max_size=None,
                max_queue=4,
                open_timeout=server.timeout,
                ping_timeout=None,  # a server that waits for us does not read pings
                close_timeout=1,
                **options,
            ) as socket:
                await socket.send(self._asked.model_dump_json(exclude_none=True))
                await self._exchange(socket)
        except InvalidStatus as error:
            raise failure_of(error.response.status_code, bytes(error.response.body or b"")) from error
        except (OSError, WebSocketException, TimeoutError) as error:
            if isinstance(error, InvalidHandshake) and not isinstance(error.__cause__, EOFError):  # it did not merely break off
                raise ServiceError(f"{server.url} opens no stream: {reason(error)}", "protocol") from error
            raise ConnectionLost(
                f"the connection to {server.url} broke before the stream was complete: {reason(error)}"
            ) from error

    async def _exchange(self, socket: Any) -> None:
        sending: asyncio.Task[None] | None = None
        replay = Replay(self._received, self._digest.digest())
        self.acknowledged = 0
        try:
            while True:
                async with asyncio.timeout(self._server.timeout):
                    message = await socket.recv()
                if isinstance(message, bytes):
                    await self._receive(replay.push(message, self._codes.unit))
                    continue
                said = parsed(SERVER_MESSAGES, message)
                if isinstance(said, Ready):
                    self._begin(said)
                    sending = asyncio.create_task(self._send(socket))
                elif isinstance(said, Ended):
                    self._check_complete(said, replay)
                    return
                else:
                    self._note(said)
        finally:
            if sending is not None:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)

    def _begin(self, said: Ready) -> None:
        assert self._opened is not None
        if self._opened.done() and said != self.ready:
            raise ConnectionLost("the connection broke, and another server opens the stream otherwise; push all anew", "differs")
        self.ready = said
        if not self._opened.done():
            self._opened.set_result(said)

    def _note(self, said: ServerMessage) -> None:
        if isinstance(said, Error):
            raise error_of(said)
        if isinstance(said, Ack):
            self.acknowledged = said.taken

    def _check_complete(self, said: Ended, replay: Replay) -> None:
        if said.samples != self._samples or not replay.is_done:
            raise ConnectionLost(f"the server sent {said.samples} samples in all, but {self._samples} were received")

    async def _send(self, socket: Any) -> None:
        """Send all that is pushed, from the beginning; a ping while there is nothing."""
        number = self._dropped
        while True:
            async with self._changed:
                try:
                    async with asyncio.timeout(PING_SECONDS):
                        while number >= self._dropped + len(self._log):
                            await self._changed.wait()
                    message = self._log[number - self._dropped]
                except TimeoutError:
                    message = None
            await socket.send(PING if message is None else message)  # waits while the server does not read
            if message is not None:
                number += 1
                async with self._changed:
                    self._sent = max(self._sent, number)
                    self._forget(number)
                    self._changed.notify_all()

    def _forget(self, number: int) -> None:
        """Drop messages before `number`, once they are too many to keep."""
        self._keeps = self._keeps and self._log_bytes <= KEPT_BYTES
        while not self._keeps and self._dropped < number:
            self._log_bytes -= len(self._log.popleft())
            self._dropped += 1

    async def _receive(self, data: bytes) -> None:
        """Take output that is new."""
        if not data:
            return
        self._tries = 0
        self._received += len(data) if self._codes.unit else 1
        self._digest.update(data)
        output = self._codes.unpack(data)
        self._samples += self._codes.count(output)
        async with self._changed:
            self._outputs.append(output)
            self._buffered.append(len(data))
            self._changed.notify_all()
            await self._changed.wait_for(lambda: sum(self._buffered) < BUFFERED_BYTES)


class Replay:
    """Output that was received on an earlier connection, and comes once more.

    Args:
        due: Bytes of output that were received, or messages if these are its pieces.
        digest: Their digest.
    """

    def __init__(self, due: int, digest: bytes) -> None:
        self._due, self._wanted = due, digest
        self._digest = hashlib.blake2b()

    @property
    def is_done(self) -> bool:
        """True once all of it has come."""
        return not self._due

    def push(self, message: bytes, unit: int | None) -> bytes:
        """Return the part of a message that is new.

        Raises:
            ConnectionLost: What came again differs from what came before.
        """
        if not self._due:
            return message
        again = message[: self._due] if unit else message
        self._digest.update(again)
        self._due -= len(again) if unit else 1
        if not self._due and self._digest.digest() != self._wanted:
            raise ConnectionLost("the connection broke, and another server's output differs; push all anew", "differs")
        return message[len(again) :]


class Stream(Closable, Generic[In, Out]):
    """One stream on a server, for callers without an event loop. Its methods may be called from any thread.

    Args:
        stream: Makes the stream, in the event loop that runs in a thread of this one.
    """

    def __init__(self, stream: Callable[[], AsyncStream[In, Out]]) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="blazen-codec client", daemon=True)
        self._thread.start()

        async def opened() -> AsyncStream[In, Out]:
            return await stream().open()

        try:
            self._stream = self._wait(opened())
        except BaseException:
            self._stop()
            raise

    @property
    def ready(self) -> Ready:
        """Answer of the server when it opened the stream."""
        return self._stream.ready

    @property
    def acknowledged(self) -> int:
        """Frames of tokens, or samples of audio, that the server has taken."""
        return self._stream.acknowledged

    @property
    def reconnects(self) -> int:
        """Number of connections that broke and were replaced."""
        return self._stream.reconnects

    def push(self, value: In) -> None:
        """Send the next tokens, audio or ids, as `AsyncStream.apush`; wait while the server takes no more."""
        self._wait(self._stream.apush(value))

    def finish(self) -> None:
        """End the signal, as `AsyncStream.afinish`."""
        self._wait(self._stream.afinish())

    def __iter__(self) -> Iterator[Out]:
        """Outputs as they come, as those of `AsyncStream`."""
        while (output := self._wait(self._stream.anext())) is not None:
            yield output

    def close(self) -> None:
        """Leave at once; the server frees the stream."""
        if self._thread.is_alive():
            self._wait(self._stream.aclose())
            self._stop()

    def _wait(self, call: Coroutine[Any, Any, T]) -> T:
        if self._loop.is_closed():
            call.close()
            raise InvalidInput("the stream is closed; open another one")
        made: Future[T] = asyncio.run_coroutine_threadsafe(call, self._loop)
        return made.result()

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def split_bytes(data: bytes, unit: int) -> list[Message]:
    """Split bytes into messages of whole units, none larger than messages may be."""
    size = LARGEST_MESSAGE // unit * unit
    return [data[start : start + size] for start in range(0, len(data), size)]

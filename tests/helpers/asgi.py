"""ASGI applications on ports of this machine, for tests."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import uvicorn


@contextlib.contextmanager
def running(server: uvicorn.Server) -> Iterator[str]:
    """Run a server in a thread; give where it can be reached, such as `127.0.0.1:34567`."""
    socket = server.config.bind_socket()
    thread = threading.Thread(target=server.run, args=([socket],), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
        assert thread.is_alive()
    try:
        yield f"127.0.0.1:{socket.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(300)
        socket.close()
    assert not thread.is_alive()


def running_application(application: Any) -> AbstractContextManager[str]:
    """Run an ASGI application on a free port."""
    return running(uvicorn.Server(uvicorn.Config(application, port=0, log_level="warning")))

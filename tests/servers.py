"""A server of the comparison page in a thread, for tests."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn

from blazen_codec_core import LoadOptions
from blazen_codec_core.comparison.trips import Trip
from blazen_codec_core.evaluation import Judge
from blazen_codec_core.server.app import application
from blazen_codec_core.server.house import House, Limits

TINY = ("encodec_tiny", "snac_tiny", "dac_tiny")


@contextlib.contextmanager
def serving(names: tuple[str, ...] = TINY, judge: Judge | None = None, **limits: Any) -> Iterator[str]:
    """Where it can be reached, such as `127.0.0.1:34567`."""
    house = House(names, LoadOptions(device="cpu"), Limits(**limits), judge or Judge([]))
    config = uvicorn.Config(application(house), port=0, log_level="warning", ws_max_size=1 << 22)
    server = uvicorn.Server(config)
    socket = config.bind_socket()
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


def seconds_finished(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Of each recording that has been through a codec to its end, from now on."""
    finished: list[float] = []
    finish = Trip.finish

    def noted(trip: Trip) -> Any:
        finished.append(trip.seconds)
        return finish(trip)

    monkeypatch.setattr(Trip, "finish", noted)
    return finished

"""Iteration ahead of the consumer, in threads."""

from __future__ import annotations

import itertools
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")


def map_in_threads(work: Callable[[T], R], items: Iterable[T], threads: int) -> Iterator[R]:
    """Map `work` over items in threads, in order. At most `2 * threads` items are running or finished but not yet yielded."""
    remaining, running = iter(items), deque[Future[R]]()
    with ThreadPoolExecutor(threads, "blazen-codec reader") as pool:
        try:
            while True:
                running.extend(pool.submit(work, item) for item in itertools.islice(remaining, 2 * threads - len(running)))
                if not running:
                    return
                yield running.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def prefetch(values: Iterator[T], limit: int) -> Iterator[T]:
    """Iterate in a background thread that runs at most `limit` values ahead."""
    ready: queue.Queue[tuple[str, Any]] = queue.Queue(limit)
    cancelled = threading.Event()

    def put(kind: str, value: Any) -> None:
        while not cancelled.is_set():
            try:
                ready.put((kind, value), timeout=0.1)
                return
            except queue.Full:
                continue

    def work() -> None:
        try:
            for value in values:
                put("value", value)
                if cancelled.is_set():
                    return
            put("end", None)
        except BaseException as error:
            put("error", error)

    thread = threading.Thread(target=work, name="blazen-codec reader", daemon=True)
    thread.start()
    try:
        while True:
            kind, value = ready.get()
            if kind == "end":
                return
            if kind == "error":
                raise value
            yield value
    finally:
        cancelled.set()
        thread.join()

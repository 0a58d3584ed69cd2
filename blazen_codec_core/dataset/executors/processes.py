"""Executor over local processes: one per core with one thread each, or one per GPU."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any

from ...errors import InferenceError, LicenseNotice
from ...provider import DynCodecProvider
from ..jobs.base import Job, Work
from ..run_state import ShardResult

MOST_ON_WINDOWS = 61
"""Most processes that a pool can wait for there (`concurrent.futures`)."""
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def cores() -> int:
    """Number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def devices(codec: DynCodecProvider) -> list[str]:
    """List a device per worker: one per core, or every GPU unless the codec was loaded onto a specific one."""
    if codec.options.device == "cpu":  # no need to resolve the device
        return ["cpu"] * cores()
    if codec.device.startswith("cuda"):
        import torch

        if ":" not in codec.options.device:
            return [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    return [codec.device] * (cores() if codec.device == "cpu" else 1)


def run(job: Job, numbers: Iterable[int], places: Sequence[str], threads: int | None) -> Iterator[ShardResult]:
    """Run shards in processes; yield results as they complete.

    Args:
        places: Device of each process.
        threads: Threads per process; `None` for the libraries' default.

    Raises:
        InferenceError: A process died.
        CodecError: A shard raised it.
    """
    context, places = _Spawning(), places[: MOST_ON_WINDOWS if os.name == "nt" else None]
    settings = (job, tuple(places), context.Value("i", 0), threads)
    pool = ProcessPoolExecutor(len(places), context, initializer=_begin, initargs=settings)
    left, running = iter(numbers), set[Future[ShardResult]]()
    try:
        while True:
            running |= {pool.submit(_do, number) for number in itertools.islice(left, 2 * len(places) - len(running))}
            if not running:
                break
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in finished)
    except BrokenProcessPool as error:
        raise InferenceError(
            "a worker process died, possibly out of memory. Finished shards are kept. Run again with fewer workers"
        ) from error
    finally:
        for process in context.started:
            process.terminate()
        pool.shutdown(cancel_futures=True)


class _Spawning(SpawnContext):
    """Spawn context that remembers its processes, which the pool does not expose."""

    def __init__(self) -> None:
        super().__init__()
        self.started: list[SpawnProcess] = []

    def Process(self, *args: Any, **options: Any) -> SpawnProcess:  # type: ignore[override]  # noqa: N802 its name in the library
        self.started.append(SpawnProcess(*args, **options))
        return self.started[-1]


_mine: dict[str, Any] = {}
"""Job and device of a worker process."""


def _begin(job: Job, places: tuple[str, ...], count: Any, threads: int | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles it
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    warnings.simplefilter("ignore", LicenseNotice)  # the parent has issued it
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if threads is not None:
        os.environ.update(dict.fromkeys(THREADS, str(threads)))  # read when torch is imported, later
    with count.get_lock():
        place, count.value = count.value, count.value + 1
    _mine.update(job=job, device=places[place % len(places)])


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@cache
def _work() -> Work:
    job: Job = _mine["job"]
    return job.start(_mine["device"])


def _do(number: int) -> ShardResult:
    return _work()(number)

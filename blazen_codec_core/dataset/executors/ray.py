"""Shards over many machines, on Ray Data: actors that hold a codec, each given one shard after the other.

Ray starts actors where there is room, and does again on another machine what was lost with one. It is handed numbers of shards
and hands back what became of them; recordings and tokens go by the file system, which all machines must see at the same place.
"""

from __future__ import annotations

import json
import logging
import pickle
import socket
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ...errors import CodecError, EngineNotAvailable, InferenceError, reason
from ...foreign_json import parse_object
from ..jobs.base import Job, Work
from ..run_state import ShardResult
from ..seals import LARGEST

ANSWERS_WITHIN = 10.0
"""Seconds in which a cluster must; Ray itself would try for minutes."""


@dataclass(frozen=True)
class Cluster:
    """Settings of a run on Ray.

    Attributes:
        address: Of the cluster; `None` for the one that this process is connected to, or else a new one on this machine.
        workers: Actors: the fewest and the most that there may be; Ray starts more while there is work and room.
        cpus: Cores of an actor, and its threads.
        gpus: GPUs of an actor; a fraction for several on one.
    """

    address: str | None = None
    workers: tuple[int, int] = (1, 1_000)
    cpus: float = 1.0
    gpus: float = 0.0


class ShardActor:
    """Holds a codec, which is loaded once."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._work: Work | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[bytes]]:
        """Does the shards of a batch. Errors of ours are handed back: Ray would wrap them, or try again."""
        try:
            work = self._work = self._work or self._job.start()
            results = [json.dumps(asdict(work(int(number)))).encode() for number in batch["shard"]]
        except CodecError as error:
            return {"done": [b""], "error": [pickle.dumps(error)]}
        return {"done": results, "error": [b""] * len(results)}


def run(job: Job, numbers: Sequence[int], cluster: Cluster) -> Iterator[ShardResult]:
    """Does shards on a cluster, and gives what became of each as they are done.

    Raises:
        EngineNotAvailable: Ray is not installed, or the cluster cannot be reached.
        CodecError: What a shard raised.
        InferenceError: Ray gave up.
    """
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise EngineNotAvailable("clusters need Ray: pip install 'blazen-codec-core[ray]'") from error
    ours = not ray.is_initialized()
    if ours:
        try:
            _check_answers(cluster.address or "")
            ray.init(cluster.address, log_to_driver=False, logging_level=logging.ERROR)
        except (OSError, ValueError, RuntimeError) as error:
            raise EngineNotAvailable(f"the Ray cluster {cluster.address or 'here'} cannot be used: {reason(error)}") from error
    try:
        ray.data.DataContext.get_current().enable_progress_bars = False
        least, most = (min(count, len(numbers)) for count in cluster.workers)
        done = ray.data.from_items([{"shard": number} for number in numbers], override_num_blocks=len(numbers)).map_batches(
            ShardActor,
            fn_constructor_args=(job,),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(min_size=least, max_size=most, max_tasks_in_flight_per_actor=2),
            num_cpus=cluster.cpus,
            num_gpus=cluster.gpus or None,
        )
        for row in done.iter_rows():
            if row["error"]:
                raise pickle.loads(row["error"])
            yield ShardResult.of(parse_object(row["done"], largest=LARGEST, most=LARGEST, lenient=True))
    except ray.exceptions.RayError as error:
        raise InferenceError(f"Ray gave up: {reason(error)}; what is done is kept") from error
    finally:
        if ours:
            ray.shutdown()


def _check_answers(address: str) -> None:
    """Raises `OSError` where nothing answers at an address of the form `host:port`."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), ANSWERS_WITHIN).close()

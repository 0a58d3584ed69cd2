"""Executor on Ray Data: actors that each hold a codec and process one shard at a time.

Ray schedules actors and retries work that is lost with a machine. It transfers only shard numbers and results. Recordings and
tokens go through the file system, which all machines must mount at the same path.
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
from ...installation import missing
from ..jobs.base import Job, Work
from ..run_state import ShardResult
from ..seals import LARGEST

ANSWERS_WITHIN = 10.0
"""Timeout in seconds for reaching a cluster; Ray itself retries for minutes."""


@dataclass(frozen=True)
class Cluster:
    """Settings of a run on Ray.

    Attributes:
        address: Address of the cluster. `None` uses the connected cluster, or starts one on this machine.
        workers: Minimum and maximum number of actors; Ray scales between them.
        cpus: CPU cores, and threads, per actor.
        gpus: GPUs per actor; a fraction lets actors share a GPU.
    """

    address: str | None = None
    workers: tuple[int, int] = (1, 1_000)
    cpus: float = 1.0
    gpus: float = 0.0


class ShardActor:
    """Ray actor that loads a codec once."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._work: Work | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[bytes]]:
        """Run the shards of a batch. Return `CodecError`s as data, because Ray would wrap them or retry."""
        try:
            work = self._work = self._work or self._job.start()
            results = [json.dumps(asdict(work(int(number)))).encode() for number in batch["shard"]]
        except CodecError as error:
            return {"done": [b""], "error": [pickle.dumps(error)]}
        return {"done": results, "error": [b""] * len(results)}


def run(job: Job, numbers: Sequence[int], cluster: Cluster) -> Iterator[ShardResult]:
    """Run shards on a cluster; yield results as they complete.

    Raises:
        EngineNotAvailable: Ray is not installed, or the cluster cannot be reached.
        CodecError: A shard raised it.
        InferenceError: Ray failed.
    """
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise missing("clusters need Ray", "ray") from error
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
        raise InferenceError(f"Ray failed: {reason(error)}. Finished shards are kept. Run again to resume") from error
    finally:
        if ours:
            ray.shutdown()


def _check_answers(address: str) -> None:
    """Raise `OSError` if nothing answers at an address of the form `host:port`."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), ANSWERS_WITHIN).close()

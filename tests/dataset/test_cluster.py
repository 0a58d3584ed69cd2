"""Datasets on Ray: a local cluster of two nodes."""

from __future__ import annotations

import threading
import time

import pytest

import blazen_codec_core as bc
from blazen_codec_core.dataset import shards
from tests.helpers.corpora import corpus

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # Ray warns of itself
ray = pytest.importorskip("ray", reason="Ray is in the session `slow`, and brings some forty packages")
SHORT = 0.05


def contents(out) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in shards.files(out)}


@pytest.fixture(scope="module")
def cluster():
    """A cluster of two nodes of one core, to which this process is connected; the last test takes one away."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    made.add_node(num_cpus=1)
    made.connect()
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return corpus(tmp_path_factory.mktemp("many"), 60, broken=2)


@pytest.fixture(scope="module")
def whole(source, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "out"
    bc.tokenize_dataset(source, "snac_tiny", out, shard_minutes=SHORT, executor=bc.Executor(workers=1))
    return out


def test_a_cluster_that_is_not_there_is_an_error(source, tmp_path):
    executor = bc.Executor(cluster=bc.Cluster(address="127.0.0.1:1"))
    with pytest.raises(bc.EngineNotAvailable, match=r"127\.0\.0\.1:1 cannot be used: .*refused"):
        bc.tokenize_dataset(source, "snac_tiny", tmp_path / "out", executor=executor)


def test_errors_come_back_as_they_are_and_a_run_can_be_gone_on_with(cluster, source, whole, tmp_path):
    executor = bc.Executor(cluster=bc.Cluster())
    with pytest.raises(bc.CorruptFile, match="cannot be read as audio"):
        bc.tokenize_dataset(source, "snac_tiny", tmp_path / "out", shard_minutes=SHORT, strict=True, executor=executor)
    bc.tokenize_dataset(source, "snac_tiny", tmp_path / "out", shard_minutes=SHORT, executor=executor)
    assert contents(tmp_path / "out") == contents(whole)


def test_audio_comes_back_from_a_cluster_too(cluster, whole, tmp_path):
    summary = bc.detokenize_dataset(whole, tmp_path / "out", executor=bc.Executor(cluster=bc.Cluster()))
    assert summary.rows == 58 == len(list((tmp_path / "out").rglob("*.wav")))


def test_a_node_that_is_lost_leaves_the_same_dataset(cluster, source, whole, tmp_path):
    out, done, lost = tmp_path / "out", [], threading.Event()
    (worker,) = cluster.worker_nodes

    def lose() -> None:
        while len(done) < 3:
            time.sleep(0.05)
        cluster.remove_node(worker, allow_graceful=False)
        lost.set()

    from contextlib import contextmanager

    @contextmanager
    def progress(what, seconds):
        yield lambda seconds: done.append(seconds) if what == "tokenizing" else None

    killer = threading.Thread(target=lose)
    killer.start()
    executor = bc.Executor(cluster=bc.Cluster(workers=(2, 2)))
    summary = bc.tokenize_dataset(source, "snac_tiny", out, shard_minutes=SHORT, executor=executor, progress=progress)
    killer.join()
    assert lost.is_set()
    assert len([node for node in ray.nodes() if node["Alive"]]) == 1
    assert (summary.rows, summary.failed) == (58, 2)
    assert len(done) == summary.shards > 10
    assert contents(out) == contents(whole)
    assert bc.tokenize_dataset(source, "snac_tiny", out, shard_minutes=SHORT).new_seconds == 0

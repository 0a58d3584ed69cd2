"""Metrics in the format of Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from time import monotonic

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from ...pools import PoolStats

STEP_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
POOL = ("codec", "direction")
PoolLabels = tuple[str, str]


class _Pools(Collector):
    """Figures of the pools at the time of a scrape."""

    GAUGES: Mapping[str, tuple[str, Callable[[PoolStats], float]]] = {
        "streams_open": ("Open streams.", lambda stats: stats.open),
        "ready_rows": ("Streams that the next step runs.", lambda stats: stats.ready),
        "held_streams": ("Streams that wait until their clients take what is ready.", lambda stats: stats.held),
        "queue_seconds": ("Seconds of audio that wait for a step.", lambda stats: stats.queued_seconds),
    }

    def __init__(self, stats: Callable[[], Iterable[tuple[PoolLabels, PoolStats]]]) -> None:
        self._stats = stats

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the gauges, summed over the pools of each codec and direction."""
        pools = list(self._stats())
        for name, (help, value) in self.GAUGES.items():
            gauge = GaugeMetricFamily(f"blazen_codec_{name}", help, labels=POOL)
            totals: dict[PoolLabels, float] = {}
            for labels, stats in pools:
                totals[labels] = totals.get(labels, 0.0) + value(stats)
            for labels, total in totals.items():
                gauge.add_metric(labels, total)
            yield gauge


class Metrics:
    """Metrics of a server, in a registry of their own.

    Args:
        stats: Gives the labels and the figures of all pools.
    """

    def __init__(self, stats: Callable[[], Iterable[tuple[PoolLabels, PoolStats]]]) -> None:
        registry = self._registry = CollectorRegistry()
        registry.register(_Pools(stats))
        self.streams = Counter("blazen_codec_streams", "Streams that were opened.", POOL, registry=registry)
        self.steps = Histogram(
            "blazen_codec_step_seconds", "Seconds of a step of a pool.", POOL, registry=registry, buckets=STEP_SECONDS
        )
        self.rows = Counter("blazen_codec_step_rows", "Tiles that were run, over all steps.", POOL, registry=registry)
        self.audio = Counter(
            "blazen_codec_audio_seconds", "Seconds of audio that streams sent, or took.", POOL, registry=registry
        )
        self.underruns = Counter(
            "blazen_codec_underruns",
            "Messages of audio that were sent after the audio before had been played.",
            ("codec",),
            registry=registry,
        )
        self.rejected = Counter(
            "blazen_codec_rejected", "Requests and streams that failed, by code.", ("reason",), registry=registry
        )
        self.requests = Counter("blazen_codec_http_requests", "HTTP requests.", ("route", "status"), registry=registry)

    def exposition(self) -> bytes:
        """Return all metrics as text."""
        return generate_latest(self._registry)


class Playback:
    """Playback of one listener who plays what arrives, from the first audio on."""

    def __init__(self, underruns: Counter) -> None:
        self._underruns = underruns
        self._plays_until: float | None = None

    def hear(self, seconds: float) -> None:
        """Count audio that is sent now."""
        now = monotonic()
        if self._plays_until is not None and now > self._plays_until:
            self._underruns.inc()
        self._plays_until = max(now, self._plays_until or now) + seconds

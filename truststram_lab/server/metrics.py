"""What the process has done and holds, as Prometheus reads it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from .serving.interface import Load

__all__ = ["CONTENT_TYPE", "Metrics"]

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

#: of a request's duration, in seconds
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"})


class Metrics:
    """Counters that the layers add to, and gauges that are read when somebody asks.

    Labels have as many values as the API has operations, and the platform has deployments and
    versions; nothing that a caller makes up is one.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._known: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self._answered: dict[tuple[str, str, str, int], tuple[Counter, Counter]] = {}
        ProcessCollector(registry=self._registry)
        self._requests = Counter(
            "truststram_http_requests",
            "Requests that were answered, by operation of the API.",
            ["operation", "method", "status"],
            registry=self._registry,
        )
        self._seconds = Histogram(
            "truststram_http_request_seconds",
            "From the first byte of a request to the last of its answer.",
            ["operation"],
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self._predictions = Counter(
            "truststram_predictions",
            "Requests that a version answered.",
            ["organisation", "model", "version", "status"],
            registry=self._registry,
        )
        self._rows = Counter(
            "truststram_predicted_rows",
            "Rows that a version answered.",
            ["organisation", "model", "version"],
            registry=self._registry,
        )

    def request(self, operation: str, method: str, status: int, seconds: float) -> None:
        """A request was answered."""
        method = method if method in _METHODS else "other"
        key = operation, method, status
        found = self._known.get(key)
        if found is None:
            # Finding the series costs as much as counting.
            found = self._known[key] = (
                self._requests.labels(operation, method, str(status)),
                self._seconds.labels(operation),
            )
        found[0].inc()
        found[1].observe(seconds)

    def prediction(
        self, organisation: str, model: str, version: str, status: int, rows: int
    ) -> None:
        """A version answered a request."""
        key = organisation, model, version, status
        found = self._answered.get(key)
        if found is None:
            found = self._answered[key] = (
                self._predictions.labels(organisation, model, version, str(status)),
                self._rows.labels(organisation, model, version),
            )
        found[0].inc()
        if rows:
            found[1].inc(rows)

    def watch(self, load: Callable[[], Load]) -> None:
        """Read the workers' load when somebody asks."""
        self._registry.register(_Workers(load))

    def text(self) -> bytes:
        """Everything, in the text format 0.0.4."""
        return generate_latest(self._registry)


class _Workers(Collector):
    """The prediction workers and what waits for them."""

    def __init__(self, load: Callable[[], Load]) -> None:
        self._load = load

    def describe(self) -> list[Metric]:
        """Nothing: what there is depends on the moment."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The families, read now."""
        load = self._load()
        workers = GaugeMetricFamily(
            "truststram_prediction_workers", "Worker processes.", labels=["pool", "runtime"]
        )
        waiting = GaugeMetricFamily(
            "truststram_predictions_waiting",
            "Requests that wait for a worker.",
            labels=["pool", "runtime"],
        )
        for pool in load.pools:
            workers.add_metric([pool.name, pool.runtime], pool.workers)
            waiting.add_metric([pool.name, pool.runtime], pool.waiting)
        yield workers
        yield waiting
        for name, text, value in (
            ("prediction_batches", "Batches that workers answered.", load.batches),
            ("prediction_busy_seconds", "Time that workers took for batches.", load.busy_s),
            ("prediction_workers_started", "Worker processes ever.", load.workers_started),
        ):
            yield CounterMetricFamily(f"truststram_{name}", text, value=value)

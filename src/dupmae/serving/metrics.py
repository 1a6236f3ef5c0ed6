"""What the server counts of itself, for Prometheus."""

from __future__ import annotations

import os

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""Environment variable with the folder in which several workers count together."""


class Metrics:
    """Counters of one server."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter("dupmae_requests", "Requests answered.", ["route", "status"], registry=self._registry)
        self._seconds = Histogram(
            "dupmae_request_seconds",
            "Time from a request's headers to its answer's end.",
            ["route"],
            registry=self._registry,
            buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30),
        )
        self._queries = Counter("dupmae_queries", "Queries searched.", ["index"], registry=self._registry)
        self._batches = Counter("dupmae_batches", "Batches of queries searched.", ["index"], registry=self._registry)

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Count a request."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def searched(self, index: str, queries: int) -> None:
        """Count a batch of queries."""
        self._queries.labels(index).inc(queries)
        self._batches.labels(index).inc()

    def written(self) -> bytes:
        """Write all in Prometheus' text format; of several workers their sums."""
        registry = self._registry
        if FOLDER in os.environ:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)

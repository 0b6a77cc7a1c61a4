"""Metrics of the HTTP server, in Prometheus form at `/metrics`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rsearch_cli.services.spend import Spend
from rsearch_cli.serving.engine import ServingEngine

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)


class ServerMetrics:
    """The metrics of one server, in a registry of its own.

    Args:
        engine: Its queue, its counters and the budget of its agent are read on request.
    """

    def __init__(self, engine: ServingEngine) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "rsearch_requests", "HTTP requests.", ["route", "status"], registry=registry
        )
        self.in_flight = Gauge(
            "rsearch_requests_in_flight", "HTTP requests in flight.", registry=registry
        )
        self._seconds = Histogram(
            "rsearch_request_seconds",
            "Time from a question's arrival to the end of its answer.",
            buckets=_SECONDS,
            registry=registry,
        )
        self._first_token = Histogram(
            "rsearch_first_token_seconds",
            "Time from a question's arrival to the first text of its streamed answer.",
            buckets=_SECONDS,
            registry=registry,
        )
        registry.register(_EngineCollector(engine))

    def count_request(self, route: str, status: int) -> None:
        """Count a finished request; status 0 is a client that hung up before the response."""
        self._requests.labels(route, str(status)).inc()

    def observe_first_token(self, seconds: float) -> None:
        """Record how long a client waited for the first text."""
        self._first_token.observe(seconds)

    def observe_answer(self, seconds: float) -> None:
        """Record how long a client waited for a finished answer."""
        self._seconds.observe(seconds)

    def render(self) -> tuple[bytes, str]:
        """Return the text for Prometheus, and its content type."""
        from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

        return generate_latest(self._registry), CONTENT_TYPE_LATEST


class _EngineCollector:
    """Reads the engine's counters and the budget whenever Prometheus asks."""

    def __init__(self, engine: ServingEngine) -> None:
        self._engine = engine

    def describe(self) -> list[Any]:
        """Return nothing, so that registering does not read the budget."""
        return []

    def collect(self) -> Iterator[Any]:
        """Yield the current values."""
        from prometheus_client.core import (
            CounterMetricFamily,
            GaugeMetricFamily,
            SummaryMetricFamily,
        )

        engine = self._engine
        done = engine.counters
        yield GaugeMetricFamily(
            "rsearch_queue_depth", "Questions that wait for their turn.", engine.waiting
        )
        yield GaugeMetricFamily(
            "rsearch_running", "Questions that are being answered.", engine.running
        )
        outcomes = CounterMetricFamily("rsearch_questions", "Questions.", labels=["outcome"])
        for outcome, number in sorted(done.requests.items()):
            outcomes.add_metric([outcome], number)
        yield outcomes
        yield SummaryMetricFamily(
            "rsearch_batch_rows",
            "Questions that share one generation of local weights.",
            done.batches,
            done.rows,
        )
        yield CounterMetricFamily("rsearch_tokens", "Tokens that were generated.", done.tokens)
        yield CounterMetricFamily("rsearch_searches", "Searches.", done.searches)
        yield CounterMetricFamily(
            "rsearch_searches_failed", "Searches without an answer.", done.failed_searches
        )
        yield CounterMetricFamily(
            "rsearch_reads_failed", "Pages that could not be read.", done.failed_reads
        )
        yield from _collect_spend(engine.agent.budget.snapshot())


def _collect_spend(spend: Spend) -> Iterator[Any]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    # A gauge, because it falls when a call costs less than was reserved for it.
    usd = GaugeMetricFamily(
        "rsearch_spend_usd", "Dollars paid or reserved for calls in flight.", labels=["service"]
    )
    for service, spent in sorted(spend.services.items()):
        usd.add_metric([service], spent.usd)
    yield usd
    numbers = {
        "calls": ("rsearch_service_calls", "Calls of services."),
        "hits": ("rsearch_cache_hits", "Requests to services that needed no call."),
        "failed": ("rsearch_service_failures", "Requests to services without an answer."),
    }
    for field, (name, text) in numbers.items():
        family = CounterMetricFamily(name, text, labels=["service"])
        for service, spent in sorted(spend.services.items()):
            family.add_metric([service], getattr(spent, field))
        yield family
    if spend.max_usd is not None:
        yield GaugeMetricFamily("rsearch_budget_usd", "The spending limit.", spend.max_usd)

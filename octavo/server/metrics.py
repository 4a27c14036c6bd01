"""What is counted of requests, and what the engine is at, for Prometheus.

Owns one registry. Counters and histograms grow as requests are heard; gauges are read from the
engine when somebody looks.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily as CounterFamily
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from octavo.server.running import Engine
from octavo.types import Finished, PageCounts, Timing

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
TOKENS = tuple(2**k for k in range(18))

# Ours -> vLLM's, for dashboards that were made for it. What it has no word for keeps ours.
VLLM: Mapping[str, str] = {
    "octavo_requests_running": "vllm:num_requests_running",
    "octavo_requests_waiting": "vllm:num_requests_waiting",
    "octavo_page_use_ratio": "vllm:kv_cache_usage_perc",
    "octavo_requests_finished": "vllm:request_success",
    "octavo_preemptions": "vllm:num_preemptions",
    "octavo_prompt_tokens": "vllm:prompt_tokens",
    "octavo_completion_tokens": "vllm:generation_tokens",
    "octavo_cached_tokens": "vllm:prefix_cache_hits",
    "octavo_searched_tokens": "vllm:prefix_cache_queries",
    "octavo_queue_seconds": "vllm:request_queue_time_seconds",
    "octavo_prefill_seconds": "vllm:request_prefill_time_seconds",
    "octavo_decode_seconds": "vllm:request_decode_time_seconds",
    "octavo_time_to_first_token_seconds": "vllm:time_to_first_token_seconds",
    "octavo_inter_token_seconds": "vllm:inter_token_latency_seconds",
    "octavo_request_seconds": "vllm:e2e_request_latency_seconds",
    "octavo_request_prompt_tokens": "vllm:request_prompt_tokens",
    "octavo_request_completion_tokens": "vllm:request_generation_tokens",
    "reason": "finished_reason",  # a label
}
NAMES: Mapping[str, Mapping[str, str]] = {"octavo": {}, "vllm": VLLM}


class Metrics:
    """Of an engine that has started; `names` is one of NAMES."""

    def __init__(self, engine: Engine, names: str = "octavo") -> None:
        self._names, self._model = NAMES[names], engine.name
        self._registry = CollectorRegistry()
        reason = self._names.get("reason", "reason")
        self._finished = self._counter("requests_finished", "Requests by why they ended.", reason)
        self._errors = self._counter("errors", "Requests refused or failed, by status.", "status")
        self._prompt = self._counter("prompt_tokens", "Tokens of prompts.")
        self._searched = self._counter("searched_tokens", "Tokens looked for in cached pages.")
        self._cached = self._counter("cached_tokens", "Tokens found in cached pages.")
        self._completion = self._counter("completion_tokens", "Tokens generated.")
        self._preemptions = self._counter("preemptions", "Times a sequence gave its pages back.")
        self._queue = self._seconds("queue", "From acceptance to the first step.")
        self._prefill = self._seconds("prefill", "From the first step to the first token.")
        self._decode = self._seconds("decode", "From the first token to the end.")
        self._first = self._seconds("time_to_first_token", "From acceptance to the first token.")
        self._between = self._seconds("inter_token", "From one token to the next.")
        self._whole = self._seconds("request", "From acceptance to the end.")
        self._prompts = self._tokens("request_prompt_tokens", "Tokens of a prompt.")
        self._completions = self._tokens("request_completion_tokens", "Tokens of an answer.")
        self._registry.register(_Gauges(engine, self._names))

    def exposition(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self._registry)

    def refused(self, status: int) -> None:
        self._errors.labels(self._model, str(status)).inc()

    def first_token(self, seconds: float) -> None:
        self._first.observe(seconds)

    def next_token(self, seconds: float) -> None:
        self._between.observe(seconds)

    def left(self) -> None:
        """Its client went before the end."""
        self._finished.labels(self._model, "cancelled").inc()

    def finished(self, end: Finished) -> None:
        self._finished.labels(self._model, end.reason).inc()
        usage, timing = end.usage, end.timing
        self._prompt.inc(usage.prompt_tokens)
        self._searched.inc(usage.prompt_tokens)
        self._cached.inc(usage.cached_tokens)
        self._completion.inc(usage.completion_tokens)
        self._preemptions.inc(timing.preemptions)
        self._prompts.observe(usage.prompt_tokens)
        self._completions.observe(usage.completion_tokens)

    def took(self, timing: Timing, seconds: float) -> None:
        """One for which somebody waited: the background says nothing of how fast this is."""
        self._queue.observe(timing.waiting)
        self._prefill.observe(timing.prefill)
        self._decode.observe(timing.decode)
        self._whole.observe(seconds)

    def _counter(self, name: str, help: str, *labels: str) -> Any:
        counter = Counter(
            _named(name, self._names), help, ["model_name", *labels], registry=self._registry
        )
        return counter if labels else counter.labels(self._model)

    def _seconds(self, name: str, help: str) -> Any:
        return self._histogram(f"{name}_seconds", f"{help} In seconds.", SECONDS)

    def _tokens(self, name: str, help: str) -> Any:
        return self._histogram(name, help, TOKENS)

    def _histogram(self, name: str, help: str, buckets: tuple[float, ...]) -> Any:
        histogram = Histogram(
            _named(name, self._names),
            help,
            ["model_name"],
            buckets=buckets,
            registry=self._registry,
        )
        return histogram.labels(self._model)


class _Gauges(Collector):
    def __init__(self, engine: Engine, names: Mapping[str, str]) -> None:
        self._engine, self._names = engine, names

    def describe(self) -> Iterator[Any]:
        return iter(())

    def collect(self) -> Iterator[Any]:
        load = self._engine.load
        yield self._gauge(
            "requests_running", "Sequences that run, beside the background.", load.num_running
        )
        yield self._gauge(
            "requests_waiting", "Sequences that wait, beside the background.", load.num_waiting
        )
        yield self._gauge(
            "requests_background",
            "Sequences in the background, running or waiting.",
            load.num_background,
        )
        yield self._gauge("batch_size", "Sequences of the last step.", load.batch_size)
        yield self._gauge("prefix_hit_ratio", "Of all prompt tokens, cached.", load.hit_ratio)
        use = max(group.held / group.total for group in load.pages)
        yield self._gauge("page_use_ratio", "Of the fullest group's pages, held.", use)
        yield self._pages(load.pages)
        failures = CounterFamily(
            "octavo_step_failures", "Steps that failed, by cause.", labels=["model_name", "cause"]
        )
        for cause, count in load.step_failures.items():
            failures.add_metric([self._engine.name, cause], count)
        yield failures

    def _gauge(self, name: str, help: str, value: float) -> Any:
        gauge = GaugeMetricFamily(_named(name, self._names), help, labels=["model_name"])
        gauge.add_metric([self._engine.name], value)
        return gauge

    def _pages(self, groups: Sequence[PageCounts]) -> Any:
        """Held pages serve requests; free ones are findable as long as a prefix may want them."""
        gauge = GaugeMetricFamily(
            "octavo_pages", "KV pages by state.", labels=["model_name", "group", "state"]
        )
        for index, group in enumerate(groups):
            states = {"held": group.held, "free": group.total - group.held}
            for state, count in states.items():
                gauge.add_metric([self._engine.name, str(index), state], count)
            gauge.add_metric([self._engine.name, str(index), "findable"], group.findable)
        return gauge


def _named(name: str, names: Mapping[str, str]) -> str:
    own = f"octavo_{name}"
    return names.get(own, own)

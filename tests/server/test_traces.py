"""Traces: one span a request, its phases within, and nothing of it unless asked for."""

import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx
import pytest
from checkpoints import write_tiny
from echoes import EchoEngine
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from serving import serving, wait_until
from starlette.middleware import Middleware

from octavo.config import Config
from octavo.engine.async_engine import AsyncEngine
from octavo.errors import BadConfig
from octavo.server.traces import Continued, Traces

CHAT = "/v1/chat/completions"
SECRET = "the fox is in the hen-house"
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Collected:
    """Of a server: its URL, and spans by name once they have ended."""

    def __init__(self, engine):
        self.memory = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self.memory))
        traces = Traces(provider)
        options = {"listeners": [traces.open], "middleware": [Middleware(Continued)]}
        self._serving = serving(engine, **options)

    def __enter__(self):
        _, self.url = self._serving.__enter__()
        return self

    def __exit__(self, *error):
        self._serving.__exit__(*error)

    def ask(self, text=SECRET, headers=None, **fields):
        body = {"model": "echo", "messages": [{"role": "user", "content": text}], **fields}
        self.memory.clear()
        return httpx.post(self.url + CHAT, json=body, headers=headers, timeout=60)

    def roots(self):
        return [s for s in self.memory.get_finished_spans() if s.kind == SpanKind.SERVER]

    def root(self):
        wait_until(self.roots)
        (root,) = self.roots()
        return root

    def within(self, root):
        spans = self.memory.get_finished_spans()
        return [s for s in spans if s.parent and s.parent.span_id == root.context.span_id]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    path = write_tiny(tmp_path_factory.mktemp("models") / "echo.gguf")
    with Collected(AsyncEngine(Config(str(path), memory=64 << 20))) as collected:
        yield collected


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_is_a_span_and_its_phases_are_within(tiny, stream):
    asked = {"max_tokens": 5, "temperature": 0.5, "seed": 7, "ignore_eos": True}
    reply = tiny.ask(**asked, stream=stream, stop=["never said"])
    root = tiny.root()
    told = httpx.get(f"{tiny.url}/v1/requests/{reply.headers['x-request-id']}/explain").json()
    choice = told["choices"][0]
    assert root.name == "chat echo"
    attributes = dict(root.attributes)
    assert 0 < attributes.pop("gen_ai.response.time_to_first_chunk") < 60
    assert attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "octavo",
        "gen_ai.request.model": "echo",
        "gen_ai.response.model": "echo",
        "gen_ai.response.id": told["id"],
        "gen_ai.request.choice.count": 1,
        "gen_ai.request.stream": stream,
        "gen_ai.request.max_tokens": 5,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.top_p": 1.0,
        "gen_ai.request.seed": 7,
        "gen_ai.request.frequency_penalty": 0.0,
        "gen_ai.request.presence_penalty": 0.0,
        "gen_ai.response.finish_reasons": ("length",),
        "gen_ai.usage.input_tokens": choice["tokens"]["prompt"],
        "gen_ai.usage.output_tokens": 5,
        "gen_ai.usage.cache_read.input_tokens": choice["tokens"]["cached"],
    }
    queue, prefill, decode = tiny.within(root)
    assert [span.name for span in (queue, prefill, decode)] == ["queue", "prefill", "decode"]
    for span in (queue, prefill, decode):
        seconds = (span.end_time - span.start_time) / 1e9
        assert seconds == pytest.approx(choice["seconds"][span.name], abs=1e-6)
    assert queue.end_time == prefill.start_time
    assert prefill.end_time == decode.start_time
    assert root.start_time <= queue.start_time
    # The clocks of spans and of the engine are two: only another unit would be so far off.
    assert decode.end_time <= root.end_time + 10**10


def test_every_answer_has_its_phases_and_a_prompt_counts_once(tiny):
    tiny.ask("ab", n=3, max_tokens=2, ignore_eos=True)
    root = tiny.root()
    assert root.attributes["gen_ai.request.choice.count"] == 3
    assert root.attributes["gen_ai.usage.output_tokens"] == 6
    alone = tiny.ask("ab", max_tokens=1).json()["usage"]["prompt_tokens"]
    assert root.attributes["gen_ai.usage.input_tokens"] == alone


def test_no_text_is_in_any_span(tiny):
    said = tiny.ask(SECRET, max_tokens=20, stop=["hen"], seed=7, ignore_eos=True).json()
    tiny.root()
    spans = "".join(span.to_json() for span in tiny.memory.get_finished_spans())
    answer = said["choices"][0]["message"]["content"]
    assert "hen" not in spans
    assert len(answer) > 3
    assert answer not in spans


def test_the_trace_of_the_caller_goes_on(tiny):
    tiny.ask("ab", headers={"traceparent": PARENT}, max_tokens=1)
    root = tiny.root()
    assert f"{root.context.trace_id:032x}" == PARENT.split("-")[1]
    assert f"{root.parent.span_id:016x}" == PARENT.split("-")[2]
    for broken in ("", "00-0-0-0", "é", "00" * 500):
        headers = {"traceparent": broken.encode()}
        assert tiny.ask("ab", headers=headers, max_tokens=1).status_code == 200
        assert tiny.root().parent is None


@pytest.mark.parametrize(("text", "error"), [("ab?", "error"), ("ab", "timeout")])
def test_what_fails_is_an_error_in_the_trace(text, error):
    fields = {"timeout": 0.5} if error == "timeout" else {}
    with Collected(EchoEngine()) as echo:
        assert echo.ask(text, **fields).status_code >= 500
        root = echo.root()
    assert root.status.status_code == StatusCode.ERROR
    assert root.attributes["error.type"] == error


def test_a_client_that_leaves_ends_its_span():
    with Collected(EchoEngine(0.01)) as echo:
        body = {"model": "echo", "messages": [{"role": "user", "content": "a" * 4000}]}
        with httpx.stream("POST", echo.url + CHAT, json=body | {"stream": True}) as reply:
            frames = reply.iter_lines()
            next(frames)
        assert echo.root().attributes["error.type"] == "cancelled"


@pytest.mark.thorough
def test_they_go_where_the_environment_says(monkeypatch):
    heard = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self):
            heard.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Collector) as collector:
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        place = f"http://127.0.0.1:{collector.server_port}"
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", place)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        monkeypatch.setenv("OTEL_SERVICE_NAME", "my-octavo")
        with serving(EchoEngine(), listeners=[Traces.exported().open]) as (_, url):
            httpx.post(f"{url}/v1/completions", json={"model": "echo", "prompt": "ab"})
            wait_until(lambda: any(b"text_completion echo" in body for _, body in heard))
        collector.shutdown()
    for path, body in heard:  # the phases may come before the whole
        assert path == "/v1/traces"
        assert b"my-octavo" in body


def test_without_the_package_it_is_one_sentence(monkeypatch):
    module = "opentelemetry.exporter.otlp.proto.http.trace_exporter"
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(BadConfig, match=r"traces: it needs .*pip install '\.\[otel\]'"):
        Traces.exported()
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    monkeypatch.delitem(sys.modules, "octavo.server.traces")
    with pytest.raises(BadConfig, match=r"traces: it needs .*pip install '\.\[otel\]'"):
        __import__("octavo.server.traces")


@pytest.mark.thorough
def test_unless_asked_for_nothing_of_it_is_imported():
    program = (
        "import sys, octavo.cli.serve, octavo.server.process, octavo.engine.async_engine\n"
        "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0

"""The engine's own endpoints over a real socket."""

import httpx
import pytest
from checkpoints import write_tiny
from echoes import EchoEngine
from prometheus_client.parser import text_string_to_metric_families
from serving import serving, wait_until

from octavo.config import Config
from octavo.engine.async_engine import AsyncEngine
from octavo.registry import entry, names
from octavo.server.app import ENDPOINTS
from octavo.server.exchange import UnknownFields
from octavo.server.gate import Gate

CHAT = [{"role": "user", "content": "Hi ☕"}]


@pytest.fixture(scope="module")
def http(tmp_path_factory):
    path = write_tiny(tmp_path_factory.mktemp("models") / "tiny.gguf")
    engine = AsyncEngine(Config(str(path), memory=64 << 20))
    with serving(engine) as (_, url), httpx.Client(base_url=url) as http:
        yield http


def finished(http, **fields):
    asked = {"model": http.get("/v1/models").json()["data"][0]["id"], "messages": CHAT}
    return http.post("/v1/chat/completions", json=asked | fields)


def samples(http):
    """(name, labels but the model's) -> value, by Prometheus' own parser."""
    return {
        (one.name, *(v for k, v in sorted(one.labels.items()) if k != "model_name")): one.value
        for family in text_string_to_metric_families(http.get("/metrics").text)
        for one in family.samples
    }


@pytest.fixture(params=names(ENDPOINTS))
def endpoint(request):
    return entry(ENDPOINTS, request.param)


def test_every_endpoint_is_served_where_it_says(endpoint, http):
    files = [entry(ENDPOINTS, name) for name in names(ENDPOINTS)]
    for path in endpoint.PATHS:
        served = {file.METHOD for file in files if path in file.PATHS}
        path = path.replace("{id:path}", "x").replace("{id}", "x")
        for other in {"GET", "POST", "DELETE"} - served:
            reply = http.request(other, path)
            assert reply.status_code == 405
            assert set(reply.headers["allow"].split(", ")) - {"HEAD"} == served
        assert http.request(endpoint.METHOD, path).status_code in (200, 400, 404)


@pytest.mark.parametrize("raw", [b"", b"[]", b"\xff", b'{"a":' * 10_000, b'{"model": NaN}'])
def test_bytes_that_are_no_body_are_refused_in_the_envelope(endpoint, http, raw):
    if hasattr(endpoint, "Body") or hasattr(endpoint, "Form"):
        reply = http.post(endpoint.PATHS[0], content=raw)
        assert reply.status_code == 400
        assert reply.json()["error"]["message"]


def test_a_prompt_goes_to_tokens_and_back(http):
    counted = http.post("/tokenize", json={"prompt": "the words", "return_token_strs": True}).json()
    assert counted["count"] == len(counted["tokens"]) == len(counted["token_strs"])
    assert "".join(counted["token_strs"]) == "the words"
    assert counted["max_model_len"] == 2048
    text = http.post("/detokenize", json={"tokens": counted["tokens"]}).json()
    assert text == {"prompt": "the words"}


def test_a_chat_is_tokenized_and_counted_as_it_is_answered(http):
    model = http.get("/v1/models").json()["data"][0]["id"]
    ids = http.post("/tokenize", json={"messages": CHAT}).json()["tokens"]
    text = http.post("/apply-template", json={"messages": CHAT}).json()["prompt"]
    assert text == http.post("/detokenize", json={"tokens": ids}).json()["prompt"]
    assert "Hi ☕" in text
    asked = {"model": model, "messages": CHAT}
    counted = http.post("/v1/messages/count_tokens", json=asked).json()
    assert counted == {"input_tokens": len(ids)}
    answered = http.post("/v1/chat/completions", json=asked | {"max_tokens": 1}).json()
    assert answered["usage"]["prompt_tokens"] == len(ids)


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/tokenize", {}, "prompt"),
        ("/tokenize", {"prompt": "a", "messages": CHAT}, "prompt"),
        ("/tokenize", {"messages": CHAT, "add_special_tokens": True}, "add_special_tokens"),
        ("/tokenize", {"messages": [{"role": "function", "content": ""}]}, "messages[0].role"),
        ("/tokenize", {"prompt": "a", "tools": [{"type": "function"}]}, "tools"),
        ("/tokenize", {"prompt": 5}, "prompt"),
        ("/detokenize", {"tokens": [2**40]}, "tokens"),
        ("/detokenize", {"tokens": [-1]}, "tokens"),
        ("/detokenize", {"tokens": "abc"}, "tokens"),
        ("/apply-template", {"messages": []}, "messages"),
        ("/v1/messages/count_tokens", {"model": "tiny", "messages": []}, "messages"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(http, path, body, field):
    reply = http.post(path, json=body)
    assert reply.status_code == 400
    assert field in reply.json()["error"]["message"]


@pytest.mark.parametrize("path", ["/tokenize", "/detokenize", "/apply-template"])
def test_another_model_is_not_found_and_unknown_fields_are_named(http, path):
    body = {"prompt": "a"} if path == "/tokenize" else {"tokens": [5], "messages": CHAT}
    assert http.post(path, json=body | {"model": "other"}).status_code == 404
    assert "tempo" in http.post(path, json=body | {"tempo": 1}).headers["x-octavo-ignored"]


def test_ready_is_not_the_same_as_alive(http):
    assert http.get("/health").status_code == http.get("/ready").status_code == 200
    engine = EchoEngine()
    with serving(engine) as (_, url):
        engine.is_ready = False
        assert httpx.get(f"{url}/ready").status_code == 503
        assert httpx.get(f"{url}/health").status_code == 200


def test_a_request_can_be_explained(http):
    answer = finished(http, max_tokens=20, seed=7, n=2, ignore_eos=True).json()
    told = http.get(f"/v1/requests/{answer['id']}/explain").json()
    assert told["system_fingerprint"] == answer["system_fingerprint"]
    assert [choice["seed"] for choice in told["choices"]] == [7, 8]
    for choice in told["choices"]:
        tokens = choice["tokens"]
        assert tokens["prompt"] == answer["usage"]["prompt_tokens"]
        assert tokens["cached"] + tokens["computed"] == tokens["prompt"]
        assert tokens["completion"] == 20
        assert choice["pages"] == -(-(tokens["prompt"] + 19) // 16)
        assert choice["finish_reason"] == "length"
        assert all(seconds >= 0 for seconds in choice["seconds"].values())
        assert choice["seconds"]["decode"] > 0


def test_a_request_nobody_made_is_not_found(http):
    reply = http.get("/v1/requests/chatcmpl-0/explain")
    assert reply.status_code == 404
    assert "chatcmpl-0" in reply.json()["error"]["message"]


def test_a_request_is_explained_while_it_runs_and_after_its_client_left(http):
    model = http.get("/v1/models").json()["data"][0]["id"]
    asked = {"model": model, "messages": CHAT, "ignore_eos": True, "stream": True}
    with http.stream("POST", "/v1/chat/completions", json=asked) as reply:
        frames = (line for line in reply.iter_lines() if line.startswith("data:"))
        next(frames), next(frames)
        url = f"/v1/requests/{reply.headers['x-request-id']}/explain"
        (choice,) = http.get(url).json()["choices"]
        assert choice["state"] == "generating"
        assert choice["tokens"]["completion"] > 0
    wait_until(lambda: http.get(url).json()["choices"][0]["state"] == "left")


def test_what_happens_is_counted(http):
    before = samples(http)
    finished(http, max_tokens=5, ignore_eos=True)
    assert finished(http, temperature=5).status_code == 400
    assert http.get("/nowhere").status_code == 404
    after = samples(http)
    grown = {key: value - before.get(key, 0) for key, value in after.items()}
    assert grown["octavo_requests_finished_total", "length"] == 1
    assert grown["octavo_errors_total", "400"] == grown["octavo_errors_total", "404"] == 1
    assert grown["octavo_completion_tokens_total",] == 5
    for name in ("queue", "prefill", "decode", "time_to_first_token", "request"):
        assert grown[f"octavo_{name}_seconds_count",] == 1
    assert grown["octavo_inter_token_seconds_count",] == 4
    assert grown["octavo_request_completion_tokens_sum",] == 5
    assert grown["octavo_request_prompt_tokens_sum",] == grown["octavo_prompt_tokens_total",] > 0
    assert after["octavo_requests_running",] == after["octavo_pages", "0", "held"] == 0
    assert after["octavo_pages", "0", "free"] > 0
    assert 0 <= after["octavo_prefix_hit_ratio",] <= 1
    spent = sum(grown[f"octavo_{name}_seconds_sum",] for name in ("queue", "prefill", "decode"))
    assert 0 < spent <= grown["octavo_request_seconds_sum",]


def test_a_failed_steps_cause_and_a_busy_engine_are_shown():
    with serving(EchoEngine()) as (_, url), httpx.Client(base_url=url) as http:
        shown = samples(http)
    assert shown["octavo_step_failures_total", "ValueError"] == 3
    assert shown["octavo_pages", "0", "held"] == 4
    assert shown["octavo_page_use_ratio",] == 0.4
    assert shown["octavo_requests_running",] == shown["octavo_batch_size",] == 1
    assert shown["octavo_requests_waiting",] == 0
    assert shown["octavo_prefix_hit_ratio",] == 0.5
    assert (shown["octavo_pages", "0", "free"], shown["octavo_pages", "0", "findable"]) == (6, 2)


# What the panels of vLLM's own dashboard ask for.
PANELS = (
    *("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc"),
    *("vllm:prompt_tokens_total", "vllm:generation_tokens_total"),
    *("vllm:prefix_cache_queries_total", "vllm:prefix_cache_hits_total"),
    *("vllm:num_preemptions_total", "vllm:e2e_request_latency_seconds_bucket"),
    *("vllm:time_to_first_token_seconds_bucket", "vllm:inter_token_latency_seconds_bucket"),
    *("vllm:request_prompt_tokens_bucket", "vllm:request_generation_tokens_bucket"),
    *("vllm:request_queue_time_seconds_sum", "vllm:request_prefill_time_seconds_sum"),
    "vllm:request_decode_time_seconds_sum",
)


def test_vllms_dashboards_find_their_names():
    with serving(EchoEngine(), metric_names="vllm") as (_, url), httpx.Client(base_url=url) as http:
        finished(http)
        shown = http.get("/metrics").text
    assert {name for name in PANELS if f"\n{name}{{" not in shown} == set()
    assert 'vllm:num_requests_running{model_name="echo"} 1.0' in shown
    by_reason = 'vllm:request_success_total{finished_reason="stop",model_name="echo"} 1.0'
    assert by_reason in shown


@pytest.mark.parametrize("path", ["/tokenize", "/v1/chat/completions", "/v1/messages"])
def test_unknown_fields_are_refused_where_it_is_asked_for(path):
    refusing = UnknownFields(are_refused=True)
    body = {"model": "echo", "prompt": "a", "messages": CHAT, "max_tokens": 5}
    body.pop("messages" if path == "/tokenize" else "prompt")
    if path == "/tokenize":
        body.pop("max_tokens")
    with serving(EchoEngine(), unknown_fields=refusing) as (_, url):
        assert httpx.post(url + path, json=body).status_code == 200
        reply = httpx.post(url + path, json=body | {"modle": 1})
    assert reply.status_code == 400
    assert "modle: this server knows no such field, did you mean model?" in reply.text


def test_web_pages_may_call_only_where_it_is_asked_for():
    page, other = {"origin": "https://page.example"}, {"origin": "https://other.example"}
    preflight = {"access-control-request-method": "POST"}
    with serving(EchoEngine()) as (_, url):
        assert "access-control-allow-origin" not in httpx.get(f"{url}/health", headers=page).headers
    origins = ["https://page.example"]
    with serving(EchoEngine(), cors_origins=origins, gate=Gate(origins=origins)) as (_, url):
        path = f"{url}/v1/chat/completions"
        allowed = httpx.options(path, headers=page | preflight)
        assert allowed.headers["access-control-allow-origin"] == "https://page.example"
        delete = page | {"access-control-request-method": "DELETE"}
        assert httpx.options(f"{url}/v1/responses/x", headers=delete).status_code == 200
        refused = httpx.post(path, headers=page, content=b"{")
        assert refused.status_code == 400
        assert refused.headers["access-control-allow-origin"] == "https://page.example"
        assert httpx.options(path, headers=other | preflight).status_code == 400


def test_the_log_names_an_unknown_field_once(http, caplog):
    for _ in range(2):
        finished(http, max_tokens=1, never_heard_of=1)
    assert [r.getMessage() for r in caplog.records].count(
        "ignored what nobody here knows or runs: 'never_heard_of'"
    ) == 1

"""Inputs of batches, and what became of them, through the official client.

from batching import asked, client_of, ended, entries, jsonl, started     (tests/ is on the path)
"""

import json
import time
from contextlib import contextmanager

import openai

OVER = ("completed", "failed", "expired", "cancelled")
CHAT = "/v1/chat/completions"


@contextmanager
def client_of(url, key="none"):
    """Strict: what does not fit its types is an error."""
    with openai.OpenAI(
        base_url=f"{url}/v1", api_key=key, max_retries=0, _strict_response_validation=True
    ) as client:
        yield client


def asked(id, text="hello", *, url=CHAT, model="echo", **fields):
    """A line."""
    body = {"model": model, "messages": [{"role": "user", "content": text}], **fields}
    return {"custom_id": str(id), "method": "POST", "url": url, "body": body}


def jsonl(lines):
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def started(client, lines, endpoint=CHAT, **fields):
    """`lines`: values, or bytes as they are."""
    content = lines if isinstance(lines, bytes) else jsonl(lines)
    file = client.files.create(file=("in.jsonl", content), purpose="batch")
    return client.batches.create(
        input_file_id=file.id, endpoint=endpoint, completion_window="24h", **fields
    )


def ended(client, batch, seconds=30):
    """The batch when it is over."""
    return reached(client, batch, lambda now: now.status in OVER, seconds)


def reached(client, batch, condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition(now := client.batches.retrieve(batch.id)):
        assert time.monotonic() < end, now
        time.sleep(0.01)
    return now


def entries(client, file_id):
    """The lines of a file that a batch ended in."""
    if file_id is None:
        return []
    return [json.loads(line) for line in client.files.content(file_id).text.split("\n") if line]


def told(entry):
    """What an answered line says."""
    return entry["response"]["body"]["choices"][0]["message"]["content"]

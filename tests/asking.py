"""Asking a server of EchoEngine's for OpenAI's Responses.

from asking import PATH, asked, polled, strict              (tests/ is on the path)
"""

import openai
from serving import wait_until

PATH = "/v1/responses"


def strict(url, key="none"):
    return openai.OpenAI(
        base_url=f"{url}/v1", api_key=key, max_retries=0, _strict_response_validation=True
    )


def asked(text="Hello ☕", **fields):
    return {"model": "echo", "input": text, **fields}


def polled(client, id):
    def is_over():
        return client.retrieve(id).status not in ("queued", "in_progress")

    wait_until(is_over)
    return client.retrieve(id)

"""Batches of responses: kept like any other, gone on from, answered as a whole."""

from batching import CHAT, client_of, ended, entries, started
from callers import SAYS, ask
from echoes import EchoEngine
from serving import serving

PATH = "/v1/responses"


def line(id, **body):
    return {"custom_id": id, "method": "POST", "url": PATH, "body": {"model": "echo", **body}}


def test_responses_of_a_batch_are_kept_where_they_are_to_be():
    with serving(EchoEngine()) as (_, url), client_of(url) as client:
        first = client.responses.create(model="echo", input="first")
        lines = [
            line("kept", input="kept"),
            line("then", input="then", previous_response_id=first.id),
            line("not kept", input="not kept", store=False),
            line("background", input="x", background=True),
            line("stream", input="x", stream=True),
            line("nothing before", input="x", previous_response_id="resp_0"),
        ]
        batch = ended(client, started(client, lines, PATH))
        said = {one["custom_id"]: one for one in entries(client, batch.output_file_id)}
        wrong = {one["custom_id"]: one for one in entries(client, batch.error_file_id)}
        bodies = {id: one["response"]["body"] for id, one in said.items()}
        assert {id: body["output"][0]["content"][0]["text"] for id, body in bodies.items()} == {
            "kept": "kept",
            "then": "then",
            "not kept": "not kept",
        }
        assert {id: one["response"]["body"]["error"]["param"] for id, one in wrong.items()} == {
            "background": "background",
            "stream": "stream",
            "nothing before": "previous_response_id",
        }
        assert client.responses.retrieve(bodies["then"]["id"]).previous_response_id == first.id
        assert client.responses.retrieve(bodies["kept"]["id"]).output_text == "kept"
        assert [body["store"] for body in bodies.values()].count(False) == 1
        usage = [body["usage"] for body in bodies.values()]
        assert batch.usage.total_tokens == sum(one["total_tokens"] for one in usage)
        assert batch.usage.output_tokens == sum(one["output_tokens"] for one in usage)


def test_thoughts_are_counted_as_the_lines_tell_them(thinker):
    lines = [
        line("kept", input=SAYS, reasoning={"effort": "low"}),
        line("not kept", input=SAYS, reasoning={"effort": "low"}, store=False),
    ]
    chats = [{"custom_id": str(k), "method": "POST", "url": CHAT, "body": ask()} for k in range(2)]
    with client_of(thinker[1]) as client:
        for path, asked, details in (
            (PATH, lines, "output_tokens_details"),
            (CHAT, chats, "completion_tokens_details"),
        ):
            batch = ended(client, started(client, asked, path))
            usage = [
                one["response"]["body"]["usage"] for one in entries(client, batch.output_file_id)
            ]
            thought = [one[details]["reasoning_tokens"] for one in usage]
            assert len(thought) == 2
            assert all(thought)
            assert batch.usage.output_tokens_details.reasoning_tokens == sum(thought)

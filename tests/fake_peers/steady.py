"""Claims `pace` seconds for a token of a prompt and for a step: its middle way is the fastest."""

from octavo.bench._work import token_id

WAYS = ({"pace": 1.0}, {"pace": 0.5}, {"pace": 0.75})


def find():
    print("what a library has to say goes nowhere")
    return f"1.0 {token_id(0)}"


class Peer:
    def __init__(self, path, *, threads, sequences, tokens, pace):
        self.pace, self.room = pace, sequences * tokens

    def prompt(self, tokens):
        assert tokens <= self.room
        return self.pace * tokens

    def generate(self, sequences, context, steps):
        assert sequences * (context + steps) <= self.room
        return self.pace * steps

    def close(self):
        pass

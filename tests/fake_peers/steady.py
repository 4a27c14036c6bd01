"""Claims a second for a token of a prompt and for a step, half of it in the fast way."""

from octavo.bench._work import token_id

WAYS = ({"fast": False}, {"fast": True})


def find():
    print("what a library has to say goes nowhere")
    return f"1.0 {token_id(0)}"


class Peer:
    def __init__(self, path, *, threads, sequences, tokens, fast):
        self.factor, self.room = 0.5 if fast else 1.0, sequences * tokens

    def prompt(self, tokens):
        assert tokens <= self.room
        return self.factor * tokens

    def generate(self, sequences, context, steps):
        assert sequences * (context + steps) <= self.room
        return self.factor * steps

    def close(self):
        pass

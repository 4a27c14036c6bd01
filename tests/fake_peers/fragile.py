"""Computes prompts; generation refuses in one way and takes the process along in the other."""

import os

WAYS = ({"rough": False}, {"rough": True})


def find():
    return "0.1"


class Peer:
    def __init__(self, path, *, threads, sequences, tokens, rough):
        self.rough = rough

    def prompt(self, tokens):
        return 1.0

    def generate(self, sequences, context, steps):
        if self.rough:
            os.abort()
        raise RuntimeError("no room for a batch")

    def close(self):
        pass

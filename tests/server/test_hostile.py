"""A grammar that is dear to compile and dear to follow, over HTTP: another key's stream goes on."""

import json
import threading

import httpx
import pytest
from checkpoints import write_tiny
from serving import serving, wait_until

from octavo.config import Config
from octavo.engine.async_engine import AsyncEngine
from octavo.engine.engine import Engine
from octavo.server.gate import Gate
from octavo.server.keys import Keys, Limits
from octavo.server.state import State

NAMES = {f"^{number:04d}": {"type": "string"} for number in range(140)}  # no two may overlap
DEAR = {"grammar": "start: %json " + json.dumps({"type": "object", "patternProperties": NAMES})}
MAZE = {"grammar": "start: " + "a " * 450 + '\na: "x"? "y"? "z"?'}  # masks of thousands of items
ENOUGH = 20  # lines, of ten tokens; a stream that waited would have none meanwhile


class Watched(Engine):
    """Sees how many lines a client reads while a grammar compiles."""

    def __init__(self, config, told):
        super().__init__(config)
        self.told, self.meanwhile = told, []

    def compile(self, params):
        num_told = len(self.told)
        try:
            return super().compile(params)
        finally:
            self.meanwhile.append(len(self.told) - num_told)


@pytest.mark.thorough
def test_a_dear_grammar_costs_its_sender_only(tmp_path):
    path = write_tiny(tmp_path / "tiny.gguf", context=8192)
    told, ended = [], threading.Event()
    engine = Watched(Config(str(path), memory=64 << 20), told)
    state = State(tmp_path / "state.db")
    keys = Keys(state)
    mine, theirs = (
        {"authorization": f"Bearer {keys.create(name, Limits())[1]}"} for name in ("mine", "theirs")
    )
    with serving(AsyncEngine(engine), gate=Gate(keys)) as (_, url):
        ask = {"model": "tiny", "prompt": "The sky is", "ignore_eos": True, "seed": 1}

        def read():
            body = ask | {"stream": True, "max_tokens": 8000}
            post = ("POST", f"{url}/v1/completions")
            with httpx.stream(*post, json=body, headers=mine, timeout=60) as stream:
                for frame in stream.iter_lines():
                    told.append(frame)
                    if ended.is_set():
                        return

        reader = threading.Thread(target=read)
        reader.start()
        try:
            wait_until(lambda: told)
            for hostile in (DEAR, MAZE):
                num_told = len(told)
                body = ask | hostile | {"max_tokens": 100}
                said = httpx.post(f"{url}/v1/completions", json=body, headers=theirs, timeout=60)
                assert said.status_code == 200, said.text
                assert len(told) - num_told > ENOUGH, "also beside the masks"
                assert "data: [DONE]" not in told, "it ran all the while"
            assert max(engine.meanwhile) > ENOUGH, "while it compiled"
        finally:
            ended.set()
            reader.join()
    state.close()

"""llama.cpp, as llama-cpp-python brings it."""

from typing import Any

from octavo.bench._peers._llama import Fork, Llama

WAYS = ({"flash": True}, {"flash": False})
AND_DATA = True  # llama_memory_clear forgets the numbers too, not only where they are


def _forget(c: Any, context: Any) -> None:
    c.llama_memory_clear(c.llama_get_memory(context), AND_DATA)


FORK = Fork("llama-cpp-python", "llama_cpp", _forget, "llama_model_free")
find = FORK.find


class Peer(Llama):
    def __init__(self, path: str, *, flash: bool, **room: int) -> None:
        # One stream a sequence (no unified cache) is the faster way here.
        of_context = {"flash_attn_type": int(flash), "kv_unified": False}
        super().__init__(FORK, path, **room, of_model={}, of_context=of_context)

"""ik_llama.cpp, the fork tuned for AVX2, as ik-llama-cpp-python brings it."""

from typing import Any

from octavo.bench._peers._llama import Fork, Llama

WAYS = (
    {"flash": True, "repack": False},
    {"flash": True, "repack": True},
    {"flash": False, "repack": False},
    {"flash": False, "repack": True},
)


def _forget(c: Any, context: Any) -> None:
    c.llama_kv_cache_clear(context)


FORK = Fork("ik-llama-cpp-python", "ik_llama_cpp._ctypes_api", _forget, "llama_free_model")
find = FORK.find


class Peer(Llama):
    def __init__(self, path: str, *, flash: bool, repack: bool, **room: int) -> None:
        # Merging q, k and v gives generation a tenth more; what is merged or repacked is a copy,
        # which cannot lie in the mapped file.
        of_model = {"merge_qkv": True, "repack_tensors": repack, "use_mmap": False}
        super().__init__(FORK, path, **room, of_model=of_model, of_context={"flash_attn": flash})

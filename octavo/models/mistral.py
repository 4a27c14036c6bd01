"""Mistral is Llama, at first with a sliding window. GGUF calls it llama outright."""

from octavo.models.llama import Config, Model, tiny

__all__ = ["Config", "Model", "tiny"]

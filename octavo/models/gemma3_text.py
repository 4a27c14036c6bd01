"""What config.json calls Gemma 3 without its vision tower."""

from octavo.models.gemma3 import Config, Model, tiny

__all__ = ["Config", "Model", "tiny"]

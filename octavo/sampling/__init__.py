"""Logits in, tokens out."""

"""Sizes as people write and read them: 4GiB in, 253.1 MB out."""

import re

UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
BINARY = {"ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


def size(num_bytes: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.1f} {unit}" if unit != "B" else f"{num_bytes:.0f} B"
        num_bytes /= 1000
    return f"{num_bytes:.1f} TB"


def count(number: float) -> str:
    """134500000 -> 134.5M"""
    for unit in ("", "k", "M", "B"):
        if number < 1000:
            return f"{number:.1f}{unit}" if unit else f"{number:.0f}"
        number /= 1000
    return f"{number:.1f}T"


def parse_size(text: str) -> int:
    """4GiB, 512 MB, 1.5g, 1048576 -> bytes. Raises ValueError, which typer reports."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*?)b?\s*", text.lower())
    unit = (UNITS | BINARY).get(match[2]) if match else None
    if match is None or unit is None:
        raise ValueError(f"{text!r} is not a size: write it as 4GiB or 4000MB")
    return int(float(match[1]) * unit)

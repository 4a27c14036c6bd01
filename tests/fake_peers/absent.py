"""Not installed."""

WAYS = ()


def find():
    raise ImportError("absent is not installed here: pip install absent")

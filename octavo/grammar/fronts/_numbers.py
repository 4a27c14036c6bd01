"""Numbers of a schema, as llguidance reads and holds them.

    exclusiveMinimum 20, maximum 20.5   ──▶   minimum 20.0000000000001, maximum 20.5
    minimum -2^63, maximum 2^63 - 1     ──▶   minimum 1024 - 2^63, maximum 2^63 - 1024

It reads decimals of more than 15 digits, or 22 places, as doubles beside them, takes no notice of
`exclusive` between bounds that share their whole part, and counts in 64 bits, at whose end it
recurses until the process is gone. So bounds are included ones, moved inwards to where none of that
matters: what is then allowed was allowed.
"""

from decimal import ROUND_CEILING, Decimal
from math import inf, isfinite, nextafter
from typing import Any, Final

from octavo.types import Json

DIGITS: Final = 15  # of a decimal that a double gives back
PLACES: Final = 22  # of one that is read with a single rounding: 10^22 is a double
FINEST: Final = Decimal("1e-20")  # of bounds but 0
FURTHEST: Final = Decimal(nextafter(2.0**63, 0))
_ALONE: Final = 10**18  # from here on a bound is held only beside another
_BOUNDS: Final = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"})


def bounded(schema: Json) -> Json:
    """With `minimum` and `maximum` alone. Raises ValueError of a keyword and its problem."""
    least, most = _least(schema, "minimum", 1), _least(schema, "maximum", -1)
    if least is not None and least >= _ALONE and most is None:
        most = -FURTHEST
    if most is not None and most >= _ALONE and least is None:
        least = -FURTHEST
    out = {word: value for word, value in schema.items() if word not in _BOUNDS}
    if least is not None:
        out["minimum"] = _plain(least)
    if most is not None:
        out["maximum"] = _plain(-most)
    return out


def _plain(number: Decimal) -> int | float:
    return int(number) if number == int(number) else float(number)


def _least(schema: Json, word: str, sign: int) -> Decimal | None:
    """Of what is allowed, times `sign`; None where nothing is said."""
    exclusive = f"exclusive{word.capitalize()}"
    given = {word: False, exclusive: True}
    if isinstance(flag := schema.get(exclusive), bool):  # as in draft 4
        if flag and word not in schema:
            raise ValueError(exclusive, f"is true beside no {word!r}: give the number itself")
        given = {word: flag}
    said = [one for one in given if one in schema]
    return max(
        (_inward(schema[one], one, sign, is_exclusive=given[one]) for one in said), default=None
    )


def _inward(value: Any, word: str, sign: int, *, is_exclusive: bool) -> Decimal:
    if not _is_finite(value):
        raise ValueError(word, "is no number, or none that is finite")
    exact = Decimal(value if isinstance(value, int) else repr(value))
    bound = exact if sign > 0 else exact.copy_negate()
    if bound >= FURTHEST:
        raise ValueError(word, f"is further than numbers are counted here, to {FURTHEST}")
    if -FINEST < bound < 0:
        return Decimal(0)
    if 0 < bound < FINEST or (bound == 0 and is_exclusive):
        return FINEST
    step = Decimal(1).scaleb(max(-PLACES, min(0, bound.adjusted() + 1 - DIGITS)))
    held = max(bound, -FURTHEST).quantize(step, ROUND_CEILING)
    if is_exclusive and held == bound:
        held += step
    return _next_double(held) if step == 1 else held


def _next_double(whole: Decimal) -> Decimal:
    """Which means itself to integers, and the shortest decimal that is read as it to others."""
    held = float(whole)
    while min(Decimal(held), Decimal(repr(held))) < whole:
        held = nextafter(held, inf)
    return Decimal(held)


def _is_finite(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and (isinstance(value, int) or isfinite(value))


def misspelled(value: Any) -> int | float | None:
    """The first number of a constant that llguidance would write as another, or not at all."""
    if isinstance(value, dict):
        value = [*value.values()]
    if isinstance(value, list):
        return next((one for one in map(misspelled, value) if one is not None), None)
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return None if _is_spelled(value) else value


def _is_spelled(value: int | float) -> bool:
    if isinstance(value, int):
        return abs(value) <= FURTHEST and float(value) == value
    if not isfinite(value):
        return False
    _, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    return len(digits) <= DIGITS and abs(int(exponent)) <= PLACES

"""When the next of those that run should end."""

from hypothesis import given
from hypothesis import strategies as st

from octavo.scheduler.forecast import REMEMBERED, UNKNOWN, Forecast


def test_before_any_has_ended_it_says_so_much():
    assert Forecast().next_end(0) == Forecast().next_end(9) == UNKNOWN > 0


@given(st.floats(0.01, 100), st.integers(1, 20), st.integers(0, 200))
def test_it_is_the_gap_between_ends_that_come_evenly(seconds, num_running, before):
    """Side by side, each `seconds` long: one ends every seconds / num_running. What was long ago
    does not count."""
    forecast = Forecast()
    for _ in range(before):
        forecast.ended(7.0)
    for _ in range(REMEMBERED):
        forecast.ended(seconds)
    assert abs(forecast.next_end(num_running) - seconds / num_running) < 1e-9 * seconds

"""What a Config refuses: each number by its name, what it is, its limits and what to give."""

import pytest

from octavo import Config
from octavo.errors import BadConfig


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        ({"max_running": 0}, r"max_running: 0 is not in \[1, 4096\]: give a whole number within"),
        ({"threads": 1.5}, r"threads: 1.5 is not in \[1, 1024\]: give a whole number within"),
        ({"step_tokens": None}, r"step_tokens: None is not in \[1, 65536\]: give a whole number"),
        ({"step_tokens": 15}, "step_tokens: 15 is less than max_running: give at least 16"),
    ],
)
def test_what_is_out_of_range_is_refused_by_name(asked, problem):
    with pytest.raises(BadConfig, match=f"^{problem}"):
        Config("tiny", **asked)


def test_what_depends_on_the_machine_need_not_be_given():
    asked = Config("tiny", memory=None, max_context=None, threads=None, step_tokens=16)
    assert (asked.threads, asked.max_requests) == (None, 16 + 256)

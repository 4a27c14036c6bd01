"""How many examples a property is tried with: all of them where CI asks, a share of them else.

from examples import examples              (tests/ is on the path)
"""

from hypothesis import settings


def examples(number, **options):
    """Settings: so many under the profile `thorough`, of which `fast` (conftest.py) takes its
    share."""
    share = settings.default.max_examples / settings.get_profile("thorough").max_examples
    return settings(max_examples=max(1, round(number * share)), **options)

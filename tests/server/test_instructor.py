"""instructor, which makes objects of answers, as a client: whatever a small model says, the objects
are of their class."""

from collections.abc import Iterable

import anthropic
import openai
import pytest
from callers import SAYS, TEMPLATE
from echoes import EchoEngine
from pydantic import BaseModel, Field
from serving import serving

from octavo.config import Config
from octavo.engine.async_engine import AsyncEngine
from octavo.engine.engine import Engine

instructor = pytest.importorskip("instructor", reason="pip install '.[clients]'")
pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # it deprecates its own
    pytest.mark.models,  # the tests that are run where it is installed
]


class Place(BaseModel):
    """Where somebody lives."""

    city: str = Field(max_length=12)
    floor: int = Field(ge=0, le=99)


@pytest.fixture(scope="module")
def url(smollm2_path):
    engine = Engine(Config(str(smollm2_path), max_context=4096))
    with serving(AsyncEngine(engine)) as (_, url):
        yield url


@pytest.mark.parametrize("mode", ["TOOLS", "TOOLS_STRICT", "JSON_SCHEMA"])
def test_objects_come_out(url, mode):
    client = instructor.from_openai(
        openai.OpenAI(base_url=f"{url}/v1", api_key="none"), mode=instructor.Mode[mode]
    )
    for seed in range(3):
        place = client.chat.completions.create(
            model="smollm2",
            seed=seed,
            max_tokens=300,
            max_retries=0,
            response_model=Place,
            messages=[{"role": "user", "content": "Ann lives in Oslo on the third floor."}],
        )
        assert isinstance(place, Place)


def test_objects_come_out_bit_by_bit(url):
    client = instructor.from_openai(openai.OpenAI(base_url=f"{url}/v1", api_key="none"))
    parts = list(
        client.chat.completions.create_partial(
            model="smollm2",
            seed=1,
            max_tokens=300,
            response_model=Place,
            messages=[{"role": "user", "content": "Ann lives in Oslo on the third floor."}],
        )
    )
    assert len(parts) > 1
    Place.model_validate(parts[-1].model_dump())


class look(BaseModel):
    """Looks somewhere."""

    at: str = ""
    deep: bool = False


ASKED = {
    "response_model": Iterable[look | Place],
    "max_tokens": 500,
    "max_retries": 0,
    "messages": [{"role": "user", "content": SAYS}],
}
LOOKED = [look(at="é\n", deep=True), look()]


def test_several_calls_are_several_objects():
    """Of a model that says what it is told: the choice is its own in this mode."""
    with serving(EchoEngine(template=TEMPLATE)) as (_, url):
        client = instructor.from_openai(
            openai.OpenAI(base_url=f"{url}/v1", api_key="none"),
            mode=instructor.Mode.PARALLEL_TOOLS,
        )
        assert list(client.chat.completions.create(model="echo", **ASKED)) == LOOKED
        theirs = instructor.from_anthropic(
            anthropic.Anthropic(base_url=url, api_key="none"),
            mode=instructor.Mode.ANTHROPIC_PARALLEL_TOOLS,
        )
        assert list(theirs.chat.completions.create(model="echo", **ASKED)) == LOOKED

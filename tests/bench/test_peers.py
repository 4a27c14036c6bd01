"""Peers in processes of their own: the fastest of their ways counts, a crash costs a figure and no
run, nobody computes out of turn, and no process is left behind. The peers are tests/fake_peers."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from checkpoints import write_tiny
from typer.testing import CliRunner

from octavo.bench import _peer_process
from octavo.bench._peer_process import Asked, Failed, PeerProcess, parse
from octavo.cli import app
from octavo.errors import BadConfig, UnknownName
from octavo.registry import entry, names


@pytest.fixture(autouse=True)
def fakes(monkeypatch):
    monkeypatch.setattr(_peer_process, "FOLDER", "fake_peers")


@pytest.fixture
def process():
    made = []

    def start(name):
        made.append(PeerProcess(Asked(name, sys.executable)))
        return made[-1]

    yield start
    for one in made:
        one.close()


def offline(tmp_path, *words):
    path = write_tiny(tmp_path / "tiny.gguf")
    work = ["--prompt-tokens", "8", "--new-tokens", "2", "--context", "4", "--threads", "1"]
    return CliRunner().invoke(app, ["bench", "offline", str(path), *work, *words])


def test_every_peer_has_its_figures_and_the_better_one_the_ratio(tmp_path):
    said = offline(tmp_path, "--runs", "2", "--peer", "steady", "--peer", "fragile", "--json")
    assert said.exit_code == 0, said.output
    found = json.loads(said.stdout)
    steady, fragile = found["peers"]
    assert (steady["peer"], steady["version"], steady["problem"]) == ("steady", "1.0 1000", None)
    assert steady["prompt_way"] == steady["generation_way"] == {"pace": 0.5}
    assert steady["prompt_tokens_per_second"] == steady["generation_tokens_per_second"] == 2
    assert fragile["prompt_tokens_per_second"] == 8
    assert fragile["generation_tokens_per_second"] is fragile["generation_ratio"] is None
    assert fragile["generation_way"] is None
    assert fragile["problem"] == "no room for a batch"  # what it said before it crashed
    # 8 tokens/s are better than 2
    assert found["prompt_ratio"] == fragile["prompt_ratio"] < steady["prompt_ratio"]
    assert found["prompt_ratio"] == pytest.approx(found["prompt_tokens_per_second"] / 8, abs=0.01)
    assert found["generation_ratio"] == steady["generation_ratio"]


def test_people_read_what_a_peer_failed_at(tmp_path):
    said = offline(tmp_path, "--runs", "1", "--peer", "fragile")
    assert "no generation" in said.stdout
    assert said.stdout.endswith("no room for a batch\n")


def test_a_peer_that_is_not_installed_is_refused_before_anything_is_measured(tmp_path):
    said = offline(tmp_path, "--peer", "absent")
    assert said.exit_code == 2
    assert said.stderr == "peer: absent is not installed here: pip install absent\n"


def test_where_a_peer_is_installed_can_be_told():
    assert parse(f"steady={sys.executable}") == Asked("steady", sys.executable)
    assert parse("steady").python == sys.executable
    with pytest.raises(BadConfig, match="no-such-python"):
        parse("steady=/no-such-python")
    with pytest.raises(UnknownName, match="stedy"):
        parse("stedy")


def test_a_crash_is_told_and_the_next_order_starts_anew(process):
    fragile = process("fragile")
    room = {"threads": 1, "sequences": 1, "tokens": 8}
    fragile.order("open", path="", **room, rough=True)
    with pytest.raises(Failed, match=r"fragile crashed \(SIGABRT\) at the order generate"):
        fragile.order("generate", sequences=1, context=1, steps=1)
    assert not fragile.is_alive
    assert fragile.order("find") == "0.1"


def test_a_peer_that_never_answers_is_ended(process, monkeypatch):
    monkeypatch.setattr(_peer_process, "LIMIT", 0.1)
    with pytest.raises(Failed, match=r"no answer within 0.1 s"):
        process("stuck").order("find")


def test_a_peer_stands_still_while_it_is_not_its_turn(process):
    steady = process("steady")
    steady.order("find")
    status = Path(f"/proc/{steady._process.pid}/stat").read_text()
    assert status.rpartition(")")[2].split()[0] == "T"
    assert steady.order("ways")[1] == {"pace": 0.5}


def test_a_child_ends_with_whoever_started_it():
    """Even stopped, and its parent killed."""
    program = (
        "import sys, time; sys.path.append('tests'); from octavo.bench import _peer_process as p;"
        "p.FOLDER = 'fake_peers'; one = p.PeerProcess(p.Asked('steady', sys.executable));"
        "one.order('find'); print(one._process.pid, flush=True); time.sleep(60)"
    )
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=root
    ) as parent:
        child = Path(f"/proc/{int(parent.stdout.readline())}")
        assert child.exists()
        parent.kill()
    deadline = time.monotonic() + 5
    while child.exists() and "Z" not in (child / "stat").read_text().split():
        assert time.monotonic() < deadline, "it lives on"
        time.sleep(0.01)


@pytest.mark.parametrize("name", names("octavo.bench._peers"))
def test_peers_offer_what_the_child_asks_for(name, monkeypatch):
    peer = entry("octavo.bench._peers", name)
    assert peer.WAYS
    assert {"prompt", "generate", "close"} <= set(dir(peer.Peer))
    monkeypatch.setitem(sys.modules, peer.FORK.bindings, None)
    with pytest.raises(ImportError, match=f"{name.replace('_', '-')} is not installed here: pip"):
        peer.find()


def test_peer_files_run_where_octavo_is_not_installed(tmp_path):
    """-S: an interpreter without any package."""
    program = (
        "import runpy, sys; child = runpy.run_path(sys.argv[1])\n"
        "for file in sys.argv[1:]: child['_load'](child['Path'](file))"
    )
    folder = Path(_peer_process.__file__).with_name("_peers")
    files = [folder / "_child.py", *folder.glob("[!_]*.py")]
    command = [sys.executable, "-I", "-S", "-c", program, *map(str, files)]
    assert subprocess.run(command, cwd=tmp_path).returncode == 0

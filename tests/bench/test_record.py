"""The recorded run: one file that holds everything, tables and a picture that are read off it, and
documents whose figures nobody wrote by hand."""

import re
import sys
from pathlib import Path

import msgspec
import pytest
from checkpoints import write_tiny
from typer.testing import CliRunner

from octavo.bench import _figures, _peer_process, _record, plot, record
from octavo.bench._ours import Work
from octavo.bench._rival import Rival
from octavo.cli import app
from octavo.loader import hub

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "docs" / "performance.md", ROOT / "README.md"]


@pytest.fixture
def plan(monkeypatch, tmp_path):
    """Two works of a few tokens beside tests/fake_peers."""
    monkeypatch.setattr(_peer_process, "FOLDER", "fake_peers")
    model = str(write_tiny(tmp_path / "tiny.gguf"))
    works = (
        record.Planned("short", model, Work(8, 2, 1, 4), 1.4, 1.7, with_prompt=True),
        record.Planned("batch", model, Work(8, 2, 3, 4), generation_share=0.8),
    )
    monkeypatch.setattr(record, "PLAN", works)
    steps = (record.PlannedStep(model, Work(8, 1, 1, 4), is_prompt=True),)
    monkeypatch.setattr(record, "STEPS", steps)


def bench(*words):
    return CliRunner().invoke(app, ["bench", *map(str, words)])


def step():
    """4 ms in linear layers at half their limit, 2 ms at all of it, 2 ms of waiting."""

    def op(kind, name, seconds, limit_share=None):
        speeds = {"bytes_per_second": 1e9, "multiply_adds_per_second": 1e9}
        return _record.RecordedOp(
            kind=kind,
            op=name,
            seconds=seconds,
            share=seconds / 8e-3,
            limit_share=limit_share,
            **speeds,
        )

    ops = [
        op("linear", "linear 4 bits, 8 x 8", 4e-3, 0.5),
        op("linear", "linear 8 bits, 8 x 8", 2e-3, 1.0),
        op("waiting", "threads waiting", 2e-3),
    ]
    return _record.RecordedStep(model="tiny", title="prompt of 8", ops=ops)


def result(ours=(300.0, 20.0), peers=(), **changed):
    """`ours` and each of `peers` as (prompt, generation) in tokens/s; None where it failed."""

    def figures(speeds):
        ratios = [speed and round(own / speed, 2) for own, speed in zip(ours, speeds, strict=True)]
        names = [f"{of}_{what}" for what in ("tokens_per_second", "ratio") for of in KINDS]
        ways = {f"{of}_way": None for of in KINDS}
        return dict(zip(names, [*speeds, *ratios], strict=True)) | ways | {"problem": None}

    others = [{"peer": name, "version": "1.0"} | figures(speeds) for name, speeds in peers]
    least = {
        f"{of}_ratio": min((p[f"{of}_ratio"] for p in others if p[f"{of}_ratio"]), default=None)
        for of in KINDS
    }
    said = {"model": "tiny", "prompt_tokens": 8, "new_tokens": 2, "batch": 1, "context": 4}
    said |= {
        "kv_dtype": "float16",
        "runs": 5,
        "prompt_share_of_int8_peak": 0.41,
        "generation_share_of_int8_peak": 0.1,
    }
    said |= {"generation_share_of_bandwidth": 0.63, "peers": others, **least}
    said |= {"roofline": {"instruction_set": "avx2", "threads": 2}}
    limits = ("read_bytes", "byte_multiply_adds", "float_multiply_adds")
    said["roofline"] |= {f"{limit}_per_second": 40e9 for limit in limits}
    said |= {f"{of}_tokens_per_second": speed for of, speed in zip(KINDS, ours, strict=True)}
    return msgspec.convert(said | changed, _record.Result)


KINDS = ("prompt", "generation")


def recorded(*results, steps=()):
    rows = [
        _record.Row(title="prompt of 8", of="prompt", ratio=1.4),
        _record.Row(title="one sequence", of="generation", share=0.8),
    ]
    works = [_record.RecordedWork(rows=rows, result=one) for one in results]
    made = {"octavo": "0.1.0", "date": "2026-01-02", "processor": "A CPU", "cpus": 2}
    return _record.Record(**made, works=works, steps=[*steps])


def test_all_works_are_in_the_file_with_every_peer(plan, tmp_path):
    file = tmp_path / "run.json"
    said = bench("record", file, "--runs", 1, "--peer", "steady", "--peer", "fragile")
    assert said.exit_code == 0, said.output
    found = _record.read(file)
    titles = [(row.title, row.of, row.ratio, row.share) for row, _ in found.rows]
    assert titles == [
        ("prompt of 8", "prompt", 1.4, None),
        ("one sequence after 4 tokens", "generation", 1.7, None),
        ("3 sequences after 4 tokens", "generation", None, 0.8),
    ]
    assert found.peers == ["steady", "fragile"]
    assert [step.title for step in found.steps] == ["prompt of 8"]
    assert found.steps[0].share(
        "linear", "attention", "rows", "python", "waiting"
    ) == pytest.approx(1)
    assert found.works[0].result.prompt_ratio == found.works[0].result.peers[1].prompt_ratio
    assert found.works[1].result.peers[1].problem == "no room for a batch"
    assert found.processor in Path("/proc/cpuinfo").read_text()
    assert str(tmp_path) not in file.read_text(), "paths of a machine are nobody's business"
    assert said.stdout == _figures.tables(found)["works"]


def test_every_model_of_the_plan_can_be_had():
    from octavo.bench._random_model import FORMATS, SHAPES

    made = [f"random-{size}{form}" for size in SHAPES for form in ["", *(f"-{f}" for f in FORMATS)]]
    for one in (*record.PLAN, *record.STEPS):
        assert one.model in (*hub.ALIASES, *made)


def test_some_of_the_works_can_be_recorded_alone(plan, tmp_path):
    assert bench("record", tmp_path / "run.json", "--runs", 1, "--only", "batch").exit_code == 0
    assert [result.batch for _, result in _record.read(tmp_path / "run.json").rows] == [3]
    said = bench("record", tmp_path / "run.json", "--only", "bath")
    assert said.stderr == "only: there is no 'bath': give short, batch, ops\n"
    said = bench("record", tmp_path / "run.json", "--only", "ops")
    assert said.stderr == "only: ops alone is no record: name a work beside it\n"
    said = bench("record", tmp_path / "nowhere" / "run.json")
    assert said.stderr.startswith("file: there is no folder")


def test_ctrl_c_leaves_neither_a_record_nor_a_process(plan, tmp_path, monkeypatch):
    made = []

    def interrupt(self, kind):
        made.append(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(Rival, "seconds", interrupt)
    assert bench("record", tmp_path / "run.json", "--peer", "steady").exit_code == 130
    assert not (tmp_path / "run.json").exists()
    assert not made[0]._process.is_alive


def test_an_earlier_record_stays_until_the_new_one_is_whole(plan, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise KeyboardInterrupt

    file = tmp_path / "run.json"
    file.write_text("what was there")
    monkeypatch.setattr(record, "_measure_step", fail)
    assert bench("record", file, "--runs", 1).exit_code == 130
    assert file.read_text() == "what was there"
    assert len(_record.read(tmp_path / "run.json.part").works) == 2


def test_tables_name_the_better_peer_what_fails_and_the_nearer_limit():
    one = result((3_000.4, 20.04), [("a", (1_000.0, None)), ("b", (2_158.0, 25.0))])
    assert _figures.tables(recorded(one))["works"] == (
        "| model | work | ours | a | b | to the better | target | of the limit |\n"
        "| --- | --- | --- | --- | --- | --- | --- | --- |\n"
        # 1.39 has not reached 1.4
        "| tiny | prompt of 8 | 3,000 | 1,000 | 2,158 | 1.3x | 1.4x | 41% of int8 peak |\n"
        "| tiny | one sequence | 20 | fails | 25 | 0.8x | 80% of the limit | 63% of bandwidth |\n"
    )
    machine = _figures.tables(recorded(one))["machine"]
    assert "2026-01-02 with Octavo 0.1.0 (avx2, 2 threads) on A CPU, 2 CPUs" in machine
    assert "read 40 GB/s" in machine
    assert "Peers: a 1.0, b 1.0." in machine


def test_steps_have_a_table_once_they_are_recorded():
    assert _figures.tables(recorded(result()))["ops"] == ""
    table = _figures.tables(recorded(result(), steps=[step()]))["ops"]
    assert table.splitlines()[2:] == [
        "| tiny | prompt of 8 | 8 | 75% | 66% | 0% | | 0% | 0% | 25% |",
    ]


def test_a_record_survives_its_file(tmp_path):
    whole = recorded(result(peers=[("a", (None, 2.0))]), steps=[step()])
    _record.write(tmp_path / "run.json", whole)
    assert _record.read(tmp_path / "run.json") == whole


@pytest.mark.thorough
def test_tables_go_into_their_places_and_nowhere_else(tmp_path):
    pytest.importorskip("matplotlib")
    (tmp_path / "docs").mkdir()
    file, doc, readme = (
        tmp_path / name for name in ("docs/speed.json", "docs/speed.md", "README.md")
    )
    place = "<!-- figures: {} -->\n{}<!-- end of figures -->\nafter\n"
    doc.write_text("before\n" + place.format("works", "old\n") + place.format("ops", ""))
    readme.write_text(place.format("summary", "older\n"))
    whole = recorded(result(peers=[("a", (None, 2.0))]), result(), steps=[step()])
    _record.write(file, whole)
    assert bench("plot", file).exit_code == 0
    tables = _figures.tables(whole)
    written = place.format("works", tables["works"]) + place.format("ops", tables["ops"])
    assert doc.read_text() == "before\n" + written
    assert readme.read_text() == place.format("summary", tables["summary"])
    picture = (tmp_path / "docs" / "speed.svg").read_bytes()
    assert picture.count(b"tiny, prompt of 8") == 3  # as text, which can be searched
    assert bench("plot", file).exit_code == 0
    assert (tmp_path / "docs" / "speed.svg").read_bytes() == picture


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("no mark", "it has no place for figures"),
        ("<!-- figures: speeds -->\n<!-- end of figures -->", "there is no table 'speeds'"),
    ],
)
def test_a_document_without_a_place_is_refused_before_anything_is_written(text, problem, tmp_path):
    pytest.importorskip("matplotlib")
    _record.write(tmp_path / "run.json", recorded(result()))
    (tmp_path / "notes.md").write_text(text)
    said = bench("plot", tmp_path / "run.json", "--into", tmp_path / "notes.md")
    assert said.exit_code == 2
    assert problem in said.stderr
    assert not (tmp_path / "run.svg").exists()


@pytest.mark.parametrize("text", ["", "{}", '{"works": 3}', "\xff"])
def test_what_is_no_record_is_refused(text, tmp_path):
    (tmp_path / "run.json").write_text(text, encoding="latin-1")
    with pytest.raises(_record.BadRequest, match="it is no record"):
        plot.read(tmp_path / "run.json")


def test_without_matplotlib_the_extra_is_named(plan, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    _record.write(tmp_path / "run.json", recorded(result()))
    for words in (["plot", tmp_path / "run.json"], ["record", tmp_path / "x.json", "--plot"]):
        said = bench(*words)
        assert (
            said.stderr
            == "plot: matplotlib is not installed: pip install '.[bench]' in Octavo's folder\n"
        )


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_the_documents_say_what_was_recorded(path):
    """After a change of the tables: octavo bench plot docs/performance.json."""
    file = ROOT / "docs" / "performance.json"
    tables = _figures.tables(_record.read(file)) if file.exists() else _figures.NO_RECORD
    text = path.read_text()
    assert _figures.fill(text, tables, path.name) == text
    assert len(re.findall("<!-- figures", text)) == len(re.findall("<!-- end of figures", text))

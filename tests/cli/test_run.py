"""octavo run and octavo chat on tiny checkpoints: what goes where, and how an answer ends."""

import json
import signal

import pytest
from checkpoints import write_tiny
from typer.testing import CliRunner

from octavo import LLM, SamplingParams
from octavo.cli import app

GREEDY = ("--temperature", "0", "--max-tokens", "8")
ASKED = SamplingParams(temperature=0, top_p=0.95, max_tokens=8)
ENDLESS = ("--ignore-eos", "--max-tokens", "1000000", "--max-context", "100000")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("models") / "tiny.gguf", context=100_000)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A checkpoint without a chat template."""
    path = tmp_path_factory.mktemp("models") / "base.gguf"
    return write_tiny(path, metadata={"tokenizer.chat_template": None})


@pytest.fixture(scope="module")
def llm(tiny):
    return LLM(tiny, memory=64 << 20)


def run(*arguments, stdin=""):
    return CliRunner().invoke(app, ["run", *map(str, arguments)], input=stdin)


def chat_of(*contents):
    roles = ("system", "user")[-len(contents) :]
    return [
        {"role": role, "content": content} for role, content in zip(roles, contents, strict=True)
    ]


def test_stdout_is_the_answer_and_stderr_the_rest(tiny, llm):
    said = run(tiny, "Why?", *GREEDY, "--stats")
    assert said.stdout == llm.chat(chat_of("Why?"), ASKED).text.removesuffix("\n") + "\n"
    assert "answer of 8 tokens" in said.stderr
    assert "cut off by --max-tokens 8" in said.stderr
    assert said.exit_code == 0


def test_the_system_message_and_raw_text_reach_the_model(tiny, llm):
    told = run(tiny, "Why?", *GREEDY, "--json", "--system", "Be brief.")
    raw = run(tiny, "Why?", *GREEDY, "--json", "--raw")
    assert json.loads(told.stdout)["text"] == llm.chat(chat_of("Be brief.", "Why?"), ASKED).text
    assert json.loads(raw.stdout)["text"] == llm.generate("Why?", ASKED).text


def test_json_is_one_object_with_all_there_is(tiny, llm):
    said = json.loads(run(tiny, "Why?", "--max-tokens", "8", "--seed", "7", "--json").stdout)
    assert said["model"] == str(tiny)
    assert (said["finish_reason"], said["seed"]) == ("length", 7)
    num_prompt = len(llm.tokenizer.chat_ids(chat_of("Why?")))
    assert said["usage"] == {
        "prompt_tokens": num_prompt,
        "completion_tokens": 8,
        "cached_tokens": 0,
        "reasoning_tokens": 0,
    }


def test_the_prompt_may_come_from_stdin(tiny):
    assert run(tiny, *GREEDY, stdin="Why?\n").stdout == run(tiny, "Why?", *GREEDY).stdout


def test_a_model_without_a_template_continues_the_text_and_says_so(base):
    said = run(base, "The sky is", *GREEDY)
    assert said.stdout == run(base, "The sky is", *GREEDY, "--raw").stdout
    assert "continues the text" in said.stderr
    refused = run(base, "The sky is", "--system", "Be brief.")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "--system" in refused.stderr


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--temperature", "-1"], "temperature: -1.0 is not in [0, 100]"),
        (["--raw", "--system", "x"], "--system"),
        (["--memory", "1"], "memory"),
    ],
)
def test_what_cannot_be_done_is_refused_in_a_sentence(tiny, flags, sentence):
    said = run(tiny, "Why?", *flags)
    assert (said.exit_code, said.stdout) == (2, "")
    assert sentence in said.stderr
    assert len(said.stderr.splitlines()) == 1


def test_an_empty_prompt_is_refused(tiny):
    assert "give some text" in run(tiny, stdin="").stderr


def test_a_misspelt_model_is_noticed_and_a_damaged_one_may_be_fetched_again(tmp_path, monkeypatch):
    monkeypatch.setenv("OCTAVO_HOME", str(tmp_path))
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "smollm2.gguf").write_bytes(b"no model")
    said = run("smolm2")
    assert "the model's name is 'smollm2'" in said.stderr
    assert said.exit_code == 1
    damage = said.stderr.splitlines()[-1]
    assert damage.count("smollm2.gguf") == 1
    assert damage.endswith("delete the file and fetch it again")


@pytest.mark.processes
def test_ctrl_c_ends_the_answer_and_leaves_it_on_the_screen(program, tiny):
    process = program("run", tiny, "Why?", *ENDLESS)
    begun = process.stdout.read(1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert (begun + out).endswith("\n")
    assert err == ""


@pytest.mark.processes
def test_a_reader_that_leaves_ends_the_answer_quietly(program, tiny):
    process = program("run", tiny, "Why?", *ENDLESS)
    process.stdout.read(1)
    process.stdout.close()
    assert process.wait(60) == 141
    assert process.stderr.read() == ""


THINKS = (
    "{% for m in messages %}{{ m.content }}{% if m.reasoning_content %}({{ m.reasoning_content }})"
    "{% endif %}{% endfor %}<think>{# </think> #}"
)


@pytest.fixture(scope="module")
def thinker(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "thinker.gguf"
    return write_tiny(path, metadata={"tokenizer.chat_template": THINKS})


def test_what_a_model_thinks_is_no_answer(thinker, tmp_path, monkeypatch):
    monkeypatch.setenv("OCTAVO_HOME", str(tmp_path))
    said = run(thinker, "Why?", *GREEDY)
    thought = json.loads(run(thinker, "Why?", *GREEDY, "--json").stdout)["reasoning"]
    assert (said.stdout, thought in said.stderr) == ("\n", True)
    assert thought
    assert "think>" not in said.stderr
    saved = tmp_path / "said.json"
    talked = chat("Why?", f"/save {saved}", flags=[thinker, *GREEDY])
    assert (talked.stdout, thought in talked.stderr) == ("\n", True)
    assert json.loads(saved.read_text())[1] == {
        "role": "assistant",
        "content": "",
        "reasoning_content": thought,
    }


def chat(*lines, flags=()):
    typed = "".join(f"{line}\n" for line in lines)
    return CliRunner().invoke(app, ["chat", *map(str, flags)], input=typed)


def test_a_conversation_remembers_and_its_commands_do_what_they_say(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("OCTAVO_HOME", str(tmp_path))
    saved = tmp_path / "said.json"
    said = chat(
        "/help", "/stats", "Hello", "And?", "/stats", f"/save {saved}", "/clear", "Hello", "/nope",
        "/system Be brief.", f"/save {tmp_path}", "/exit", "never said",
        flags=[tiny, *GREEDY],
    )  # fmt: skip
    assert said.exit_code == 0
    for sentence in (
        "/system TEXT    forget",
        "there was no reply yet",
        "found in the cache",
        f"4 messages are in {saved}",
        "forgotten",
        "there is no /nope",
        "a new conversation",
        "was not written (Is a directory)",
    ):
        assert sentence in said.stderr
    turns = json.loads(saved.read_text())
    assert [turn["role"] for turn in turns] == ["user", "assistant"] * 2
    first, second = turns[1]["content"], turns[3]["content"]
    assert said.stdout == f"{first}\n{second}\n{first}\n"


def test_a_conversation_goes_on_after_what_was_too_long(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("OCTAVO_HOME", str(tmp_path))
    said = chat("word " * 100, "Hello", flags=[tiny, *GREEDY, "--max-context", "64"])
    assert said.exit_code == 0
    assert "exceed the maximum context length of 64" in said.stderr
    assert len(said.stdout) > 1


def test_a_model_without_a_template_cannot_converse(base):
    said = chat("Hello", flags=[base])
    assert said.exit_code == 2
    assert "use octavo run" in said.stderr

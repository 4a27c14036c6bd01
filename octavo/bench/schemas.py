"""The JSON Schema test suite, draft 2020-12, against our grammars: which schemas are held to, by
keyword, and whether all that a model then says is valid.

Two oracles: the suite's own values that are not valid must not be allowed, and `jsonschema` must
call every answer valid that was not cut off.
"""

import json
import tarfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, localcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from octavo.errors import BadConfig, BadRequest
from octavo.types import Json

if TYPE_CHECKING:
    from octavo.engine.engine import Engine

DRAFT = "/tests/draft2020-12/"
MAX_TOKENS = 96
CLOSING = 10  # added to the logits of what ends texts, lists, objects and turns: few are cut off
DIGITS = 1000  # more than an answer's numbers have

Case: TypeAlias = Json  # of the suite: description, schema, tests of (data, valid)


@dataclass(slots=True)
class Count:
    """Of one keyword, which is a file of the suite."""

    schemas: int = 0
    accepted: int = 0
    answers: int = 0  # sampled
    whole: int = 0  # of those, not cut off by the limit
    wrong: list[str] = field(default_factory=list)  # what was allowed and is not valid


def command(
    suite: Annotated[
        Path, typer.Argument(exists=True, help="The sdist of jsonschema, unpacked or not.")
    ],
    models: Annotated[list[str], typer.Argument(help="Names or paths of models that answer.")],
    *,
    samples: Annotated[int, typer.Option(min=1, help="Answers to each schema.")] = 20,
    document: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Whose table is written anew.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON.")] = False,
) -> None:
    """Count, by keyword, the schemas of the JSON Schema test suite that are held to, and check
    what models answer to them.

    \b
    Examples:
        pip download --no-deps --no-binary :all: jsonschema==4.26.0
        octavo bench schemas jsonschema-4.26.0.tar.gz smollm2
        octavo bench schemas jsonschema-4.26.0.tar.gz smollm2 --document docs/structured-output.md
    """
    from dataclasses import asdict

    from octavo.bench._figures import fill
    from octavo.config import Config
    from octavo.engine.engine import Engine

    files = list(read_suite(suite))
    counts: dict[str, Count] = defaultdict(Count)
    for model in models:
        engine = Engine(Config(model, max_context=1024, max_running=16, max_waiting=samples))
        for name, cases in files:
            counts[name] = measured(engine, name, cases, samples, counts[name])
    table = _table(counts, len(models) * samples)
    if document is not None:
        document.write_text(fill(document.read_text(), {"keywords": table}, document.name))
    if as_json:
        typer.echo(json.dumps({name: asdict(count) for name, count in counts.items()}))
    else:
        typer.echo(table)
    if wrong := [one for count in counts.values() for one in count.wrong]:
        typer.echo("\n".join(wrong), err=True)
        raise typer.Exit(1)


def read_suite(path: Path) -> Iterator[tuple[str, list[Case]]]:
    """(keyword, its cases), the optional formats among them. Raises BadConfig."""
    found = dict(_texts(path))
    if not found:
        raise BadConfig("suite", f"{path} has no {DRAFT}: give the sdist of the jsonschema package")
    for name in sorted(found, key=lambda name: (name.count("/"), name)):
        yield name, json.loads(found[name])


def _texts(path: Path) -> Iterator[tuple[str, bytes]]:
    if path.is_dir():
        for file in path.rglob("*.json"):
            if name := _keyword(file.as_posix()):
                yield name, file.read_bytes()
        return
    with tarfile.open(path) as archive:
        for member in archive:
            data = archive.extractfile(member)
            if data is not None and (name := _keyword(member.name)):
                yield name, data.read()


def _keyword(path: str) -> str | None:
    """ "minimum" or "format/date" of a file that counts."""
    _, is_ours, name = path.partition(DRAFT)
    name = name.removeprefix("optional/") if name.startswith("optional/format/") else name
    is_counted = is_ours and name.endswith(".json") and "optional" not in name
    return name.removesuffix(".json") if is_counted else None


def measured(
    engine: "Engine", name: str, cases: Sequence[Case], samples: int, before: Count
) -> Count:
    """Of one file, by one model; `before`, by those before it."""
    count = Count(answers=before.answers, whole=before.whole, wrong=before.wrong)
    for case in cases:
        count.schemas += 1
        try:
            allows = _allowed_by(engine, case["schema"])
        except BadRequest:
            continue
        count.accepted += 1
        place = f"{name}, {case['description']}"
        for test in case["tests"]:
            text = json.dumps(test["data"], ensure_ascii=False)
            if not test["valid"] and allows(text):
                count.wrong.append(f"{place}: allows {text[:80]}")
        for said in _answers(engine, case["schema"], samples):
            count.answers += 1
            count.whole += said is not None
            if said is not None and not is_valid(said, case["schema"]):
                count.wrong.append(f"{place}: answers {said[:80]}")
    return count


def _allowed_by(engine: "Engine", schema: Any) -> Any:
    """Whether a text may be the whole answer. Raises BadRequest."""
    from octavo.errors import StepFailed
    from octavo.types import Grammar

    compiled = engine.grammars.compile(Grammar("json_schema", json.dumps(schema)))

    def allows(text: str) -> bool:
        matcher = compiled.matcher()
        try:
            for token_id in engine.tokenizer.encode_within(text):
                matcher.consume(token_id)
            return matcher.may_end
        except StepFailed:
            return False

    return allows


def _answers(engine: "Engine", schema: Any, samples: int) -> Iterator[str | None]:
    """None: it was cut off."""
    from octavo.types import Delta, Finished, Request, SamplingParams

    tokenizer = engine.tokenizer
    tokens = ((i, tokenizer.token_bytes(i)) for i in range(tokenizer.vocab_size))
    bias = {i: CLOSING for i, token in tokens if token and not token.strip(b'"}]')}
    bias |= dict.fromkeys(tokenizer.eos_ids, CLOSING)
    for seed in range(samples):
        params = SamplingParams(
            max_tokens=MAX_TOKENS, seed=seed, schema=json.dumps(schema), logit_bias=bias
        )
        engine.add(Request(str(seed), tuple(tokenizer.prompt_ids("JSON: ")), params))
    texts: dict[str, str] = defaultdict(str)
    while engine.has_work:
        for id, event in engine.step():
            if isinstance(event, Delta):
                texts[id] += event.text
            elif isinstance(event, Finished):
                yield texts[id] if event.reason == "stop" else None


def is_valid(text: str, schema: Any) -> bool:
    """As `jsonschema` sees it, in decimal numbers: 0.3 is a multiple of 0.1. Formats count."""
    try:
        from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
        from jsonschema.validators import validator_for  # type: ignore[import-untyped]
    except ImportError as error:
        raise BadConfig("bench", "it needs jsonschema: pip install jsonschema") from error
    exact = json.loads(json.dumps(schema), parse_float=Decimal)
    kind = validator_for(exact, Draft202012Validator)
    value = json.loads(text, parse_float=Decimal)
    with localcontext(prec=DIGITS):
        return bool(kind(exact, format_checker=kind.FORMAT_CHECKER).is_valid(value))


def _table(counts: dict[str, Count], samples: int) -> str:
    total = Count()
    rows = []
    for name, count in counts.items():
        rows.append(_row(name, count))
        total.schemas += count.schemas
        total.accepted += count.accepted
        total.answers += count.answers
        total.whole += count.whole
        total.wrong += count.wrong
    head = f"| keyword | schemas | accepted | share | answers, {samples} each | whole | invalid |\n"
    return head + "| --- " * 7 + "|\n" + "".join([*rows, _row("**all**", total)])


def _row(name: str, count: Count) -> str:
    share = f"{count.accepted * 100 // count.schemas}%"
    cells = [count.schemas, count.accepted, share, count.answers, count.whole, len(count.wrong)]
    return f"| {name} | {' | '.join(map(str, cells))} |\n"

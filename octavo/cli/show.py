"""octavo show: what a model file is, and what it would take to serve it."""

import json
from collections import Counter
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Annotated

import typer

from octavo.cli._words import count, size
from octavo.errors import BadConfig
from octavo.kvcache.pool import FORMATS, page_bytes
from octavo.loader import hub
from octavo.loader.checkpoint import Checkpoint, Weights, open_checkpoint
from octavo.registry import entry, names
from octavo.types import PAGE_SIZE, KVGroup


@dataclass(frozen=True, slots=True)
class Facts:
    """The fields of `octavo show --json`."""

    name: str
    path: str
    architecture: str | None  # None: the file holds a vocabulary and no tensors
    parameters: int
    quantization: dict[str, float]  # share of the parameters, by format, largest first
    context: int | None  # tokens
    vocabulary: int | None  # tokens
    has_chat_template: bool
    weight_bytes: int
    kv_dtype: str
    kv_bytes_per_token: int  # of all layers
    kv_bytes_per_token_windowed: int  # of those, given back once a token leaves the window
    license: str | None


def command(
    name: Annotated[str, typer.Argument(help="A model's name or path.")] = hub.DEFAULT,
    *,
    kv_dtype: Annotated[
        str, typer.Option(help="How KV pages would keep numbers: float16, int8.")
    ] = "float16",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Show what a model is, and what serving it takes.

    Fetches it if it is not here.

    \b
    Examples:
        octavo show smollm2
        octavo show ./model.gguf --json
    """
    if kv_dtype not in (known := names(FORMATS)):
        raise BadConfig("kv_dtype", f"there is no {kv_dtype!r}: give {', '.join(known)}")
    facts = _facts(name, hub.resolve(name), kv_dtype)
    if as_json:
        typer.echo(json.dumps({field: getattr(facts, field) for field in Facts.__slots__}))
        return
    for title, value in _rows(facts):
        typer.echo(f"{title:14}{value}")


def _facts(name: str, path: Path, kv_dtype: str) -> Facts:
    checkpoint = open_checkpoint(path)
    formats = Counter[str]()
    for tensor in checkpoint.tensors.values():
        formats[tensor.format] += prod(tensor.shape)
    parameters = formats.total()
    groups = _kv_groups(checkpoint)
    alias = hub.ALIASES.get(name)
    return Facts(
        name=name,
        path=str(path),
        architecture=checkpoint.metadata.text("model_type", None),
        parameters=parameters,
        quantization={kind: num / parameters for kind, num in formats.most_common()},
        context=checkpoint.metadata.integer("max_position_embeddings", None),
        vocabulary=len(checkpoint.vocabulary.tokens) if checkpoint.vocabulary else None,
        has_chat_template=checkpoint.chat_template is not None,
        weight_bytes=sum(tensor.data.nbytes for tensor in checkpoint.tensors.values()),
        kv_dtype=kv_dtype,
        kv_bytes_per_token=sum(_bytes_per_token(group, kv_dtype) for group in groups),
        kv_bytes_per_token_windowed=sum(
            _bytes_per_token(group, kv_dtype) for group in groups if group.window
        ),
        license=checkpoint.license or (alias.licence if alias else None),
    )


def _kv_groups(checkpoint: Checkpoint) -> tuple[KVGroup, ...]:
    if not checkpoint.tensors:
        return ()
    architecture = entry("octavo.models", checkpoint.metadata.text("model_type"))
    config = architecture.Config.read(checkpoint.metadata)
    model = architecture.Model(config, Weights(checkpoint.tensors, load=lambda raw: raw))
    groups: tuple[KVGroup, ...] = model.groups
    return groups


def _bytes_per_token(group: KVGroup, kv_dtype: str) -> int:
    return page_bytes(group, kv_dtype) // PAGE_SIZE


def _rows(facts: Facts) -> list[tuple[str, str]]:
    mix = ", ".join(f"{kind} {share:.1%}" for kind, share in facts.quantization.items())
    kv = f"{size(facts.kv_bytes_per_token)} a token in {facts.kv_dtype} pages"
    if facts.kv_bytes_per_token_windowed:
        kv += f", of which {size(facts.kv_bytes_per_token_windowed)} only while within the window"
    return [
        ("name", facts.name),
        ("path", facts.path),
        ("architecture", facts.architecture or "none, a vocabulary only"),
        ("parameters", count(facts.parameters)),
        ("quantization", mix or "none"),
        ("context", f"{facts.context} tokens" if facts.context else "unknown"),
        ("vocabulary", f"{facts.vocabulary} tokens" if facts.vocabulary else "none"),
        ("chat template", "yes" if facts.has_chat_template else "no: octavo run continues text"),
        ("weights", size(facts.weight_bytes)),
        ("KV", kv),
        ("licence", facts.license or "not named in the file"),
    ]

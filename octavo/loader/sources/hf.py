"""Files of Hugging Face's hub, through its own library: tokens, mirrors and resuming are its."""

import errno
import os
import re
from pathlib import Path

from octavo.errors import NotFetched

FORM = "hf:ORG/REPO/FILE"
SHAPE = re.compile(r"[\w.-]+/[\w.-]+/[^\0\s][^\0]*", re.ASCII)
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)


def fetch(rest: str, folder: Path) -> Path:
    # A line for every retry and a second bar are for those who ask the library for them.
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from huggingface_hub import hf_hub_download

    organization, repository, file = rest.split("/", 2)
    repo_id = f"{organization}/{repository}"
    try:
        # What is half here stays in `folder`, so the next attempt goes on from there.
        return Path(hf_hub_download(repo_id, file, local_dir=folder))
    except Exception as error:  # of the hub, of its HTTP library, of its transfer accelerator
        if isinstance(error, OSError) and error.errno in DISK:
            raise
        raise NotFetched(_why(repo_id, file, error)) from error


def _why(repo_id: str, file: str, error: Exception) -> str:
    from huggingface_hub import errors

    page = f"https://huggingface.co/{repo_id}"
    if isinstance(error, errors.GatedRepoError):
        return f"{repo_id} wants its terms accepted: do so at {page}, then run `hf auth login`"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"{repo_id} is not on the hub, or private: check the name or run `hf auth login`"
    if isinstance(error, errors.LocalEntryNotFoundError):
        return (
            f"the hub cannot be reached for {repo_id}: check the network and HF_ENDPOINT, "
            "or give the path of a model file you have"
        )
    if isinstance(error, errors.EntryNotFoundError):
        return f"{repo_id} has no file {file!r}: choose one of those at {page}/tree/main"
    reason = str(error).strip().splitlines()[:1] or [""]
    return f"{repo_id}/{file} was not fetched ({type(error).__name__}: {reason[0]}): try again"

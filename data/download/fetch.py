"""Fetching files from Hugging Face, Google Drive, a server, or a folder.

Libraries do the work; here, each of their errors becomes a FetchError of one line.
"""

import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from human_anomaly.utils import one_line

T = TypeVar("T")

logger = logging.getLogger(__name__)


class FetchError(Exception):
    """A file could not be fetched; the message says from where, and why."""


@contextmanager
def _as_fetch_error(source: str) -> Iterator[None]:
    """Turn every error into a FetchError.

    Behind a proxy or a portal, or with a wrong token, the libraries raise ImportError, ValueError,
    RuntimeError and more kinds, none of them documented.
    """
    try:
        yield
    except FetchError:
        raise
    except Exception as error:
        raise FetchError(f"{source}: {one_line(error)}") from error


def fetch_checked(
    sources: Sequence[Callable[[Path], None]], target: Path, check: Callable[[Path], T]
) -> T:
    """Fetch `target` from the first source whose file passes `check`; return its result.

    Each source writes to the path that it is given. One process at a time fetches a file, and
    `target` is replaced atomically. `check` may raise FetchError. If no source is left, a
    FetchError names all errors.
    """
    from filelock import FileLock, Timeout

    folder = target.parent / ".download" / target.stem
    path, failures = folder / target.name, []
    with _as_fetch_error(str(folder)):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(folder / ".lock", timeout=0):
                for source in sources:
                    try:
                        source(path)
                        found = check(path)
                    except FetchError as error:
                        path.unlink(missing_ok=True)  # the next source must not continue this file
                        failures.append(str(error))
                        logger.warning(f"{target.name}: {error}")
                    else:
                        path.replace(target)
                        shutil.rmtree(folder, ignore_errors=True)
                        return found
        except Timeout as error:
            raise FetchError(f"another process is fetching into {folder}") from error
        raise FetchError("; ".join(failures))


@contextmanager
def _hub(place: str) -> Iterator:
    """Yield the API of Hugging Face, or of the mirror HF_ENDPOINT, to fetch from `place` there."""
    endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    with _as_fetch_error(f"{endpoint}/{place}"):
        from huggingface_hub import HfApi

        yield HfApi(endpoint=endpoint)


def from_hub(repo: str, path: Path) -> None:
    """Fetch the file named like `path` from a Hugging Face model repository to `path`.

    If the connection breaks, the download continues.
    """
    with _hub(repo) as api:
        api.hf_hub_download(repo, path.name, local_dir=path.parent)


def data_set_from_hub(repo: str, folder: Path) -> str:
    """Fetch a Hugging Face data set into `folder` and return its revision.

    Complete files are not fetched again.
    """
    with _hub(f"datasets/{repo}") as api:
        revision = api.dataset_info(repo).sha
        logger.info(f"fetching {repo}, revision {revision}, from {api.endpoint}")
        api.snapshot_download(repo, repo_type="dataset", revision=revision, local_dir=folder)
    return revision


def from_drive(file_id: str, path: Path) -> None:
    """Fetch a public file of Google Drive to `path`; continue an earlier call's download."""
    try:
        import gdown
    except ImportError as error:
        raise FetchError(
            "Google Drive: gdown is not installed; run pip install 'gdown>=6.3,<7'"
        ) from error
    with _as_fetch_error("Google Drive"):
        gdown.download(
            id=file_id, output=str(path), resume=True, use_cookies=False, timeout=60, retries=3
        )


def from_mirror(mirror: str, path: Path) -> None:
    """Fetch the file named like `path` from `mirror`, a URL or a folder, to `path`."""
    import torch.hub

    with _as_fetch_error("--mirror"):
        if mirror.startswith(("http://", "https://")):
            torch.hub.download_url_to_file(f"{mirror.rstrip('/')}/{quote(path.name)}", str(path))
        elif not Path(mirror).expanduser().is_dir():
            raise FetchError(f"--mirror: expected a URL or a folder, got {mirror}")
        else:
            shutil.copyfile(Path(mirror).expanduser() / path.name, path)

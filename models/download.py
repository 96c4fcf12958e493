"""Fetching one large file: over HTTP with resumption, from a folder, or from Google Drive."""

import errno
import http.client
import inspect
import logging
import os
import re
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

logger = logging.getLogger(__name__)

CHUNK = 1 << 20
DRIVE_URL = "https://drive.google.com/uc?id={id}"


class DownloadError(Exception):
    """A file that could not be fetched; the message says what the other side did."""


class _WrongRange(DownloadError):
    """Other bytes than were asked for: what is here cannot be continued from this server."""


@contextmanager
def only_one(folder: Path):
    """Hold `folder` for this process; raises DownloadError where another one fetches into it."""
    try:
        import fcntl
    except ImportError:  # Windows: two fetches at once end in a failed check
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise DownloadError(f"another process is fetching into {folder}") from error
        yield


def _total_size(response, offset: int) -> int | None:
    """Return the whole file's size by the server's word, or None; raises on a wrong range."""
    length = response.headers.get("Content-Length", "")
    if offset:
        found = response.headers.get("Content-Range", "")
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", found)
        if match is None or int(match[1]) != offset:
            raise _WrongRange(f"asked for bytes from {offset}, the server sent {found!r}")
        if match[2] != "*":
            return int(match[2])
    return offset + int(length) if length.isdigit() else None


def _stream(response, part: Path, offset: int, total: int | None) -> None:
    """Append the response to `part`, with a progress bar."""
    bar = tqdm(total=total, initial=offset, unit="B", unit_scale=True, desc=part.stem, leave=False)
    with open(part, "ab") as file, bar:
        while chunk := response.read(CHUNK):
            file.write(chunk)
            bar.update(len(chunk))


def _request(url: str, part: Path, note: Path, timeout: float) -> int | None:
    """Ask once for what `part` lacks and append it; return the whole size if the server told it.

    `note` keeps the version that the server named, so that two versions are never spliced.
    """
    offset = part.stat().st_size if part.exists() else 0
    version = note.read_text() if note.exists() else ""
    headers = {"Accept-Encoding": "identity"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
        if version:
            headers["If-Range"] = version
    with urllib.request.urlopen(
        urllib.request.Request(url, headers=headers), timeout=timeout
    ) as response:
        if offset and response.status != 206:  # another version, or no resumption there
            part.unlink()
            offset = 0
        kind = response.headers.get_content_type()
        if kind == "text/html":
            raise DownloadError("the server sent a web page instead of the file")
        total = _total_size(response, offset)
        tag = response.headers.get("ETag", "")
        note.write_text(tag if not tag.startswith("W/") else "")
        _stream(response, part, offset, total)
    return total


def fetch_http(
    url: str, part: Path, *, timeout: float = 60, attempts: int = 5, wait: float = 1.0
) -> None:
    """Fetch `url` into `part`, going on where an earlier call or a broken connection stopped.

    Gives up after `attempts` requests in a row that bring nothing new. Raises DownloadError; what
    came stays in `part`.
    """
    note = part.with_name(part.name + ".version")
    failures, reason, best = 0, "", 0  # best: the most bytes that were here at any time
    while failures < attempts:
        before = part.stat().st_size if part.exists() else 0
        total = None
        try:
            total = _request(url, part, note, timeout)
            reason = "the connection broke off"
        except urllib.error.HTTPError as error:
            if error.code == 416 and before:  # nothing after the last byte that is here
                note.unlink(missing_ok=True)
                return
            if error.code < 500 and error.code not in (408, 429):
                raise DownloadError(f"{url}: HTTP {error.code} {error.reason}") from error
            reason = f"HTTP {error.code} {error.reason}"
        except (TimeoutError, urllib.error.URLError, http.client.HTTPException) as error:
            reason = str(getattr(error, "reason", error)) or type(error).__name__
        except _WrongRange as error:
            reason = str(error)
            part.unlink(missing_ok=True)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise DownloadError(f"no space left for {part}") from error
            reason = str(error)
        after = part.stat().st_size if part.exists() else 0
        if total is not None and after == total:
            note.unlink(missing_ok=True)
            return
        if total is None and reason == "the connection broke off" and after:
            return  # the server named no size: the caller's checks decide
        failures = 0 if after > max(best, before) else failures + 1
        best = max(best, before, after)
        if failures < attempts:
            logger.warning("%s: %s after %.1f MB, trying again", url, reason, after / 1e6)
            time.sleep(wait * min(2**failures, 30))
    raise DownloadError(f"{url}: {reason} ({attempts} attempts)")


def fetch_folder(folder: Path, name: str, part: Path) -> None:
    """Copy `folder/name` to `part`; raises DownloadError where it is missing or unreadable."""
    source = folder / name
    if not source.is_file():
        raise DownloadError(f"{source}: no such file")
    try:
        shutil.copyfile(source, part)
    except OSError as error:
        raise DownloadError(f"{source}: cannot copy: {error.strerror}") from error


def fetch_drive(file_id: str, part: Path) -> None:
    """Fetch a public Google Drive file into `part` with gdown, which resumes by itself.

    Raises DownloadError where gdown is not installed, Drive is out of reach, or Drive refuses.
    """
    try:
        import gdown
        import requests
    except ImportError as error:
        raise DownloadError("gdown is not installed: pip install 'gdown>=5.2,<7'") from error
    refusals = [
        getattr(gdown.exceptions, name)
        for name in ("DownloadError", "FileURLRetrievalError")  # the first one since gdown 6
        if hasattr(gdown.exceptions, name)
    ]
    options = {"timeout": 60, "retries": 3}
    known = inspect.signature(gdown.download).parameters
    options = {k: v for k, v in options.items() if k in known}
    try:
        got = gdown.download(
            url=DRIVE_URL.format(id=file_id),
            output=str(part),
            resume=True,
            use_cookies=False,
            **options,
        )
    except requests.exceptions.RequestException as error:
        raise DownloadError(f"Google Drive is out of reach ({type(error).__name__})") from error
    except tuple(refusals) as error:
        words = " ".join(str(error).split())
        raise DownloadError(f"Google Drive did not give the file: {words[:200]}") from error
    except OSError as error:
        raise DownloadError(f"cannot write {part}: {error.strerror or error}") from error
    if got is None or not part.is_file():
        raise DownloadError("Google Drive did not give the file")


def fetch(mirror: str | None, name: str, file_id: str, part: Path) -> None:
    """Fetch `name` into `part` from `mirror` (a URL or a folder), or else from Google Drive."""
    part.parent.mkdir(parents=True, exist_ok=True)
    if mirror is None:
        fetch_drive(file_id, part)
    elif urllib.parse.urlsplit(mirror).scheme in ("http", "https"):
        fetch_http(f"{mirror.rstrip('/')}/{urllib.parse.quote(name)}", part)
    else:
        folder = Path(mirror.removeprefix("file://")).expanduser()
        if not folder.is_dir():
            raise DownloadError(f"--mirror: no such folder or URL: {os.fspath(folder)}")
        fetch_folder(folder, name, part)

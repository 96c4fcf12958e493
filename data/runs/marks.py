"""Whether a file has changed, told by its size, time and hash."""

import hashlib
import os
from pathlib import Path

from human_anomaly.data.video import Source


def version(path: str) -> list:
    """Return path, size and time of a file, which tell it from another that took its place."""
    if not os.path.isfile(path):
        return [path, None, None]
    found = os.stat(path)
    return [path, found.st_size, found.st_mtime_ns]


def mark(path: Path) -> list:
    """Return size, time and hash of a file, for `is_unchanged`."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return [path.stat().st_size, path.stat().st_mtime_ns, digest]


def is_unchanged(path: Path, before: list) -> bool:
    """Return whether a file is as its `mark` says; it is read only if its time has changed."""
    try:
        stat = path.stat()
        same_time = [stat.st_size, stat.st_mtime_ns] == before[:2]
        return same_time or (stat.st_size == before[0] and mark(path)[2] == before[2])
    except OSError:
        return False


def content_digest(source: Source) -> str | None:
    """Return the SHA-256 of a video's bytes, or of its images' in order; None if it is gone."""
    digest = hashlib.sha256()
    try:
        for path in source.images or (source.path,):
            with path.open("rb") as file:
                while block := file.read(2**20):
                    digest.update(block)
    except OSError:
        return None
    return digest.hexdigest()

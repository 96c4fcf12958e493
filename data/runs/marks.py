"""Whether a file has changed, told by its size, time and hash."""

import filecmp
import hashlib
import json
import os
from pathlib import Path


def file_stamp(path: str) -> list:
    """Return path, size and time of a file, which tell it from another that took its place."""
    if not os.path.isfile(path):
        return [path, None, None]
    stat = os.stat(path)
    return [path, stat.st_size, stat.st_mtime_ns]


def mark(path: Path) -> list:
    """Return size, time and hash of a file, for `is_unchanged`."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return [*file_stamp(path)[1:], digest]


def is_unchanged(path: Path, before: object) -> bool:
    """Return whether a file is as its `mark` says; it is read only if its time has changed."""
    try:
        size, time, digest = before
        return file_stamp(path)[1:] == [size, time] or (
            file_stamp(path)[1] == size and mark(path)[2] == digest
        )
    except (OSError, TypeError, ValueError):  # gone, or no mark
        return False


def is_same_file(a: object, b: object) -> bool:
    """Return whether two paths name files of the same content; False where one is not here."""
    try:
        return filecmp.cmp(a, b, shallow=False)
    except (OSError, TypeError, ValueError):  # gone, no path, or a NUL in it
        return False


def digest_of(content: object, *, sort_keys: bool = True) -> str:
    """Return a hash of plain JSON."""
    return hashlib.sha256(json.dumps(content, sort_keys=sort_keys).encode()).hexdigest()


def read_object(path: Path) -> dict | None:
    """Return the JSON object in a file; None if there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None

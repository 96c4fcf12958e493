"""Unpacking zip archives that may be dangerous, whole or in pieces (`x.z01 .. x.zip`).

The archive's list of its entries is read first, so that a dangerous or incomplete archive is
refused before anything is written. Then stream-unzip reads the pieces as one stream.
"""

import errno
import io
import logging
import os
import re
import shutil
import stat
import struct
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from human_anomaly.utils import UsageError

logger = logging.getLogger(__name__)

CHUNK = 1 << 20
# Videos and images hardly compress, and JSON lines about ten times: more is an archive bomb.
MAX_RATIO, FREE_SIZE = 20, 64 << 20


def refuse_lfs_pointer(path: Path) -> None:
    """Raise UsageError if `path` is the short text that git writes instead of a missing file."""
    with path.open("rb") as file:
        if file.read(40).startswith(b"version https://git-lfs"):
            raise UsageError(f"{path}: only a Git LFS pointer; run: git lfs install; git lfs pull")


def archive_pieces(path: Path) -> list[Path]:
    """Return the pieces `x.z01, .., x.zip` of the archive; `path` is the last piece or the whole.

    Raises UsageError naming a piece that is missing or shorter than the others.
    """
    numbers = [
        int(piece.suffix[2:])
        for piece in path.parent.glob("*.z*")
        if piece.stem == path.stem and re.fullmatch(r"\.z\d{2,}", piece.suffix)
    ]
    pieces = [path.with_suffix(f".z{n:02d}") for n in range(1, max(numbers, default=0) + 1)]
    for piece in (*pieces, path):
        if not piece.is_file():
            raise UsageError(f"{piece}: missing; fetch this piece of the archive")
        refuse_lfs_pointer(piece)
    for piece in pieces[1:]:
        size, expected = piece.stat().st_size, pieces[0].stat().st_size
        if size != expected:
            raise UsageError(
                f"{piece}: {size:,} bytes, expected {expected:,} like {pieces[0].name}; fetch again"
            )
    return [*pieces, path]


def _read_tail(pieces: Sequence[Path], length: int) -> bytes:
    """Return the last `length` bytes of the pieces, taken as one stream."""
    tail = b""
    for piece in reversed(pieces):
        if len(tail) < length:
            with piece.open("rb") as file:
                file.seek(max(0, piece.stat().st_size + len(tail) - length))
                tail = file.read() + tail
    return tail


def _stream(pieces: Sequence[Path]) -> Iterator[bytes]:
    """Yield the pieces as one stream, without the marker at the start of an archive in pieces."""
    for piece in pieces:
        with piece.open("rb") as file:
            if piece == pieces[0] and file.read(4) not in (b"PK\7\x08", b"PK00"):
                file.seek(0)
            yield from iter(partial(file.read, CHUNK), b"")


def _list_size(path: Path, pieces: Sequence[Path]) -> tuple[int, int]:
    """Return the sizes of the archive's list of entries and of what follows it, in bytes."""
    tail = _read_tail(pieces, 66_000)
    end = tail.rfind(b"PK\5\6")
    if end < 0 or len(tail) - end < 22:
        size = path.stat().st_size
        raise UsageError(f"{path}: no zip archive, or truncated ({size:,} bytes); fetch it again")
    count = 1 + struct.unpack_from("<H", tail, end + 4)[0]
    size = struct.unpack_from("<L", tail, end + 12)[0]
    if tail[:end][-20:].startswith(b"PK\6\7"):  # zip64: the same fields, wider, come before
        count = struct.unpack_from("<L", tail, end - 4)[0]
        end = max(0, tail.rfind(b"PK\6\6", 0, end))
        size = struct.unpack_from("<Q", tail, end + 40)[0]
    if count != len(pieces):
        raise UsageError(
            f"{path}: expects {count} pieces, found {len(pieces)}; fetch all into one folder"
        )
    return size, len(tail) - end


def list_entries(path: Path, pieces: Sequence[Path]) -> dict[bytes, zipfile.ZipInfo]:
    """Return the archive's list of its entries, by their names as stored.

    zipfile refuses an archive in pieces, but reads the list if it gets nothing else.
    """
    try:
        size, after = _list_size(path, pieces)
        names = _read_tail(pieces, size + after)[:-after] if size < 1 << 30 else b""
        alone = names + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0, 0, len(names), 0, 0)
        if len(names) != size:
            raise zipfile.BadZipFile("it points outside the archive")
        with zipfile.ZipFile(io.BytesIO(alone)) as archive:
            listed = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError, struct.error) as error:
        raise UsageError(f"{path}: damaged list of files ({error}); fetch it again") from error
    entries = {}
    for entry in listed:
        stored = entry.orig_filename.encode("utf-8" if entry.flag_bits & 0x800 else "cp437")
        why = "comes twice" if stored in entries else _danger(readable(stored), entry)
        if why:
            raise UsageError(
                f"{path}: refused, entry {readable(stored)!r} {why}; nothing of it was written"
            )
        entries[stored] = entry
    packed = sum(piece.stat().st_size for piece in pieces)
    total = sum(entry.file_size for entry in listed)
    if total > max(MAX_RATIO * packed, FREE_SIZE):
        raise UsageError(
            f"{path}: refused, {packed:,} bytes would unpack to {total:,}, more than {MAX_RATIO} "
            "times as many (an archive bomb?); nothing of it was written"
        )
    return entries


def readable(stored: bytes) -> str:
    """Return a stored name as text: zip on Linux writes UTF-8 without saying so, DOS cp437."""
    with suppress(UnicodeDecodeError):
        return stored.decode("utf-8")
    return stored.decode("cp437")


def _danger(name: str, entry: zipfile.ZipInfo) -> str | None:
    """Return why an entry must not be unpacked, or None."""
    # After an empty step, as in "top//etc", the rest would become an absolute path.
    steps = name.removesuffix("/").split("/")
    odd = "\\" in name or "\0" in name or re.match(r"[A-Za-z]:", name)
    if odd or any(step in ("", ".", "..") for step in steps):
        return "leaves the folder"
    if stat.S_ISLNK(entry.external_attr >> 16):
        return "is a link"
    if entry.flag_bits & 1:
        return "is encrypted"
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return f"is packed by method {entry.compress_type}, expected 0 or 8"
    return None


def unpack(path: Path, folder: Path, top: str) -> list[Path]:
    """Unpack the archive at `path` below `folder` and return its pieces.

    The folder `top` (with its slash) is left out of the names if all of them are in it. Each file
    appears when it is whole, and a file of the right size is kept, so that a later call resumes.
    Raises UsageError if the archive is incomplete, damaged or dangerous, or the disk too full.
    """
    pieces = archive_pieces(path)
    entries = list_entries(path, pieces)
    sizes = {stored: entry.file_size for stored, entry in entries.items()}
    files = [stored for stored in entries if not stored.endswith(b"/")]
    top = top if all(readable(stored).startswith(top) for stored in entries) else ""
    folder.mkdir(parents=True, exist_ok=True)
    todo = {}
    for stored in files:
        target, size = folder / readable(stored).removeprefix(top), sizes[stored]
        found = target.stat().st_size if target.is_file() else None
        if found != size:
            todo[stored] = target
        if found not in (None, size):
            logger.warning(f"{target}: has {found:,} bytes instead of {size:,}, unpacked again")
    free, needed = shutil.disk_usage(folder).free, sum(sizes[stored] for stored in todo)
    if needed > free:
        raise UsageError(
            f"{folder}: {needed / 1e9:.1f} GB are needed to unpack {path.name}, "
            f"{free / 1e9:.1f} GB are free; nothing of it was written"
        )
    if todo:
        _write_files(path, pieces, sizes, todo)
    kept = len(files) - len(todo)
    logger.info(f"{path.name}: {len(todo):,} files unpacked, {kept:,} were there already")
    return pieces


def _write_files(
    path: Path, pieces: Sequence[Path], sizes: Mapping[bytes, int], todo: Mapping[bytes, Path]
) -> None:
    """Read the archive once, and write the entries of `todo` to its paths."""
    from stream_unzip import UnzipError, stream_unzip
    from tqdm import tqdm

    left, stored = dict(sizes), b""
    total = sum(sizes.values())
    bar = tqdm(total=total, unit="B", unit_scale=True, desc=path.name, mininterval=0.5)
    try:
        with bar:
            for stored, _, chunks in stream_unzip(_stream(pieces)):
                if stored not in left:
                    raise UsageError(
                        f"{path}: refused, entry {readable(stored)!r} comes twice, or is not in "
                        "the archive's list of files"
                    )
                counted = _counted(chunks, left.pop(stored), bar.update)
                _write_file(counted, todo.get(stored))
    except (UnzipError, EOFError) as error:
        raise UsageError(
            f"{path}: damaged or truncated at entry {readable(stored)!r} "
            f"({type(error).__name__}); fetch the archive again"
        ) from error
    if left:
        raise UsageError(
            f"{path}: damaged, entry {readable(min(left))!r} is in its list of files but has no "
            "content; fetch the archive again"
        )


def _counted(
    chunks: Iterable[bytes], size: int, progress: Callable[[int], object]
) -> Iterator[bytes]:
    """Yield `chunks`; raises EOFError if they are not `size` bytes, at once if they are more."""
    for chunk in chunks:
        size -= len(chunk)
        if size < 0:
            break
        progress(len(chunk))
        yield chunk
    if size:
        raise EOFError


def _write_file(chunks: Iterable[bytes], target: Path | None) -> None:
    """Write `chunks` to `target` atomically, or only read them where it is None."""
    if target is None:
        for _ in chunks:
            pass
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    # Not atomic_write: its fsync is slow for so many files, and killed runs would leave many
    # half-written ones; this name is used again.
    part = target.with_name(f".{target.name}.part")
    try:
        with part.open("wb") as file:
            file.writelines(chunks)
        os.replace(part, target)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise UsageError(
            f"{target}: the disk is full; free some space and run the same command again"
        ) from error
    finally:
        part.unlink(missing_ok=True)

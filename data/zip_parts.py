"""Reading zip archives, split ones (`x.z01 .. x.zip`) included, without trusting them.

A split archive is one zip stream cut into pieces; offsets inside it count from the start of a
piece, which Python's zipfile refuses. Nothing is joined on disk: the pieces are read in place.
"""

import errno
import logging
import os
import re
import shutil
import stat
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

logger = logging.getLogger(__name__)

CHUNK = 1 << 20
# Videos and images hardly compress, and JSON lines about ten times: more is a bomb.
MAX_RATIO, FREE_SIZE = 20, 64 << 20
_FULL16, _FULL32 = 0xFFFF, 0xFFFFFFFF


class ArchiveError(Exception):
    """An archive that is incomplete, damaged or dangerous; the message names file and reason."""


@dataclass(frozen=True)
class Entry:
    """One file in an archive: its checked relative name, and where its data lies."""

    name: str
    size: int
    compressed: int
    crc: int
    method: int
    offset: int  # of the local header, from the start of the first piece


def pieces_present(path: Path) -> dict[int, Path]:
    """Return the numbered pieces (.z01, ..) that lie beside `path`, the archive's last piece."""
    pieces = {}
    for piece in path.parent.iterdir() if path.parent.is_dir() else ():
        number = re.fullmatch(r"\.z(\d{2,})", piece.suffix.lower())
        if piece.stem == path.stem and number:
            pieces[int(number[1])] = piece
    return pieces


def archive_parts(path: Path) -> list[Path]:
    """Return all pieces of the archive whose last one is `path`, in order.

    Raises ArchiveError naming a piece that is missing or shorter than the others.
    """
    pieces = pieces_present(path)
    for number in range(1, max(pieces, default=0) + 1):
        if number not in pieces:
            raise ArchiveError(f"{path.with_suffix(f'.z{number:02d}')}: missing; fetch this piece")
    found = [pieces[number] for number in sorted(pieces)]
    if not path.is_file():
        raise ArchiveError(f"{path}: missing, the last piece of {len(found) + 1}; fetch it")
    for piece in found[1:]:
        size, expected = piece.stat().st_size, found[0].stat().st_size
        if size != expected:
            raise ArchiveError(
                f"{piece}: {size:,} bytes, expected {expected:,} like {found[0].name}; fetch again"
            )
    return [*found, path]


class ZipParts:
    """An archive opened for reading; use it as a context manager.

    `entries` are its files in the order of their data. Raises ArchiveError on opening for missing
    pieces, names that leave the folder, links, encryption, overlapping data, and sizes of a bomb.
    """

    def __init__(self, path: Path):
        self.path = Path(path)
        self.parts = archive_parts(self.path)
        self._starts = [0]
        for part in self.parts:
            self._starts.append(self._starts[-1] + part.stat().st_size)
        self.size = self._starts[-1]
        self._stack = ExitStack()
        try:
            self._files = [self._stack.enter_context(part.open("rb")) for part in self.parts]
            self.entries = self._checked(self._directory())
        except BaseException:
            self._stack.close()
            raise

    def __enter__(self) -> "ZipParts":
        return self

    def __exit__(self, *exception) -> None:
        self._stack.close()

    def _read(self, offset: int, length: int) -> bytes:
        """Return `length` bytes at `offset` of the joined stream."""
        if offset < 0 or offset + length > self.size:
            raise ArchiveError(f"{self.path}: damaged, it points outside its {self.size:,} bytes")
        pieces = []
        for file, start, end in zip(self._files, self._starts, self._starts[1:], strict=False):
            if length and start <= offset < end:
                file.seek(offset - start)
                pieces.append(file.read(min(length, end - offset)))
                offset, length = offset + len(pieces[-1]), length - len(pieces[-1])
        return b"".join(pieces)

    def _position(self, disk: int, offset: int) -> int:
        if disk >= len(self.parts):
            raise ArchiveError(
                f"{self.path}: expects {disk + 1} pieces, found {len(self.parts)}; "
                "fetch the missing ones and put them side by side"
            )
        return self._starts[disk] + offset

    def _directory(self) -> Iterator[tuple]:
        """Yield (fields, name, extra) of each record in the central directory."""
        tail_start = max(0, self.size - 65557)
        tail = self._read(tail_start, self.size - tail_start)
        end = tail.rfind(b"PK\5\6")
        if end < 0 or len(tail) - end < 22:
            raise ArchiveError(
                f"{self.path}: no zip archive, or truncated ({self.parts[-1].stat().st_size:,} "
                "bytes, its end is missing); fetch it again"
            )
        _, disk, start_disk, _, count, size, offset = struct.unpack_from("<4s4H2L", tail, end)
        if end >= 20 and tail[end - 20 : end - 16] == b"PK\6\7":
            _, disk64, offset64, _ = struct.unpack_from("<4sLQL", tail, end - 20)
            record = self._read(self._position(disk64, offset64), 56)
            if record[:4] != b"PK\6\6":
                raise ArchiveError(f"{self.path}: damaged, its zip64 record is missing")
            _, _, _, _, disk, start_disk, _, count, size, offset = struct.unpack(
                "<4sQ2H2L4Q", record
            )
        self._position(disk, 0)
        data = self._read(self._position(start_disk, offset), size)
        at = 0
        for _ in range(count):
            if data[at : at + 4] != b"PK\1\2" or len(data) - at < 46:
                raise ArchiveError(f"{self.path}: damaged list of files")
            fields = struct.unpack_from("<4s6H3L5H2L", data, at)
            name_end = at + 46 + fields[10]
            extra_end = name_end + fields[11]
            yield fields, data[at + 46 : name_end], data[name_end:extra_end]
            at = extra_end + fields[12]

    def _checked(self, records: Iterator[tuple]) -> list[Entry]:
        entries, names = [], set()
        for fields, raw_name, extra in records:
            flags, method, crc, packed, size = *fields[3:5], *fields[7:10]
            disk, attributes, offset = fields[13], fields[15], fields[16]
            name, size, packed, offset, disk = _extended(
                _decode(raw_name, flags), extra, raw_name, size, packed, offset, disk
            )
            why = _refusal(name, flags, method, attributes)
            if why or name in names:
                raise ArchiveError(
                    f"{self.path}: refused, entry {name!r} {why or 'comes twice'}; "
                    "nothing of it was written"
                )
            names.add(name)
            if not name.endswith("/"):
                position = self._position(disk, offset)
                entries.append(Entry(name, size, packed, crc, method, position))
        entries.sort(key=lambda entry: entry.offset)
        self._refuse_bomb(entries)
        return entries

    def _refuse_bomb(self, entries: list[Entry]) -> None:
        total = sum(entry.size for entry in entries)
        if total > max(MAX_RATIO * self.size, FREE_SIZE):
            raise ArchiveError(
                f"{self.path}: refused, {self.size:,} bytes would unpack to {total:,}, more than "
                f"{MAX_RATIO} times as many (an archive bomb?); nothing of it was written"
            )
        ends = [*(entry.offset for entry in entries[1:]), self.size]
        for entry, end in zip(entries, ends, strict=True):
            if entry.offset + 30 + entry.compressed > end:
                raise ArchiveError(
                    f"{self.path}: refused, the data of {entry.name!r} overlap with others "
                    "(an archive bomb, or a damaged file); nothing of it was written"
                )

    def stream(self, entry: Entry) -> Iterator[bytes]:
        """Yield the content of `entry` in chunks; raises ArchiveError if it is not as declared."""
        damaged = ArchiveError(f"{self.path}: {entry.name!r} is damaged; fetch the archive again")
        header = self._read(entry.offset, 30)
        if header[:4] != b"PK\3\4":
            raise damaged
        start = entry.offset + 30 + sum(struct.unpack_from("<2H", header, 26))
        crc, written = 0, 0
        try:
            for chunk in self._chunks(start, entry):
                crc, written = zlib.crc32(chunk, crc), written + len(chunk)
                if written > entry.size:
                    raise damaged
                yield chunk
        except zlib.error as error:
            raise damaged from error
        if written != entry.size or crc != entry.crc:
            raise damaged

    def _chunks(self, start: int, entry: Entry) -> Iterator[bytes]:
        """Yield the unpacked data, at most CHUNK bytes at a time however well they were packed."""
        inflate = zlib.decompressobj(-zlib.MAX_WBITS) if entry.method else None
        for at in range(start, start + entry.compressed, CHUNK):
            data = self._read(at, min(CHUNK, start + entry.compressed - at))
            while data and inflate:
                yield inflate.decompress(data, CHUNK)
                data = inflate.unconsumed_tail
            if data:
                yield data
        if inflate:
            yield inflate.flush()


def _decode(raw: bytes, flags: int) -> str:
    return raw.decode("utf-8" if flags & 0x800 else "cp437", errors="replace")


def _extended(name, extra, raw_name, size, packed, offset, disk) -> tuple:
    """Return name, sizes, offset and disk with the values that the extra fields hold instead."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        body = extra[at + 4 : at + 4 + length]
        at += 4 + length
        if kind == 0x7075 and body[1:5] == struct.pack("<L", zlib.crc32(raw_name)):
            name = body[5:].decode("utf-8", errors="replace")
        elif kind == 1:
            wide = []
            for value in (size, packed, offset):
                if value == _FULL32 and len(body) >= 8:
                    value, body = struct.unpack_from("<Q", body)[0], body[8:]
                wide.append(value)
            size, packed, offset = wide
            if disk == _FULL16 and len(body) >= 4:
                disk = struct.unpack_from("<L", body)[0]
    return name, size, packed, offset, disk


def _refusal(name: str, flags: int, method: int, attributes: int) -> str | None:
    """Return why an entry must not be unpacked, or None."""
    # An empty step would turn the rest into an absolute path once a top folder is taken off.
    steps = name.removesuffix("/").split("/")
    unsafe = "\\" in name or "\0" in name or re.match(r"[A-Za-z]:", name)
    if unsafe or any(step in ("", ".", "..") for step in steps):
        return "leaves the folder"
    if stat.S_ISLNK(attributes >> 16):
        return "is a link"
    if flags & 1:
        return "is encrypted"
    if method not in (0, 8):
        return f"is packed by method {method}, expected 0 or 8"
    return None


def unpack(
    archive: ZipParts,
    folder: Path,
    place: Callable[[str], str],
    progress: Callable[[int], object] = lambda size: None,
) -> int:
    """Write the files of `archive` below `folder` and return how many were written now.

    `place` maps an entry's name to its path below `folder`. Each file appears when it is whole;
    one that is there with the right size is kept, so that a later call continues.
    Raises ArchiveError for damaged data, and when the disk has too little room.
    """
    folder.mkdir(parents=True, exist_ok=True)
    todo = []
    for entry in archive.entries:
        target = folder / place(entry.name)
        if target.is_file() and target.stat().st_size == entry.size:
            progress(entry.size)
            continue
        if target.is_file():
            logger.warning(
                f"{target}: has {target.stat().st_size:,} bytes instead of {entry.size:,}, "
                "taken from the archive again"
            )
        todo.append((entry, target))
    free, needed = shutil.disk_usage(folder).free, sum(entry.size for entry, _ in todo)
    if needed > free:
        raise ArchiveError(
            f"{folder}: {needed / 1e9:.1f} GB are needed to unpack {archive.path.name}, "
            f"{free / 1e9:.1f} GB are free; nothing of it was written"
        )
    for entry, target in todo:
        target.parent.mkdir(parents=True, exist_ok=True)
        # A fixed name, without fsync per file: a killed run leaves at most one, and it is reused.
        part = target.with_name(f".{target.name}.part")
        try:
            with part.open("wb") as file:
                for chunk in archive.stream(entry):
                    file.write(chunk)
                    progress(len(chunk))
            os.replace(part, target)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            raise ArchiveError(
                f"{target}: the disk is full; free some space and run the same command again"
            ) from error
        finally:
            part.unlink(missing_ok=True)
    return len(todo)

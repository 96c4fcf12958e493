"""Zip archives for tests, in pieces too."""

import io
import struct
import zipfile
from pathlib import Path


def make_zip(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Return a zip archive of `files`."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def split(data: bytes, folder: Path, name: str, size: int, zip64: bool = False) -> None:
    """Write the zip `data` as pieces of `size` bytes, with disk numbers, as `zip -s` does.

    Python's zipfile cannot, and the zip program may be absent.
    """
    end = data.rfind(b"PK\5\6")
    count, _, start = struct.unpack_from("<HLL", data, end + 10)
    stream = bytearray(b"PK\7\x08" + data[:start])

    def place(offset: int) -> tuple[int, int]:
        return divmod(offset + 4, size)

    at, records = start, []
    for _ in range(count):
        name_length, extra_length, comment_length = struct.unpack_from("<3H", data, at + 28)
        length = 46 + name_length + extra_length + comment_length
        record = bytearray(data[at : at + length])
        disk, offset = place(struct.unpack_from("<L", record, 42)[0])
        if zip64:  # the offset and the disk number move to the extra field
            struct.pack_into("<H", record, 30, extra_length + 16)
            struct.pack_into("<H", record, 34, 0xFFFF)
            struct.pack_into("<L", record, 42, 0xFFFFFFFF)
            record += struct.pack("<2HQL", 1, 12, offset, disk)
        else:
            struct.pack_into("<H", record, 34, disk)
            struct.pack_into("<L", record, 42, offset)
        records.append(bytes(record))
        at += length
    disk, offset = place(start)
    directory = b"".join(records)
    stream += directory
    last = (len(stream) + (98 if zip64 else 22) - 1) // size  # the piece that holds the end
    if zip64:
        disk64, offset64 = divmod(len(stream), size)
        stream += struct.pack(
            "<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, last, disk, 1, count, len(directory), offset
        )
        stream += struct.pack("<4sLQL", b"PK\6\7", disk64, offset64, last + 1)
        count, directory, disk, offset = 0xFFFF, b"", 0xFFFF, 0xFFFFFFFF
    length = 0xFFFFFFFF if zip64 else len(directory)
    stream += struct.pack("<4s4H2LH", b"PK\5\6", last, disk, count, count, length, offset, 0)
    pieces = [stream[i : i + size] for i in range(0, len(stream), size)]
    for number, piece in enumerate(pieces, 1):
        suffix = "zip" if number == len(pieces) else f"z{number:02d}"
        (folder / f"{name}.{suffix}").write_bytes(piece)

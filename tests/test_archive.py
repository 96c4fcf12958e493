"""Archives in pieces come out byte-equal; dangerous, damaged and incomplete ones are refused."""

import errno
import io
import random
import shutil
import stat
import struct
import subprocess
import zipfile
from pathlib import Path

import pytest
from zips import make_zip, split

from human_anomaly.data.download import archive
from human_anomaly.data.download.archive import archive_pieces, list_entries, unpack
from human_anomaly.utils import UsageError

FILES = {f"d/{i}.bin": random.Random(i).randbytes(200 * i) for i in range(12)}
FILES |= {"text.txt": b"abc " * 5000, "empty": b"", "d/\u00fcn\u00ef.txt": b"x"}


def contents(folder: Path) -> dict[str, bytes]:
    """Return what is below `folder`, by relative name."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("zip64", [False, True])
@pytest.mark.parametrize("size", [97, 1000, 8001])
def test_split_at_any_place_reads_the_same(tmp_path: Path, size: int, zip64: bool, method: int):
    split(make_zip(FILES, method), tmp_path, "x", size, zip64)
    pieces = unpack(tmp_path / "x.zip", tmp_path / "out", "")
    assert len(pieces) > 1 and pieces == archive_pieces(tmp_path / "x.zip")
    assert contents(tmp_path / "out") == FILES


class Unseekable(io.RawIOBase):
    """A pipe: zipfile then writes each entry's size behind its data."""

    def __init__(self):
        self.data = b""

    def writable(self) -> bool:
        return True

    def write(self, data) -> int:
        self.data += bytes(data)
        return len(data)


@pytest.mark.parametrize("wide", [False, True])  # zip64 fields at each entry
@pytest.mark.parametrize("piped", [False, True])
def test_every_kind_of_entry_header(tmp_path: Path, wide: bool, piped: bool):
    buffer = Unseekable() if piped else io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in FILES.items():
            with file.open(name, "w", force_zip64=wide) as entry:
                entry.write(content)
    data = buffer.data if piped else buffer.getvalue()
    (tmp_path / "x.zip").write_bytes(data)
    unpack(tmp_path / "x.zip", tmp_path / "out", "")
    assert contents(tmp_path / "out") == FILES


def test_more_entries_than_16_bits_count(tmp_path: Path):
    (tmp_path / "x.zip").write_bytes(make_zip({f"{i}": b"" for i in range(66_000)}))
    entries = list_entries(tmp_path / "x.zip", [tmp_path / "x.zip"])
    assert list(entries) == [str(i).encode() for i in range(66_000)]


@pytest.mark.skipif(shutil.which("zip") is None, reason="needs the zip program")
@pytest.mark.parametrize("flags", [(), ("-0",), ("-fz",)])  # packed, stored, zip64
def test_pieces_of_the_zip_program(tmp_path: Path, flags: tuple[str, ...]):
    files = {"opensource/a.bin": random.Random(0).randbytes(150_000), "opensource/b.txt": b"b" * 99}
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    command = ["zip", "-q", "-r", "-s", "64k", *flags, "x.zip", "opensource"]
    subprocess.run(command, cwd=tmp_path, check=True)
    assert len(unpack(tmp_path / "x.zip", tmp_path / "out", "")) == 3
    assert contents(tmp_path / "out") == files


def test_top_folder_is_left_out_where_all_files_are_in_it(tmp_path: Path):
    (tmp_path / "x.zip").write_bytes(make_zip({"top/": b"", "top/a": b"1", "top/b/c": b"2"}))
    unpack(tmp_path / "x.zip", tmp_path / "out", "top/")
    assert contents(tmp_path / "out") == {"a": b"1", "b/c": b"2"}
    (tmp_path / "x.zip").write_bytes(make_zip({"top/a": b"1", "topical": b"2"}))
    unpack(tmp_path / "x.zip", tmp_path / "other", "top/")
    assert contents(tmp_path / "other") == {"top/a": b"1", "topical": b"2"}


def link_zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        info = zipfile.ZipInfo("x")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        file.writestr(info, "/etc/passwd")
    return buffer.getvalue()


def changed_record(data: bytes, offset: int, value: int, kind: str = "<H") -> bytes:
    """Return `data` with one field of its last record in the list of files changed."""
    changed = bytearray(data)
    struct.pack_into(kind, changed, changed.rfind(b"PK\1\2") + offset, value)
    return bytes(changed)


def twice_zip() -> bytes:
    with pytest.warns(UserWarning, match="Duplicate name"):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as file:
            file.writestr("a", "1")
            file.writestr("a", "2")
    return buffer.getvalue()


TWO = make_zip({"a.bin": b"x" * 1000, "b.bin": b"x" * 1000}, zipfile.ZIP_STORED)

# The archive, and what the error says after the archive's path. Nothing is written for any.
REFUSED = [
    (make_zip({"../evil": b"x"}), "refused, entry '../evil' leaves the folder"),
    (make_zip({"opensource/../../evil": b"x"}), "leaves the folder"),
    (make_zip({"/etc/evil": b"x"}), "leaves the folder"),
    (make_zip({"opensource//etc/evil": b"x"}), "leaves the folder"),
    (make_zip({"a\\..\\evil": b"x"}), "leaves the folder"),
    (make_zip({"C:/evil": b"x"}), "leaves the folder"),
    (link_zip(), "entry 'x' is a link"),
    (twice_zip(), "entry 'a' comes twice"),
    (changed_record(TWO, 8, 1), "entry 'b.bin' is encrypted"),
    (changed_record(TWO, 24, 5_000_000_000 % 2**32, "<L"), "an archive bomb"),
    (make_zip({"zeros": bytes(80 << 20)}), "an archive bomb"),
    (make_zip({"a": b"x" * 9999})[:-60], "no zip archive, or truncated"),
    (b"", "no zip archive, or truncated (0 bytes)"),
    (b"<!doctype html>", "no zip archive, or truncated (15 bytes)"),
    (make_zip({"a": b"x"}, zipfile.ZIP_BZIP2), "packed by method 12"),
    (changed_record(TWO, 0, 0), "damaged list of files"),
    (TWO[:-10] + b"\xff\xff\xff\0" + TWO[-6:], "damaged list of files (it points outside"),
]


@pytest.mark.parametrize(("data", "words"), REFUSED, ids=[words for _, words in REFUSED])
def test_refused_before_anything_is_written(tmp_path: Path, data: bytes, words: str):
    (tmp_path / "x.zip").write_bytes(data)
    with pytest.raises(UsageError) as error:
        unpack(tmp_path / "x.zip", tmp_path / "out", "opensource/")
    assert str(error.value).startswith(f"{tmp_path / 'x.zip'}: ") and words in str(error.value)
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.rglob("*")] == ["x.zip"]


def renamed(data: bytes, old: bytes, new: bytes) -> bytes:
    """Return `data` with the name in front of an entry's data changed, but not the list's."""
    return data.replace(old, new, 1)


# The archive, what the error says, the files that were whole before.
DAMAGED = [
    (TWO.replace(b"x" * 1000, b"x" * 999 + b"y", 1), "'a.bin' (CRC32IntegrityError)", set()),
    (TWO[:1500] + TWO[1600:], "'b.bin' (", {"a.bin"}),
    (TWO[: TWO.index(b"b.bin") - 30] + TWO[TWO.index(b"PK\1\2") :], "'b.bin' is in its", {"a.bin"}),
    (renamed(TWO, b"b.bin", b"/evil"), "'/evil' comes twice, or is not in", {"a.bin"}),
    (renamed(TWO, b"b.bin", b"a.bin"), "'a.bin' comes twice", {"a.bin"}),
    (changed_record(TWO, 24, 1001, "<L"), "'b.bin' (EOFError)", {"a.bin"}),
]


@pytest.mark.parametrize(("data", "words", "whole"), DAMAGED)
def test_damage_is_named_and_only_whole_files_stay(tmp_path, data, words, whole):
    (tmp_path / "x.zip").write_bytes(data)
    with pytest.raises(UsageError) as error:
        unpack(tmp_path / "x.zip", tmp_path / "out", "")
    assert str(error.value).startswith(f"{tmp_path / 'x.zip'}: ") and words in str(error.value)
    assert set(contents(tmp_path / "out")) == whole


def test_more_data_than_declared_stops_at_once(tmp_path: Path, monkeypatch):
    data = changed_record(make_zip({"a": bytes(16 << 20)}), 24, 100_000, "<L")
    (tmp_path / "x.zip").write_bytes(data)
    read = []
    counted = archive._counted

    def watched(chunks, size, progress):
        return counted((read.append(len(c)) or c for c in chunks), size, progress)

    monkeypatch.setattr(archive, "_counted", watched)
    with pytest.raises(UsageError, match=r"'a' \(EOFError\)"):
        unpack(tmp_path / "x.zip", tmp_path / "out", "")
    assert sum(read) < 1 << 20  # of the 16 MiB that there are
    assert contents(tmp_path / "out") == {}


def test_stored_without_its_size_in_front_is_one_line(tmp_path: Path):
    buffer = Unseekable()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("a", b"x" * 100)
    (tmp_path / "x.zip").write_bytes(buffer.data)
    with pytest.raises(UsageError, match="NotStreamUnzippable"):
        unpack(tmp_path / "x.zip", tmp_path / "out", "")


def test_missing_and_short_pieces_are_named(tmp_path: Path):
    split(make_zip(FILES), tmp_path, "x", 4000)
    path, last = tmp_path / "x.zip", len(archive_pieces(tmp_path / "x.zip")) - 1
    assert last == 3

    def error() -> str:
        with pytest.raises(UsageError) as raised:
            unpack(path, tmp_path / "out", "")
        assert not (tmp_path / "out").exists()
        return str(raised.value)

    for name in ("x.z01", "x.z02", "x.zip"):
        (tmp_path / name).rename(tmp_path / "away")
        assert error() == f"{tmp_path / name}: missing; fetch this piece of the archive"
        (tmp_path / "away").rename(tmp_path / name)
    (tmp_path / "x.z03").rename(tmp_path / "away")
    assert "x.zip: expects 4 pieces, found 3; fetch all into one folder" in error()
    (tmp_path / "x.z03").write_bytes((tmp_path / "away").read_bytes()[:-1])
    assert "x.z03: 3,999 bytes, expected 4,000 like x.z01; fetch again" in error()


def test_run_again_keeps_whole_files_and_mends_others(tmp_path: Path, caplog):
    (tmp_path / "x.zip").write_bytes(make_zip(FILES))
    out = tmp_path / "out"
    unpack(tmp_path / "x.zip", out, "")
    kept = (out / "d/3.bin").stat().st_mtime_ns
    (out / "d/4.bin").unlink()
    (out / "d/5.bin").write_bytes(b"short")
    unpack(tmp_path / "x.zip", out, "")
    assert contents(out) == FILES
    assert (out / "d/3.bin").stat().st_mtime_ns == kept
    assert "5.bin: has 5 bytes instead of 1,000, unpacked again" in caplog.text


def test_complete_folder_is_not_read_again(tmp_path: Path, monkeypatch):
    (tmp_path / "x.zip").write_bytes(make_zip(FILES))
    unpack(tmp_path / "x.zip", tmp_path / "out", "")
    monkeypatch.setattr(archive, "_stream", lambda pieces: pytest.fail("read"))
    unpack(tmp_path / "x.zip", tmp_path / "out", "")


def test_too_small_a_disk_is_told_before_writing(tmp_path: Path, monkeypatch):
    (tmp_path / "x.zip").write_bytes(make_zip(FILES))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 9, 0))
    with pytest.raises(UsageError, match=r"needed to unpack x\.zip, 0\.0 GB are free; nothing"):
        unpack(tmp_path / "x.zip", tmp_path / "out", "")
    assert contents(tmp_path / "out") == {}


def test_disk_that_fills_up_is_told(tmp_path: Path, monkeypatch):
    (tmp_path / "x.zip").write_bytes(make_zip({"a": b"1", "b": b"2"}))
    replace = archive.os.replace

    def full(source, target):
        if Path(target).name == "b":
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(archive.os, "replace", full)
    with pytest.raises(UsageError, match=r"b: the disk is full; free some space and run the same"):
        unpack(tmp_path / "x.zip", tmp_path / "out", "")
    assert contents(tmp_path / "out") == {"a": b"1"}

"""The public data set's unpacking, on small archives of the same shape."""

import io
import json
import random
import shutil
import stat
import struct
import subprocess
import zipfile
from pathlib import Path

import pytest

from data import vbench2
from data.zip_parts import CHUNK, ArchiveError, ZipParts, archive_parts, unpack
from utils import UsageError, run_main

EXPECTED = {"human_train": 6, "human_test": 2, "face_train": 3, "face_test": 1} | {
    "hand_train": 4,
    "hand_test": 1,
}


def make_zip(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def split(data: bytes, folder: Path, name: str, size: int, zip64: bool = False) -> None:
    """Write the zip `data` as pieces of `size` bytes, with disk numbers, as `zip -s` does."""
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
    last = len(stream) // size
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


def data_set_files(missing: int = 0) -> dict[str, bytes]:
    """Return the content of a small opensource.zip, its images inside dataset/all_images.zip."""
    rng = random.Random(0)
    images, files = {}, {}
    for name, count in EXPECTED.items():
        rows = [[f"{name}_{i}.jpg", i % 2, 0.9] for i in range(count)]
        files[f"opensource/dataset/{name}.jsonl"] = "".join(
            json.dumps(row) + "\n" for row in rows
        ).encode()
        images |= {f"all_images/{row[0]}": rng.randbytes(3000) for row in rows}
    for name in list(images)[:missing]:
        del images[name]
    files["opensource/dataset/all_images.zip"] = make_zip(images, zipfile.ZIP_STORED)
    files["opensource/src_video/vad_real/a.mp4"] = rng.randbytes(5000)
    return files


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.*")}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    split(make_zip(data_set_files()), tmp_path, "opensource", 16_000)
    return tmp_path


def run(folder: Path, *flags: str) -> int:
    return vbench2.main([str(folder), *flags], expected=EXPECTED)


def status_and_error(folder: Path, capsys) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ended:
        run_main(lambda: run(folder), (ArchiveError,))
    return ended.value.code, capsys.readouterr().err


def test_both_stages_are_unpacked_and_verified(folder: Path, capsys):
    assert len(archive_parts(folder / "opensource.zip")) == 4
    assert run(folder) == 0
    assert len(list((folder / "dataset/all_images").iterdir())) == 17
    files = data_set_files()
    assert (folder / "src_video/vad_real/a.mp4").read_bytes() == files[
        "opensource/src_video/vad_real/a.mp4"
    ]
    assert json.loads((folder / "dataset/dataset.json").read_text()) == {"abnormal_label": 0}
    out = capsys.readouterr().err
    assert "human_train: 6 images, 3 abnormal, 3 normal" in out
    assert not list(folder.rglob("*.part"))
    assert (folder / "opensource.z01").exists()


def test_run_again_continues_and_then_removes_archives(folder: Path, caplog):
    run(folder)
    before = contents(folder)
    (folder / "dataset/all_images/human_train_2.jpg").unlink()
    kept = folder / "dataset/all_images/human_train_3.jpg"
    stamp = kept.stat().st_mtime_ns
    assert run(folder, "--remove-archives") == 0
    assert kept.stat().st_mtime_ns == stamp
    after = contents(folder)
    assert set(before) - set(after) == {
        "opensource.z01",
        "opensource.z02",
        "opensource.z03",
        "opensource.zip",
        "dataset/all_images.zip",
    }
    assert all(before[name] == content for name, content in after.items())
    assert run(folder) == 0  # nothing to unpack any more


def test_missing_images_and_wrong_counts_are_named(tmp_path: Path, capsys):
    split(make_zip(data_set_files(missing=2)), tmp_path, "opensource", 16_000)
    assert run(tmp_path, "--remove-archives") == 1
    assert (tmp_path / "missing_images.txt").read_text() == "human_train_0.jpg\nhuman_train_1.jpg\n"
    assert (tmp_path / "opensource.z01").exists()  # incomplete: the archives stay
    error = capsys.readouterr().err
    assert "2 images are missing" in error
    capsys.readouterr()
    assert vbench2.main([str(tmp_path)]) == 1  # the real data set's counts
    assert "hand_test: 1 images, 1 abnormal, 0 normal; expected 142" in capsys.readouterr().err


@pytest.mark.parametrize("zip64", [False, True])
@pytest.mark.parametrize("size", [97, 1000, 20_001])
def test_split_at_any_place_reads_the_same(tmp_path: Path, size: int, zip64: bool):
    files = {f"d/{i}.bin": random.Random(i).randbytes(200 * i) for i in range(12)}
    files |= {"text.txt": b"abc " * 5000, "empty": b"", "d/ünï.txt": b"x"}
    split(make_zip(files), tmp_path, "x", size, zip64)
    with ZipParts(tmp_path / "x.zip") as archive:
        found = {e.name: b"".join(archive.stream(e)) for e in archive.entries}
    assert found == files


@pytest.mark.skipif(shutil.which("zip") is None, reason="needs the zip program")
def test_real_split_archive(tmp_path: Path):
    files = {"opensource/a.bin": random.Random(0).randbytes(150_000), "opensource/b.txt": b"b" * 99}
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    command = ["zip", "-q", "-r", "-s", "64k", "x.zip", "opensource"]
    subprocess.run(command, cwd=tmp_path, check=True)
    assert len(archive_parts(tmp_path / "x.zip")) == 3
    with ZipParts(tmp_path / "x.zip") as archive:
        assert {e.name: b"".join(archive.stream(e)) for e in archive.entries} == files


def link_zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        info = zipfile.ZipInfo("x")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    return buffer.getvalue()


def twice_zip() -> bytes:
    """Two records of the central directory that share one file's data."""
    data = bytearray(make_zip({"a.bin": b"x" * 1000, "b.bin": b"x" * 1000}, zipfile.ZIP_STORED))
    record = data.rfind(b"PK\1\2")
    struct.pack_into("<L", data, record + 42, 0)
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (make_zip({"../evil": b"x"}), "'../evil' leaves the folder"),
        (make_zip({"opensource/../../evil": b"x"}), "leaves the folder"),
        (make_zip({"/etc/evil": b"x"}), "leaves the folder"),
        (make_zip({"opensource//etc/evil": b"x"}), "leaves the folder"),
        (make_zip({"a\\..\\evil": b"x"}), "leaves the folder"),
        (make_zip({"C:/evil": b"x"}), "leaves the folder"),
        (link_zip(), "is a link"),
        (twice_zip(), "overlap"),
        (make_zip({"zeros": bytes(80 << 20)}), "archive bomb"),
        (make_zip({"a": b"x" * 9999})[:-60], "truncated"),
        (b"", "truncated"),
        (make_zip({"a": b"x"}, zipfile.ZIP_BZIP2), "packed by method 12"),
    ],
)
def test_dangerous_archives_are_refused(tmp_path: Path, data: bytes, words: str, capsys):
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "opensource.zip").write_bytes(data)
    status, error = status_and_error(folder, capsys)
    assert status == 2
    assert words in error
    assert [p.name for p in tmp_path.rglob("*")] == ["set", "opensource.zip"]


def test_more_data_than_declared_stops_at_once(tmp_path: Path):
    data = bytearray(make_zip({"a": bytes(4 * CHUNK)}))
    struct.pack_into("<L", data, data.rfind(b"PK\1\2") + 24, 100)  # the size that it claims
    (tmp_path / "x.zip").write_bytes(data)
    written: list[int] = []
    with ZipParts(tmp_path / "x.zip") as archive:
        with pytest.raises(ArchiveError, match="'a' is damaged"):
            unpack(archive, tmp_path / "out", str, progress=written.append)
        assert written == []  # of the four chunks that there are
        assert list((tmp_path / "out").iterdir()) == []


def test_changed_byte_is_found(folder: Path, capsys):
    piece = folder / "opensource.z02"
    data = bytearray(piece.read_bytes())
    data[5000] ^= 1
    piece.write_bytes(data)
    status, error = status_and_error(folder, capsys)
    assert status == 2
    assert "'opensource/dataset/all_images.zip' is damaged; fetch the archive again" in error
    assert not list(folder.rglob("all_images.zip"))


def test_missing_and_truncated_pieces_are_named(folder: Path, capsys):
    (folder / "opensource.z02").rename(folder / "away")
    assert "opensource.z02: missing" in status_and_error(folder, capsys)[1]
    (folder / "away").rename(folder / "opensource.z02")
    (folder / "opensource.z03").rename(folder / "away")
    assert "expects 4 pieces, found 3" in status_and_error(folder, capsys)[1]
    (folder / "opensource.z03").write_bytes((folder / "away").read_bytes()[:-1])
    error = status_and_error(folder, capsys)[1]
    assert "opensource.z03: 15,999 bytes, expected 16,000 like opensource.z01" in error


def test_git_lfs_pointers_say_what_to_run(folder: Path, capsys):
    (folder / "opensource.z01").write_text("version https://git-lfs.github.com/spec/v1\nsize 9\n")
    status, error = status_and_error(folder, capsys)
    assert status == 2
    assert "opensource.z01: only a Git LFS pointer; run: git lfs install; git lfs pull" in error


def test_empty_folder_says_how_to_fetch(tmp_path: Path, capsys):
    status, error = status_and_error(tmp_path, capsys)
    assert status == 2
    assert "git clone https://huggingface.co/datasets/Vchitect/VBench-2.0_human_anomaly" in error


def test_full_disk_is_told_before_writing(folder: Path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 9, 0))
    with pytest.raises(ArchiveError, match=r"needed to unpack opensource\.zip, 0\.0 GB are free"):
        run(folder)
    assert not (folder / "dataset").exists()


def test_bad_row_is_named_by_line(folder: Path):
    run(folder)
    for pattern in ("opensource.*", "dataset/all_images.zip"):
        for path in folder.glob(pattern):
            path.unlink()
    path = folder / "dataset/face_test.jsonl"
    path.write_text('["face_test_0.jpg", 2, 0.5]\n')
    with pytest.raises(UsageError, match=r'face_test.jsonl:1: expected \["name.jpg", 0 or 1'):
        run(folder)

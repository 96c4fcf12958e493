"""The public data set's fetching, unpacking and checks, on a small one of the same shape."""

import json
import random
import time
import zipfile
from pathlib import Path

import pytest
from local_server import REVISION, local_server
from zips import make_zip, split

from human_anomaly.tools import vbench2_data as vbench2
from human_anomaly.utils import UsageError, run_main

EXPECTED = {"human_train": 6, "human_test": 2, "face_train": 3, "face_test": 1} | {
    "hand_train": 4,
    "hand_test": 1,
}


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


def status_and_error(folder: Path, capsys, *flags: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ended:
        run_main(lambda: run(folder, *flags))
    return ended.value.code, capsys.readouterr().err


def test_both_stages_are_unpacked_and_verified(folder: Path, capsys):
    assert len(list(folder.glob("opensource.z*"))) == 4
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


def test_damaged_and_incomplete_archives_are_one_line(folder: Path, capsys):
    piece = folder / "opensource.z02"
    data = bytearray(piece.read_bytes())
    data[5000] ^= 1
    piece.write_bytes(data)
    status, error = status_and_error(folder, capsys)
    assert status == 2 and error.count("error: ") == 1
    assert "damaged or truncated at entry 'opensource/dataset/all_images.zip'" in error
    assert not list(folder.rglob("all_images.zip"))
    piece.unlink()
    status, error = status_and_error(folder, capsys)
    assert status == 2 and "opensource.z02: missing; fetch this piece" in error


def test_last_piece_alone_may_be_missing(folder: Path, capsys):
    (folder / "opensource.zip").unlink()
    status, error = status_and_error(folder, capsys)
    assert status == 2 and "opensource.zip: missing; fetch this piece" in error


def test_git_lfs_pointers_say_what_to_run(folder: Path, capsys):
    (folder / "opensource.z01").write_text("version https://git-lfs.github.com/spec/v1\nsize 9\n")
    status, error = status_and_error(folder, capsys)
    assert status == 2
    assert "opensource.z01: only a Git LFS pointer; run: git lfs install; git lfs pull" in error


def test_empty_folder_says_how_to_fetch(tmp_path: Path, capsys):
    status, error = status_and_error(tmp_path, capsys)
    assert status == 2
    assert "fetch it with --download, or by hand (git lfs install; git clone https://" in error


def test_download_fetches_unpacks_and_records_the_revision(folder: Path, tmp_path, monkeypatch):
    files = {path.name: path.read_bytes() for path in folder.glob("opensource.z*")}
    new = tmp_path / "new"
    with local_server(files) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        assert run(new, "--download") == 0
        assert len(server.offsets) == 4
        (new / "opensource.z02").unlink()
        assert run(new, "--download") == 0
        assert len(server.offsets) == 5  # what is there is not fetched again
    assert (new / "revision.txt").read_text() == f"Vchitect/VBench-2.0_human_anomaly {REVISION}\n"
    assert len(list((new / "dataset/all_images").iterdir())) == 17
    assert (new / "opensource.z02").read_bytes() == files["opensource.z02"]


@pytest.mark.parametrize("mood", ["down", "nobody"])
def test_download_that_fails_says_what_to_do(tmp_path: Path, monkeypatch, capsys, mood):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # between the hub's attempts
    with local_server({}) as server:
        server.mood = mood
        url = server.url if mood == "down" else "http://127.0.0.1:9"
        monkeypatch.setenv("HF_ENDPOINT", url)
        status, error = status_and_error(tmp_path / "new", capsys, "--download")
    assert status == 2
    assert f"--download: {url}/datasets/Vchitect/VBench-2.0_human_anomaly: " in error
    assert "run the same command again to continue, or fetch it with --download, or by" not in error
    assert "run the same command again to continue, or by hand (git lfs install; git" in error


def test_bad_row_is_named_by_line(folder: Path):
    run(folder)
    for pattern in ("opensource.*", "dataset/all_images.zip"):
        for path in folder.glob(pattern):
            path.unlink()
    path = folder / "dataset/face_test.jsonl"
    path.write_text('["face_test_0.jpg", 2, 0.5]\n')
    with pytest.raises(UsageError, match=r"face_test.jsonl:1: label: expected 0, 1"):
        run(folder)

"""What is found below the inputs: nothing is dropped in silence."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from human_anomaly.data.sources import find_sources


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


def animate(path: Path, frames: int = 3, side: int = 40, **options) -> Path:
    """Write pictures of brightness 10, 30, 50 .. into one file."""
    pages = [
        Image.fromarray(np.full((side, side, 3), 10 + 20 * i, np.uint8)) for i in range(frames)
    ]
    pages[0].save(path, save_all=True, append_images=pages[1:], **options)
    return path


def stems(root: Path) -> list[str]:
    return [source.stem for source in find_sources([root]).sources]


def test_folders_globs_and_unique_stems(tmp_path):
    touch(tmp_path, "in/a.mp4", "in/a.avi", "in/sub/b.mp4", "in/notes.txt", "in/.hidden.mp4")
    found = find_sources([tmp_path / "in"])
    assert [s.stem for s in found.sources] == ["a_avi", "a_mp4", "sub__b"]
    assert not found.failed
    assert sorted(found.skipped) == [
        (str(tmp_path / "in/.hidden.mp4"), "hidden"),
        (str(tmp_path / "in/notes.txt"), "neither video nor picture by its name"),
    ]
    assert found.said() == "1 hidden, 1 neither video nor picture by its name"
    found = find_sources([tmp_path / "in" / "*.mp4", tmp_path / "no*", tmp_path / "x"])
    assert [s.stem for s in found.sources] == ["a"]
    assert [error for _, error in found.failed] == ["no such file or folder"] * 2


def test_remaining_clashes_get_a_suffix(tmp_path):
    touch(tmp_path, "x/a.mp4", "y/a.mp4", "z/A.mp4")
    found = find_sources([tmp_path / n for n in ("x/a.mp4", "y/a.mp4", "z/A.mp4")])
    assert len({s.stem.lower() for s in found.sources}) == 3


def test_long_names_leave_room_for_suffixes(tmp_path):
    touch(tmp_path, "n" * 240 + ".mp4")
    (source,) = find_sources([tmp_path]).sources
    (tmp_path / f".{source.stem}.frames.jsonl.1234567.part").touch()
    assert len(source.stem) <= 200


def test_a_folder_without_videos(tmp_path):
    touch(tmp_path, "a.txt")
    found = find_sources([tmp_path])
    assert found.sources == []
    assert found.failed == [(str(tmp_path), "the folder holds no video and no images")]


def test_a_folder_that_cannot_be_read_is_failed(tmp_path, monkeypatch):
    touch(tmp_path, "a.mp4", "closed/b.mp4")
    scan = os.scandir

    def refuse(path):
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found = find_sources([tmp_path])
    assert [source.stem for source in found.sources] == ["a"]
    assert found.failed == [(str(tmp_path / "closed"), "cannot read: Permission denied")]


def test_pictures_and_videos_come_in_natural_order(tmp_path):
    touch(tmp_path, *(f"p/frame{i}.png" for i in (1, 10, 11, 12, 2)))
    touch(tmp_path, *(f"clip{i}/a.mp4" for i in (1, 10, 2)))
    found = find_sources([tmp_path])
    assert [s.stem for s in found.sources] == ["clip1__a", "clip2__a", "clip10__a", "p"]
    names = [path.name for path in found.sources[-1].images]
    assert names == [f"frame{i}.png" for i in (1, 2, 10, 11, 12)]


def test_each_folder_of_pictures_is_a_video_beside_videos(tmp_path):
    touch(tmp_path, "a/0.png", "a/1.png", "b/0.jpg", "top.png", "preview.gif")
    found = find_sources([tmp_path])
    counts = {source.stem: len(source.images) for source in found.sources}
    assert counts == {"a": 2, "b": 1, "preview": 0, tmp_path.name: 1}
    assert not found.failed and not found.skipped


@pytest.mark.parametrize("name", ["a.webp", "a.png", "a.apng", "a.tiff"])
def test_a_file_of_several_pictures_is_a_video(tmp_path, name):
    kind = {"format": "PNG"} if name.endswith("png") else {}
    for number in range(3):
        animate(tmp_path / f"{number}{name}", **kind)
    animate(tmp_path / f"single{name}", 1, **kind)
    counts = {source.stem: len(source.images) for source in find_sources([tmp_path]).sources}
    assert counts == {"0a": 1, "1a": 1, "2a": 1, tmp_path.name: 1}


def test_links_are_followed_and_loops_noticed(tmp_path):
    root = tmp_path / "in"
    touch(tmp_path, "else/b.mp4", "in/a.mp4", "in/sub/c.mp4")
    for name, target in {
        "away": tmp_path / "else",
        "sub/up": root,
        "gone": tmp_path / "nothing",
        "me": root / "me",
        "again": root / "sub",
    }.items():
        (root / name).symlink_to(target)
    found = find_sources([root])
    assert [s.stem for s in found.sources] == ["a", "away__b", "sub__c"]
    assert sorted(found.failed) == [
        (str(root / "gone"), "the link leads nowhere"),
        (str(root / "me"), "the link leads nowhere"),
    ]
    assert sorted(found.skipped) == [
        (str(root / "again"), f"link to a folder already read: {root / 'sub'}"),
        (str(root / "sub/up"), f"link to a folder already read: {root}"),
    ]
    assert found.said() == "2 link to a folder already read"


def test_every_path_below_the_input_is_accounted_for(tmp_path):
    """The promise itself, on a folder of all kinds."""
    touch(tmp_path, "a.mp4", "b/1.png", "b/2.png", "b/t.txt", "c/d/e.mkv", ".git/config", ".x")
    touch(tmp_path, "none", "c/poster.jpg")
    (tmp_path / "empty").mkdir()
    animate(tmp_path / "b/moving.webp")
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "dangling.mp4").symlink_to(tmp_path / "no")
    odd = os.fsencode(tmp_path) + b"/\xff.mp4"
    Path(os.fsdecode(odd)).write_bytes(b"x")
    found = find_sources([tmp_path])
    told = {str(p) for s in found.sources for p in (s.images or (s.path,))}
    told |= {path for path, _ in found.failed + found.skipped}
    missing = []
    for top, folders, files in os.walk(tmp_path):
        for name in files + [f for f in folders if not os.listdir(os.path.join(top, f))]:
            path = os.fsencode(os.path.join(top, name)).decode("utf-8", "backslashreplace")
            above = {str(parent) for parent in Path(path).parents}
            missing += [path] if path not in told and not above & told else []
    assert missing == []
    reasons = dict(found.failed + found.skipped)
    assert reasons[str(tmp_path / "pipe.mp4")] == "not a file"
    assert reasons[str(tmp_path / ".git")] == "hidden"
    assert reasons[str(tmp_path / "empty")] == "empty folder"
    assert reasons[str(tmp_path / "dangling.mp4")] == "the link leads nowhere"
    assert "not UTF-8" in reasons[f"{tmp_path}/\\xff.mp4"]

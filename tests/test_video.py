"""Inputs as users have them: odd, broken, rotated, nested, badly named."""

import os
import struct
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from human_anomaly.data.video import FrameReader, Source, VideoError, find_sources


def write_video(path: Path, frames: int = 6, size=(64, 48), fourcc="mp4v", fps=10.0) -> Path:
    """Write `frames` grey frames of brightness 0, 30, 60 ..., size (width, height)."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*fourcc), fps, size)
    assert writer.isOpened()
    for i in range(frames):
        writer.write(np.full((size[1], size[0], 3), 30 * i % 256, np.uint8))
    writer.release()
    return path


def _source(path: Path) -> Source:
    return Source(path, path.stem)


def test_frames_come_in_order_with_times(tmp_path):
    reader = FrameReader(_source(write_video(tmp_path / "a.mp4")))
    frames = list(reader)
    assert reader.frames_expected == 6
    assert [f.index for f in frames] == list(range(6))
    assert frames[3].time == pytest.approx(0.3)
    assert abs(int(frames[3].image.mean()) - 90) < 5
    assert frames[0].image.shape == (48, 64, 3)
    assert not reader.warnings


def test_stride_keeps_source_indices(tmp_path):
    reader = FrameReader(_source(write_video(tmp_path / "a.mp4")), stride=4)
    assert [f.index for f in reader] == [0, 4]
    assert reader.frames_expected == 2


@pytest.mark.parametrize("name", ["a.avi", "a.mkv", "a.webm"])
def test_containers(tmp_path, name):
    fourcc = {"a.avi": "MJPG", "a.mkv": "mp4v", "a.webm": "VP80"}[name]
    assert len(list(FrameReader(_source(write_video(tmp_path / name, fourcc=fourcc))))) == 6


QUADRANTS = np.kron(np.array([[30, 90], [150, 210]], np.uint8), np.ones((24, 32), np.uint8))
# A track's matrix [a b; c d] in its header turns the stored picture.
TURNS = [
    ((0, 1, -1, 0), cv2.ROTATE_90_CLOCKWISE),  # a phone held upright
    ((-1, 0, 0, -1), cv2.ROTATE_180),
    ((0, -1, 1, 0), cv2.ROTATE_90_COUNTERCLOCKWISE),
]


@pytest.mark.parametrize(("matrix", "turn"), TURNS)
def test_rotated_videos_come_upright(tmp_path, matrix, turn):
    path = tmp_path / "a.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 10, (64, 48))
    for _ in range(2):
        writer.write(cv2.merge([QUADRANTS] * 3))
    writer.release()
    stored = next(iter(FrameReader(_source(path)))).image
    content = bytearray(path.read_bytes())
    start = content.index(b"tkhd") + 44  # rows of two 16.16 numbers and one that is left as it is
    a, b, c, d = matrix
    struct.pack_into(">2i", content, start, a << 16, b << 16)
    struct.pack_into(">2i", content, start + 12, c << 16, d << 16)
    path.write_bytes(content)
    frames = list(FrameReader(_source(path)))
    assert len(frames) == 2
    assert np.array_equal(frames[0].image, cv2.rotate(stored, turn))
    assert frames[0].image.shape == ((48, 64, 3) if turn == cv2.ROTATE_180 else (64, 48, 3))


# What a frame is given as, what the file stores.
KINDS = [
    ("gray", "gray", (41, 51)),
    ("bgra", "bgra", (41, 51, 4)),  # transparent
    ("bgr24", "bgr0", (41, 51, 3)),
]


@pytest.mark.parametrize(("given", "stored", "shape"), KINDS)
def test_videos_of_any_kind_and_odd_size_are_bgr(tmp_path, given, stored, shape):
    import av

    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=10)  # lossless
        stream.width, stream.height, stream.pix_fmt = 51, 41, stored
        frame = av.VideoFrame.from_ndarray(np.full(shape, 90, np.uint8), format=given)
        container.mux([*stream.encode(frame), *stream.encode(None)])
    (frame,) = FrameReader(_source(tmp_path / "a.mkv"))
    assert np.array_equal(frame.image, np.full((41, 51, 3), 90, np.uint8))


def test_truncated_video_scores_what_decodes(tmp_path):
    path = write_video(tmp_path / "a.avi", frames=40, size=(320, 240), fourcc="MJPG")
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.6)])
    reader = FrameReader(_source(path))
    frames = list(reader)
    assert 0 < len(frames) < 40 and reader.frames_expected == 40
    assert reader.warnings == [
        f"{len(frames)} of 40 frames could be decoded; the file may be truncated"
    ]


def _wav(path: Path) -> None:
    import wave

    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(b"\0\0" * 800)


UNUSABLE = [
    ("missing.mp4", None, "no such file"),
    ("empty.mp4", lambda p: p.write_bytes(b""), "empty"),
    ("text.mp4", lambda p: p.write_text("hello"), "not a video"),
    ("audio.mp4", _wav, "not a video"),
    (
        "head.mp4",
        lambda p: p.write_bytes(write_video(p).read_bytes()[:200]),
        "not a video|no frame",
    ),
]


@pytest.mark.parametrize(("name", "make", "message"), UNUSABLE)
def test_unusable_files_say_why(tmp_path, name, make, message):
    if make is not None:
        make(tmp_path / name)
    with pytest.raises(VideoError, match=message):
        list(FrameReader(_source(tmp_path / name)))


def test_images_of_any_kind_are_bgr(tmp_path):
    cv2.imwrite(str(tmp_path / "0.png"), np.zeros((40, 50), np.uint8))  # greyscale
    cv2.imwrite(str(tmp_path / "1.png"), np.full((41, 51, 4), 200, np.uint8))  # alpha, odd size
    (tmp_path / "2.png").write_bytes(b"broken")
    cv2.imwrite(str(tmp_path / "3.png"), np.zeros((9, 9, 3), np.uint8))  # tiny
    (source,), failed = find_sources([tmp_path])
    reader = FrameReader(source, fps=5)
    frames = list(reader)
    assert not failed
    assert [f.image.shape for f in frames] == [(40, 50, 3), (41, 51, 3), (9, 9, 3)]
    assert [f.index for f in frames] == [0, 1, 3]
    assert "2.png" in reader.warnings[0]
    assert "smaller than 32" in reader.warnings[1]


def test_folders_globs_and_unique_stems(tmp_path):
    (tmp_path / "in/sub").mkdir(parents=True)
    for name in ("in/a.mp4", "in/a.avi", "in/sub/b.mp4", "in/notes.txt", "in/.hidden.mp4"):
        (tmp_path / name).write_bytes(b"x")
    sources, failed = find_sources([tmp_path / "in"])
    assert [s.stem for s in sources] == ["a_avi", "a_mp4", "sub__b"]
    assert not failed
    sources, failed = find_sources([tmp_path / "in" / "*.mp4", tmp_path / "no*", tmp_path / "x"])
    assert [s.stem for s in sources] == ["a"]
    assert [error for _, error in failed] == ["no such file or folder"] * 2


def test_remaining_clashes_get_a_suffix(tmp_path):
    for name in ("x/a.mp4", "y/a.mp4", "z/A.mp4"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"x")
    sources, _ = find_sources([tmp_path / n for n in ("x/a.mp4", "y/a.mp4", "z/A.mp4")])
    assert len({s.stem.lower() for s in sources}) == 3


def test_long_names_leave_room_for_suffixes(tmp_path):
    path = tmp_path / ("n" * 240 + ".mp4")
    path.write_bytes(b"x")
    (source,), _ = find_sources([path])
    (tmp_path / f".{source.stem}.frames.jsonl.1234567.part").touch()
    assert len(source.stem) <= 200


def test_a_folder_without_videos(tmp_path):
    (tmp_path / "a.txt").touch()
    assert find_sources([tmp_path]) == (
        [],
        [(str(tmp_path), "the folder holds no video and no images")],
    )


def test_what_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.mp4")
    os.mkfifo(tmp_path / "b.png")
    with pytest.raises(VideoError, match="not a file"):
        FrameReader(Source(tmp_path / "a.mp4", "a"))
    reader = FrameReader(Source(tmp_path / "b.png", "b", (tmp_path / "b.png",)))
    with pytest.raises(VideoError, match="no frame could be decoded"):
        list(reader)
    assert reader.warnings == ["b.png: not a file; skipped"]


def test_images_and_videos_above_the_stated_size_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("human_anomaly.data.video.MAX_PIXELS", 64 * 47)
    write_video(tmp_path / "a.mp4", 3)
    with pytest.raises(VideoError, match="64 x 48 pixels, expected at most 3,008"):
        FrameReader(Source(tmp_path / "a.mp4", "a"))
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((48, 64, 3), np.uint8))
    reader = FrameReader(Source(tmp_path / "a.png", "a", (tmp_path / "a.png",)))
    with pytest.raises(VideoError):
        list(reader)
    assert "64 x 48 pixels" in reader.warnings[0]


def test_a_file_without_permission_says_so(tmp_path, monkeypatch):
    write_video(tmp_path / "a.mp4", 3)

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.open", refuse)
    with pytest.raises(VideoError, match="cannot read: Permission denied"):
        FrameReader(Source(tmp_path / "a.mp4", "a"))


def test_a_folder_that_cannot_be_read_is_failed(tmp_path, monkeypatch):
    write_video(tmp_path / "a.mp4", 3)
    (tmp_path / "closed").mkdir()
    scan = os.scandir

    def refuse(path):
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    sources, failed = find_sources([tmp_path])
    assert [source.stem for source in sources] == ["a"]
    assert failed == [(str(tmp_path / "closed"), "cannot read: Permission denied")]


def test_a_count_that_the_size_cannot_hold_is_not_believed(tmp_path, monkeypatch):
    write_video(tmp_path / "a.mp4", 3)
    monkeypatch.setattr("human_anomaly.data.video.LEAST_FRAME", 10**6)
    reader = FrameReader(Source(tmp_path / "a.mp4", "a"))
    assert reader.frames_expected is None
    assert reader.warnings == ["it declares 3 frames, which its size cannot hold"]


def test_lost_frames_are_told_where_no_length_is_declared(tmp_path, monkeypatch):
    write_video(tmp_path / "a.mp4", 5)
    reader = FrameReader(Source(tmp_path / "a.mp4", "a"))
    reader.frames_expected = None
    capture, decoded = reader._capture, iter([True, False])
    read, release = capture.read, capture.release
    fake = SimpleNamespace(grab=lambda: next(decoded), retrieve=read, release=release)
    monkeypatch.setattr(reader, "_capture", fake)
    assert len(list(reader)) == 1
    assert reader.warnings == ["1 frames of about 5 could be decoded"]

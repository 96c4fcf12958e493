"""Videos as users have them: odd, broken, rotated, tagged."""

import struct
import subprocess
import sys
from pathlib import Path

import av
import cv2
import frame_hashes
import numpy as np
import pytest
from conftest import ROOT
from videos import encode, grey_steps, raw, source_of, write_video

from human_anomaly.data.video import FrameReader, count_frames


def test_frames_come_in_order_with_times(tmp_path):
    reader = FrameReader(source_of(write_video(tmp_path / "a.mp4")))
    frames = list(reader)
    assert reader.frames_expected == 6
    assert [f.index for f in frames] == list(range(6))
    assert frames[3].time == pytest.approx(0.3)
    assert abs(int(frames[3].image.mean()) - 90) < 5
    assert frames[0].image.shape == (48, 64, 3)
    assert not reader.warnings


def test_stride_keeps_source_indices(tmp_path):
    reader = FrameReader(source_of(write_video(tmp_path / "a.mp4")), stride=4)
    assert [f.index for f in reader] == [0, 4]
    assert reader.frames_expected == 2


@pytest.mark.parametrize("name", ["a.avi", "a.mkv", "a.webm"])
def test_containers(tmp_path, name):
    fourcc = {"a.avi": "MJPG", "a.mkv": "mp4v", "a.webm": "VP80"}[name]
    assert len(list(FrameReader(source_of(write_video(tmp_path / name, fourcc=fourcc))))) == 6


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
    stored = next(iter(FrameReader(source_of(path)))).image
    content = bytearray(path.read_bytes())
    start = content.index(b"tkhd") + 44  # rows of two 16.16 numbers and one that is left as it is
    a, b, c, d = matrix
    struct.pack_into(">2i", content, start, a << 16, b << 16)
    struct.pack_into(">2i", content, start + 12, c << 16, d << 16)
    path.write_bytes(content)
    frames = list(FrameReader(source_of(path)))
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
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=10)  # lossless
        stream.width, stream.height, stream.pix_fmt = 51, 41, stored
        frame = av.VideoFrame.from_ndarray(np.full(shape, 90, np.uint8), format=given)
        container.mux([*stream.encode(frame), *stream.encode(None)])
    (frame,) = FrameReader(source_of(tmp_path / "a.mkv"))
    assert np.array_equal(frame.image, np.full((41, 51, 3), 90, np.uint8))


LOSSLESS = list(np.random.default_rng(0).integers(60, 190, (9, 48, 64, 3), np.uint8))


@pytest.mark.parametrize("name", ["a.avi", "a.mkv", "a.webm", "a.mp4", "a.flv"])
def test_a_truncated_video_gives_what_decodes_and_says_so(tmp_path, name):
    codec = {".webm": "libvpx", ".flv": "flv1"}.get(Path(name).suffix, "mpeg4")
    noise = np.random.default_rng(0).integers(0, 256, (40, 96, 128, 3), np.uint8)
    path = encode(tmp_path / name, noise, codec)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.6)])
    reader = FrameReader(source_of(path))
    frames = list(reader)
    assert 10 < len(frames) < 35 and reader.frames_expected == 40
    begin = f"{len(frames)} of 40 frames could be decoded; the file may be truncated: its picture"
    assert [warning[: len(begin)] for warning in reader.warnings if "trunc" in warning] == [begin]


# What is whole, although its length or its count says otherwise: name, and the options of `encode`.
WHOLE = [
    ("sound_longer.mp4", {"sound": 5.0}),
    ("sound_longer.mkv", {"sound": 5.0}),
    ("sound_longer.avi", {"sound": 5.0}),
    ("duplicates_dropped.mp4", {"times": [0, 0.1, 0.2, 1.9, 2.0, 2.1]}),
    ("duplicates_dropped.mkv", {"times": [0, 0.1, 0.2, 1.9, 2.0, 2.1]}),
    ("duplicates_dropped.avi", {"times": [0, 0.1, 0.2, 1.9, 2.0, 2.1]}),
    ("sound_first.mkv", {"sound": 100.0, "delay": 100.0}),
]


@pytest.mark.parametrize(("name", "options"), WHOLE)
def test_a_whole_video_is_not_called_truncated(tmp_path, name, options):
    reader = FrameReader(source_of(encode(tmp_path / name, grey_steps(6), **options)))
    assert reader.frames_expected >= 6
    frames = list(reader)
    assert [round(frame.image.mean() / 30) for frame in frames] == list(range(6))
    assert reader.warnings == []
    assert reader.frames_expected == 6
    assert frames[0].time == 0


def test_a_cut_without_encoding_has_only_its_own_frames():
    source = source_of(ROOT / "tests/files/trimmed.mp4")
    assert count_frames(source) < 10  # 27 are stored
    reader = FrameReader(source)
    assert len(list(reader)) == reader.frames_expected == 7
    assert reader.warnings == []


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.webm"])
def test_times_are_the_containers(tmp_path, name):
    times = [0, 0.04, 0.08, 0.12, 1.25, 2.25]
    codec = "libvpx" if name == "a.webm" else "mpeg4"
    path = encode(tmp_path / name, grey_steps(6), codec, times=times)
    assert [frame.time for frame in FrameReader(source_of(path))] == pytest.approx(times, abs=1e-3)
    strided = FrameReader(source_of(path), stride=4)
    assert [(f.index, round(f.time, 2)) for f in strided] == [(0, 0), (4, 1.25)]


def test_raw_streams_without_times_are_evenly_spaced(tmp_path):
    path = encode(tmp_path / "a.h264", grey_steps(6), "libx264")
    times = [frame.time for frame in FrameReader(source_of(path))]
    assert np.diff(times) == pytest.approx(times[1]) and times[0] == 0 and times[1] > 0


def test_pixels_are_those_of_the_original():
    """OpenCV 4.12's, to the last bit: interlaced, bt709, bt2020, full range, the demo, the clip."""
    assert {"interlaced.mp4", "interlaced.mpg", "bt709.mp4"} < frame_hashes.videos().keys()
    assert frame_hashes.differing() == []


@pytest.mark.slow
def test_pixels_are_the_same_under_the_lowest_pyav(tmp_path):
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    lowest = [line.split(",")[0].replace(">=", "==") for line in lines if line.startswith("av>=")]
    python = tmp_path / "venv/bin/python"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    packages = [*lowest, "numpy", "pillow", "natsort"]
    subprocess.run([python, "-m", "pip", "install", "-q", *packages], check=True)
    subprocess.run([python, ROOT / "tests/frame_hashes.py"], check=True)


def test_the_files_own_colours_are_a_setting():
    def first(name: str, colours: str) -> np.ndarray:
        reader = FrameReader(source_of(ROOT / "tests/files" / name), colours=colours)
        return next(iter(reader)).image.astype(int)

    for name in ("bt709.mp4", "bt2020_10bit.mp4"):
        assert np.abs(first(name, "tagged") - first(name, "original")).mean() > 1
    # Both were made of one picture.
    near = np.abs(first("bt709.mp4", "tagged") - first("full_range.mp4", "tagged")).mean()
    assert near < np.abs(first("bt709.mp4", "original") - first("full_range.mp4", "tagged")).mean()
    assert np.array_equal(first("trimmed.mp4", "tagged"), first("trimmed.mp4", "original"))


def test_av1(tmp_path):
    frames = list(FrameReader(source_of(encode(tmp_path / "a.mp4", grey_steps(6), "libsvtav1"))))
    assert [round(frame.image.mean() / 30) for frame in frames] == list(range(6))


def _joined(tmp_path: Path, *parts: tuple[str, tuple[int, int]]) -> Path:
    """Return MJPEG streams of three frames in one file: (pixel format, size) of each."""
    content = b""
    for pix_fmt, size in parts:
        content += encode(
            tmp_path / "part.mjpeg", grey_steps(3, size), "mjpeg", pix_fmt
        ).read_bytes()
    (tmp_path / "joined.mjpeg").write_bytes(content)
    return tmp_path / "joined.mjpeg"


def test_pixel_format_and_size_may_change_in_mid_stream(tmp_path):
    path = _joined(tmp_path, ("yuvj422p", (64, 48)), ("yuvj420p", (64, 48)), ("yuvj444p", (96, 64)))
    frames = list(FrameReader(source_of(path)))
    assert [frame.image.shape for frame in frames] == [(48, 64, 3)] * 6 + [(64, 96, 3)] * 3
    assert [round(frame.image.mean() / 30) for frame in frames] == [0, 1, 2] * 3


def test_frames_that_grow_too_large_are_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr("human_anomaly.data.video.MAX_PIXELS", 64 * 48)
    path = _joined(tmp_path, ("yuvj420p", (64, 48)), ("yuvj420p", (96, 64)))
    reader = FrameReader(source_of(path))
    assert len(list(reader)) == 3
    assert reader.warnings == ["3 damaged packets; their frames are left out"]


@pytest.mark.parametrize("kind", ["nv12", "yuyv422", "pal8", "yuv420p", "yuv422p10le", "gray"])
@pytest.mark.parametrize("width", [641, 642, 644])
def test_odd_widths_and_packed_formats(tmp_path, kind, width):
    image = np.random.default_rng(1).integers(0, 256, (36, width, 3), np.uint8)
    if kind == "pal8":
        palette = np.random.default_rng(2).integers(0, 256, (256, 4), np.uint8)
        frame = av.VideoFrame.from_ndarray((image[..., 0].copy(), palette), format="pal8")
    else:
        frame = av.VideoFrame.from_ndarray(image, format="bgr24").reformat(format=kind)
    expected = frame.reformat(format="bgr24", interpolation="BICUBIC").to_ndarray()
    (read,) = FrameReader(source_of(raw(tmp_path / "a.nut", frame)))
    assert np.array_equal(read.image, expected)


def test_rows_stored_from_the_bottom_up(tmp_path):
    image = np.random.default_rng(1).integers(0, 256, (36, 62, 3), np.uint8)
    frame = av.VideoFrame.from_ndarray(image, format="bgr24")
    (read,) = FrameReader(source_of(raw(tmp_path / "a.avi", frame)))
    assert np.array_equal(read.image, image)


def test_a_frame_keeps_its_pixels_when_the_next_is_decoded(tmp_path):
    """Raw BGR needs no conversion, and must not share the memory of what follows."""
    path = encode(tmp_path / "a.nut", LOSSLESS, "rawvideo", "bgr24")
    frames = list(FrameReader(source_of(path)))
    assert all(np.array_equal(f.image, x) for f, x in zip(frames, LOSSLESS, strict=True))


def test_a_cover_is_not_the_picture(tmp_path):
    """Music and films carry a still as a video stream."""
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        cover = container.add_stream("png", rate=1)
        cover.width, cover.height, cover.pix_fmt = 32, 32, "rgb24"
        film = container.add_stream("mpeg4", rate=10)
        film.width, film.height, film.pix_fmt = 64, 48, "yuv420p"
        cover.disposition = av.stream.Disposition.attached_pic
        still = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
        container.mux([*cover.encode(still), *cover.encode(None)])
        for image in grey_steps(3):
            container.mux(film.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        container.mux(film.encode(None))
    assert [f.image.shape for f in FrameReader(source_of(tmp_path / "a.mp4"))] == [(48, 64, 3)] * 3

"""Files that are no videos, or only partly: each says why."""

import os
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from videos import encode, grey_steps, source_of, write_video

from human_anomaly.data.sources import Source
from human_anomaly.data.video import FrameReader, VideoError


def test_a_damaged_packet_costs_its_own_frames(tmp_path):
    path = encode(tmp_path / "a.avi", grey_steps(9), "mjpeg", "yuvj420p")
    with av.open(str(path)) as container:
        packet = bytes([p for p in container.demux(video=0) if p.size][4])
    path.write_bytes(path.read_bytes().replace(packet, bytes(len(packet))))
    reader = FrameReader(source_of(path))
    frames = list(reader)
    left = [0, 1, 2, 3, 5, 6, 7, 8]
    assert [round(frame.image.mean() / 30) for frame in frames] == left
    assert [frame.time for frame in frames] == pytest.approx([i / 10 for i in left])
    assert reader.warnings == ["1 damaged packets; their frames are left out"]
    assert reader.frames_expected == 9


PLAYLISTS = {
    "ffconcat": "ffconcat version 1.0\nfile secret.mp4\n",
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1,\nsecret.mp4\n#EXT-X-ENDLIST\n",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nm=video 5004 RTP/AVP 96\n",
}


@pytest.mark.parametrize("kind", PLAYLISTS)
def test_a_list_of_files_named_as_a_video_opens_none_of_them(tmp_path, kind):
    encode(tmp_path / "secret.mp4", grey_steps(3))
    (tmp_path / "a.mp4").write_text(PLAYLISTS[kind])
    with pytest.raises(VideoError, match="not a video"):
        list(FrameReader(source_of(tmp_path / "a.mp4")))


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
        list(FrameReader(source_of(tmp_path / name)))


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
    monkeypatch.setattr("human_anomaly.data.pictures.MAX_PIXELS", 64 * 47)
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((48, 64, 3), np.uint8))
    reader = FrameReader(Source(tmp_path / "a.png", "a", (tmp_path / "a.png",)))
    with pytest.raises(VideoError, match=r"a\.png: 64 x 48 pixels"):
        list(reader)


def test_a_file_without_permission_says_so(tmp_path, monkeypatch):
    write_video(tmp_path / "a.mp4", 3)

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.open", refuse)
    with pytest.raises(VideoError, match="cannot read: Permission denied"):
        FrameReader(Source(tmp_path / "a.mp4", "a"))


def test_a_count_that_the_size_cannot_hold_is_not_believed(tmp_path, monkeypatch):
    write_video(tmp_path / "a.mp4", 3)
    monkeypatch.setattr("human_anomaly.data.video.LEAST_FRAME", 10**6)
    reader = FrameReader(Source(tmp_path / "a.mp4", "a"))
    assert reader.frames_expected is None
    assert reader.warnings == ["it declares 3 frames, which its size cannot hold"]


def test_a_pixel_format_that_cannot_be_converted_costs_its_own_video(tmp_path):
    """FFmpeg writes and reads bgr4, four bits a pixel, and converts it to nothing."""
    with av.open(str(tmp_path / "a.avi"), "w", format="nut") as container:
        stream = container.add_stream("rawvideo", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "bgr4"
        frame = av.VideoFrame(64, 48, "bgr4")
        container.mux([*stream.encode(frame), *stream.encode(None)])
    with pytest.raises(VideoError, match="cannot convert its pixel format"):
        list(FrameReader(source_of(tmp_path / "a.avi")))

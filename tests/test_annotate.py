"""Annotated videos: what is drawn, what is written, and that a browser plays it."""

import cv2
import numpy as np
import pytest
from browser import open_browser

from data.video import Frame, Source
from models.report.annotate import (
    GREEN,
    RED,
    STRIP,
    AnnotatedVideo,
    AnnotateError,
    ScoreStrip,
    annotate_video,
    draw_boxes,
)
from utils import write_jsonl

LIMITS = {"human": 0.45, "face": 0.3, "hand": 0.32}


def part(name, bbox, p):
    return {"part": name, "bbox": bbox, "detector_score": 0.9, "square": bbox, "p_abnormal": p}


def row(frame, score, parts, fps=25):
    people = [{"abnormal": score == 0, "parts": parts}] if parts else []
    return {"frame": frame, "time": frame / fps, "score": score, "people": people}


def write_clip(path, frames, size=(320, 240), fps=25):
    """A video whose grey level tells the frame: about 10, 18, 26, ..."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), fps, size)
    for i in range(frames):
        writer.write(np.full((size[1], size[0], 3), 10 + 8 * i, np.uint8))
    writer.release()


def read_clip(path):
    capture = cv2.VideoCapture(str(path))
    frames = []
    while (read := capture.read())[0]:
        frames.append(read[1])
    return frames, capture.get(cv2.CAP_PROP_FPS)


def test_red_above_the_threshold_green_below():
    image = np.zeros((200, 400, 3), np.uint8)
    parts = [part("hand", [20, 60, 90, 150], 0.33), part("face", [200, 60, 280, 150], 0.29)]
    draw_boxes(image, row(0, 0, parts), LIMITS, zoom=1.0)
    assert tuple(image[150, 60]) == RED and tuple(image[150, 240]) == GREEN
    zoomed = np.zeros((100, 200, 3), np.uint8)
    draw_boxes(zoomed, row(0, 0, parts), LIMITS, zoom=0.5)
    assert tuple(zoomed[75, 30]) == RED and tuple(zoomed[75, 120]) == GREEN


def test_flagged_boxes_lie_on_top():
    same = [20, 60, 90, 150]
    image = np.zeros((200, 400, 3), np.uint8)
    parts = [part("hand", same, 0.9), part("face", same, 0.1)]
    draw_boxes(image, row(0, 0, parts), LIMITS, zoom=1.0)
    assert tuple(image[150, 60]) == RED


def test_labels_at_the_border_stay_in_the_picture():
    image = np.zeros((40, 60, 3), np.uint8)
    draw_boxes(image, row(0, 0, [part("human", [-5, -5, 80, 60], 0.9)]), LIMITS, zoom=1.0)
    assert image.any()


def line_heights(strip, x):
    """Rows of the strip's column `x` that hold the score's line."""
    return np.flatnonzero((strip[:, x].astype(int) - [240, 200, 120]).__abs__().sum(1) < 40)


def test_strip_shows_score_over_time_with_gaps():
    strip = ScoreStrip(101, expected=11)
    for score in (1.0, 1.0, None, None, 0.0):
        shown = strip.add(score)
    assert abs(line_heights(shown, 5).mean() - 8) <= 1  # 1.0 at the top
    assert line_heights(shown, 25).size == 0  # no people
    assert abs(line_heights(strip.canvas, 40).mean() - (STRIP - 8)) <= 2
    assert (shown[:, 40] == 245).all() and line_heights(shown, 60).size == 0  # the future


def test_strip_makes_room_when_more_frames_come_than_were_announced():
    strip = ScoreStrip(101, expected=None)
    for _ in range(200):
        shown = strip.add(0.5)
    assert strip.room == 256
    assert line_heights(shown, 10).size and line_heights(shown, 70).size


@pytest.mark.parametrize(("width", "height"), [(320, 240), (333, 121), (2000, 1000)])
def test_written_video_has_every_frame_at_its_time(tmp_path, width, height):
    path = tmp_path / "a.webm"
    video = AnnotatedVideo(path, LIMITS, fps=12.5, frames_expected=8)
    for i in range(8):
        image = np.full((height, width, 3), 10 + 20 * i, np.uint8)
        video.add(Frame(i, i / 12.5, image), row(i, 1.0, [], 12.5))
    assert not path.exists()
    video.close()
    frames, fps = read_clip(path)
    assert len(frames) == 8 and fps == pytest.approx(12.5, rel=0.01)
    shape = frames[0].shape
    assert shape[0] % 2 == 0 and shape[1] % 2 == 0 and max(shape) <= 1280 + STRIP
    levels = [float(f[shape[0] // 2, shape[1] // 2].mean()) for f in frames]
    assert np.allclose(levels, [10 + 20 * i for i in range(8)], atol=7)
    assert list(tmp_path.iterdir()) == [path]


def test_frames_of_other_sizes_are_fitted(tmp_path):
    video = AnnotatedVideo(tmp_path / "a.webm", LIMITS, fps=25)
    for i, size in enumerate([(100, 120), (60, 200)]):
        video.add(Frame(i, i / 25, np.zeros((*size, 3), np.uint8)), row(i, None, []))
    video.close()
    assert len(read_clip(tmp_path / "a.webm")[0]) == 2


def test_abort_and_errors_leave_nothing(tmp_path):
    video = AnnotatedVideo(tmp_path / "a.webm", LIMITS, fps=25)
    video.add(Frame(0, 0.0, np.zeros((64, 64, 3), np.uint8)), row(0, 1.0, []))
    video.abort()
    assert list(tmp_path.iterdir()) == []
    video = AnnotatedVideo(tmp_path / "none" / "a.webm", LIMITS, fps=25)
    for i in range(30):  # more than the queue holds: a dead writer must not block the scoring
        video.add(Frame(i, i / 25, np.zeros((64, 64, 3), np.uint8)), row(i, 1.0, []))
    with pytest.raises(AnnotateError, match=r"a\.webm: cannot write"):
        video.close()


def test_from_result_files_with_stride_and_a_strange_name(tmp_path):
    clip = tmp_path / "a:b '<i>\" 漢 %03d.mp4"
    write_clip(clip, 12)
    rows = [row(i, 1.0, [part("human", [10, 10, 100, 200], 0.1)]) for i in range(0, 12, 3)]
    write_jsonl(tmp_path / "r.jsonl", rows)
    output = tmp_path / f"{clip.stem}.annotated.webm"
    annotate_video(Source(clip, clip.stem), tmp_path / "r.jsonl", output, LIMITS, stride=3)
    frames, _ = read_clip(output)
    levels = [float(f[120, 250].mean()) for f in frames]
    known = [float(f[120, 250].mean()) for f in read_clip(clip)[0][::3]]
    assert np.allclose(levels, known, atol=7) and np.allclose(np.diff(levels), 24, atol=2)


def test_a_browser_plays_it(tmp_path):
    write_clip(tmp_path / "clip.mp4", 25)
    rows = [row(i, 1.0, [part("human", [10, 40, 100, 200], 0.1)]) for i in range(25)]
    write_jsonl(tmp_path / "r.jsonl", rows)
    source = Source(tmp_path / "clip.mp4", "clip")
    annotate_video(source, tmp_path / "r.jsonl", tmp_path / "a.webm", LIMITS)
    levels = [float(f[120, 250].mean()) for f in read_clip(tmp_path / "a.webm")[0]]
    (tmp_path / "page.html").write_text("<video muted src=a.webm></video>")
    # The flag lets the test read pixels; playing needs none.
    flag = "--allow-file-access-from-files"
    with open_browser(tmp_path / "profile", flag) as browser:
        browser.get((tmp_path / "page.html").as_uri())
        played = browser.execute_async_script("""
            const done = arguments[0], video = document.querySelector("video");
            video.onended = () => done([video.videoWidth, video.videoHeight, video.duration,
              video.currentTime, video.getVideoPlaybackQuality().totalVideoFrames]);
            video.onerror = () => done(video.error.message);
            video.play();""")
        assert played[:2] == [320, 240 + STRIP], played
        assert played[2:4] == pytest.approx([1.0, 1.0], abs=0.06) and played[4] >= 20
        level = browser.execute_async_script("""
            const done = arguments[0], video = document.querySelector("video");
            video.onseeked = () => {
              const canvas = document.createElement("canvas"), context = canvas.getContext("2d");
              [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
              context.drawImage(video, 0, 0);
              done(context.getImageData(250, 120, 1, 1).data[0]);
            };
            video.currentTime = 12.4 / 25;""")
        assert level == pytest.approx(levels[12], abs=3)  # and not a neighbour, which is 8 off

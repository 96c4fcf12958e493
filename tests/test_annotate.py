"""Annotated videos: what is drawn, what is written, and that a browser plays it."""

import resource
import threading

import cv2
import numpy as np
import pytest
from browser import open_browser
from report_results import THRESHOLDS, frame_row, part, person, write_clip
from videos import encode, grey_steps

from human_anomaly.data.sources import Source
from human_anomaly.data.video import Frame, FrameReader
from human_anomaly.models.report.annotate import (
    AnnotateError,
    Annotation,
    WebmWriter,
    _fitted,
    replay,
)
from human_anomaly.models.report.draw import (
    DARK,
    GREEN,
    LINE,
    RED,
    Plates,
    ScoreStrip,
    draw_row,
    page_labels,
    strip_height,
    text_size,
)


def writer(path, fps=25.0, expected=None):
    return WebmWriter(path, fps=fps, draw=Annotation(THRESHOLDS, expected))


def read_clip(path):
    capture = cv2.VideoCapture(str(path))
    frames = []
    while (read := capture.read())[0]:
        frames.append(read[1])
    return frames, capture.get(cv2.CAP_PROP_FPS)


def drawn(*people, size=(400, 800), zoom=1.0):
    image = np.zeros((*size, 3), np.uint8)
    draw_row(image, frame_row(0, *people), THRESHOLDS, zoom)
    return image


def is_colour(image, colour):
    return (image == colour).all(-1)


def test_flagged_parts_are_thick_and_red_normal_people_have_a_thin_line():
    body, hand = part("human", [60, 100, 200, 300], 0.1), part("hand", [90, 200, 120, 240], 0.4)
    normal = person(part("human", [500, 100, 640, 300], 0.44), number=1)
    image = drawn(person(body, hand), normal)
    # How wide the left side of each box is.
    assert is_colour(image[220, 55:65], RED).sum() == 1  # the person is abnormal, not the body
    assert is_colour(image[220, 80:100], RED).sum() > 1
    assert is_colour(image[220, 480:520], GREEN).sum() == 1
    assert not is_colour(image[:, 480:], RED).any()
    half = drawn(person(body, hand), normal, size=(200, 400), zoom=0.5)
    assert is_colour(half[110, 30], RED) and is_colour(half[110, 250], GREEN)


def test_no_line_goes_through_words():
    """A body's box crosses the place of its hand's plate; the plate is drawn over it."""
    body = part("human", [300, 20, 420, 380], 0.9)
    hand = part("hand", [360, 200, 400, 240], 0.9)
    image = drawn(person(body, hand), person(part("human", [380, 60, 500, 380], 0.1), number=1))
    alone = drawn(person(hand))
    where = np.s_[200 - text_size(800) - 6 : 198, 362:440]  # the plate above the hand
    words = (image[where] > 150).all(-1)
    assert words.sum() > 60 and (words == (alone[where] > 150).all(-1)).mean() > 0.9


def test_plates_do_not_cover_each_other_and_stay_in_the_picture():
    plates = Plates(600, 400)
    for number in range(5):
        plates.add(f"#{number} human 0.91", (590, 100, 640, 300), RED)
    places = [place for place, _, _ in plates.placed]
    assert all(0 <= x1 < x2 <= 600 and 0 <= y1 < y2 <= 400 for x1, y1, x2, y2 in places)
    grid = np.zeros((400, 600), int)
    for x1, y1, x2, y2 in places:
        grid[y1:y2, x1:x2] += 1
    assert grid.max() == 1


def test_a_person_found_twice_is_named_once():
    box = [100, 100, 200, 300]
    once, twice = person(part("human", box, 0.1)), person(part("human", box, 0.1))
    assert np.array_equal(drawn(once), drawn(once, twice))


def test_people_whose_body_is_not_judged_have_a_box_too():
    alone = {**person(part("hand", [110, 110, 130, 130], 0.1)), "bbox": [100, 100, 300, 350]}
    image = drawn(alone)
    assert is_colour(image[350, 250], GREEN) and is_colour(image[130, 120], GREEN)


def line_heights(strip, x):
    """Rows of the strip's column `x` that hold the score's line."""
    return np.flatnonzero(np.abs(strip[:, x].astype(int) - LINE).sum(1) < 40)


def test_strip_shows_score_over_time_with_gaps():
    strip = ScoreStrip(401, expected=11)
    top, low = strip._y(1.0), strip._y(0.0)
    for score in (1.0, 1.0, None, None, 0.0):
        shown = strip.add(score)
    assert top < 20 and strip.height - low < 20
    assert abs(line_heights(shown, strip._x(0) + 5).mean() - top) <= 1
    assert line_heights(shown, strip._x(2) + 9).size == 0  # no people
    assert abs(line_heights(strip.canvas, strip._x(4)).mean() - low) <= 2
    assert (shown[:, strip._x(4)] == 245).all()
    assert line_heights(shown, strip._x(7)).size == 0  # the future
    axis = shown[:, : strip.left - 4]
    assert (axis.max(-1) > 200).sum() > 40 and is_colour(axis[1], DARK).any()  # "1 score 0"


def test_strip_makes_room_when_more_frames_come_than_were_announced():
    strip = ScoreStrip(401, expected=None)
    for _ in range(200):
        shown = strip.add(0.5)
    assert strip.room == 256
    assert line_heights(shown, strip._x(30)).size and line_heights(shown, strip._x(190)).size


@pytest.mark.parametrize(("width", "height"), [(320, 240), (333, 121), (2000, 1000)])
def test_written_video_has_every_frame_at_its_time(tmp_path, width, height):
    path = tmp_path / "a.webm"
    video = writer(path, 12.5, 8)
    for i in range(8):
        image = np.full((height, width, 3), 10 + 20 * i, np.uint8)
        video.add(Frame(i, i / 12.5, image), frame_row(i, fps=12.5))
    assert not path.exists()
    video.close()
    frames, fps = read_clip(path)
    assert len(frames) == 8 and fps == pytest.approx(12.5, rel=0.01)
    shape = frames[0].shape
    assert shape[0] % 2 == 0 and shape[1] % 2 == 0 and max(shape) <= 1280 + strip_height(1280)
    levels = [float(f[shape[0] // 2, shape[1] // 2].mean()) for f in frames]
    assert np.allclose(levels, [10 + 20 * i for i in range(8)], atol=7)
    assert list(tmp_path.iterdir()) == [path]


def test_frames_of_other_sizes_are_fitted(tmp_path):
    video = writer(tmp_path / "a.webm")
    for i, size in enumerate([(100, 120), (60, 200)]):
        video.add(Frame(i, i / 25, np.zeros((*size, 3), np.uint8)), frame_row(i))
    video.close()
    assert len(read_clip(tmp_path / "a.webm")[0]) == 2


@pytest.mark.parametrize("size", [(240, 320), (480, 640), (320, 240), (100, 400)])
def test_boxes_lie_where_the_frame_is_shown(size):
    """Pictures of one folder differ in size; the first one here has 240 rows of 320 pixels."""
    height, width = size
    body = [width // 4, height // 4, width // 2, height // 2]
    image = np.full((*size, 3), 90, np.uint8)
    image[body[1] : body[3], body[0] : body[2]] = 200
    picture = _fitted(image, (320, 240))
    bright = np.argwhere((picture > 150).all(-1))
    (top, left), (low, right) = bright.min(0), bright.max(0) + 1
    assert (picture > 45).any(-1).sum() == pytest.approx(
        min(320 / width, 240 / height) ** 2 * width * height, rel=0.01
    )
    hand = person(part("hand", body, 0.9))
    shown = Annotation(THRESHOLDS)(picture.copy(), Frame(0, 0.0, image), frame_row(0, hand))
    red = np.argwhere(is_colour(shown[:240], RED))
    lines = [(red[:, 1] == left).sum(), (red[:, 0] == top).sum()]
    lines += [(red[:, 1] == right).sum(), (red[:, 0] == low).sum()]
    assert min(lines) > 20


def test_an_annotated_video_has_the_times_of_its_source(tmp_path):
    times = [0, 0.04, 0.08, 1.25, 2.25]
    encode(tmp_path / "a.mp4", grey_steps(5, (320, 240)), times=times)
    video, source = writer(tmp_path / "a.webm"), Source(tmp_path / "a.mp4", "a")
    for frame, row in replay(source, [frame_row(i) for i in range(5)]):
        video.add(frame, row | {"time": frame.time})
    video.close()
    annotated = FrameReader(Source(tmp_path / "a.webm", "a"))
    assert [frame.time for frame in annotated] == pytest.approx(times, abs=2e-3)


def test_abort_and_errors_leave_nothing(tmp_path):
    video = writer(tmp_path / "a.webm")
    video.add(Frame(0, 0.0, np.zeros((64, 64, 3), np.uint8)), frame_row(0))
    video.abort()
    assert list(tmp_path.iterdir()) == []
    video = writer(tmp_path / "none" / "a.webm")
    for i in range(30):  # more than the queue holds: a dead writer must not block the scoring
        video.add(Frame(i, i / 25, np.zeros((64, 64, 3), np.uint8)), frame_row(i))
    with pytest.raises(AnnotateError, match=r"a\.webm: cannot write"):
        video.close()


@pytest.mark.parametrize("room", [0, 200, 2000])
def test_a_full_disk_is_an_error_and_no_wait(tmp_path, room):
    """The error may come when the file is closed, after the writer has seen the end."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    errors = []

    def write():
        video = writer(tmp_path / "a.webm")
        rng = np.random.default_rng(0)
        for i in range(3):
            image = rng.integers(0, 255, (64, 96, 3), np.uint8)
            video.add(Frame(i, i / 25, image), frame_row(i))
        try:
            video.close()
        except AnnotateError as error:
            errors.append(str(error))

    try:
        thread = threading.Thread(target=write, daemon=True)
        thread.start()
        thread.join(timeout=30)
        assert not thread.is_alive(), "the writer waits for ever"
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len(errors) == 1 and "cannot write" in errors[0]
    assert list(tmp_path.iterdir()) == []


def annotate(source, rows, output, stride=1):
    video = writer(output)
    for frame, row in replay(source, rows, stride=stride):
        video.add(frame, row)
    video.close()


def test_from_result_files_with_stride_and_a_strange_name(tmp_path):
    clip = tmp_path / "a:b '<i>\" 漢 %03d.mp4"
    write_clip(clip, 12)
    rows = [frame_row(i, person(part("human", [10, 10, 100, 200], 0.1))) for i in range(0, 12, 3)]
    output = tmp_path / f"{clip.stem}.annotated.webm"
    annotate(Source(clip, clip.stem), rows, output, stride=3)
    frames, _ = read_clip(output)
    levels = [float(f[120, 250].mean()) for f in frames]
    known = [float(f[120, 250].mean()) for f in read_clip(clip)[0][::3]]
    assert np.allclose(levels, known, atol=7) and np.allclose(np.diff(levels), 24, atol=2)


def test_a_browser_plays_it(tmp_path):
    write_clip(tmp_path / "clip.mp4", 25)
    rows = [frame_row(i, person(part("human", [10, 40, 100, 200], 0.1))) for i in range(25)]
    annotate(Source(tmp_path / "clip.mp4", "clip"), rows, tmp_path / "a.webm")
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
        assert played[:2] == [320, 240 + strip_height(320)], played
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


def test_the_page_gets_labels_with_places():
    """At 640 pixels of width, as draw_row places them: above the box, in percent of the frame."""
    hand = person(part("hand", [160, 120, 200, 160], 0.4))
    near = person(part("human", [500, 200, 600, 300], 0.1), number=1)
    labels = page_labels(frame_row(0, hand, near), THRESHOLDS, (640, 400))
    assert [(text, red) for text, _, _, red in labels] == [
        ("hand 0.40", True),
        ("#0", True),
        ("#1", False),
    ]
    (_, left, top, _), _, (_, left_1, top_1, _) = labels
    assert (left, left_1) == (25.0, 78.12) and 24 < top < 30 and 44 < top_1 < 50
    twice = page_labels(frame_row(0, near, near), THRESHOLDS, (1280, 800))
    assert [text for text, *_ in twice] == ["#1"] and twice[0][1] == pytest.approx(39.06)

"""What is kept while scoring: the worst parts, the videos, and which evidence is out of date."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from report_results import (
    HOSTILE,
    THRESHOLDS,
    frame_row,
    half_heat,
    make_results,
    moving,
    part,
    person,
    write_clip,
)

from human_anomaly.data.sources import Source, find_sources
from human_anomaly.data.video import Frame
from human_anomaly.models.report.evidence import Evidence, read_evidence, safe_name
from human_anomaly.models.report.worst import WorstParts, overlay
from human_anomaly.utils import write_jsonl


def frame(index, fps=25):
    image = np.zeros((240, 320, 3), np.uint8)
    image[:, :, 0] = np.arange(320) % 256
    image[:, :, 2] = 10 + index
    return Frame(index, index / fps, image)


def test_the_worst_parts_are_kept_highest_first():
    worst = WorstParts(THRESHOLDS, most=10)
    values = np.random.default_rng(0).permutation(np.linspace(0.4, 0.99, 30))
    for i, p in enumerate(values):
        worst.add(frame(i), moving(i % 15, p, number=i))
    assert [s.p for s in worst.kept] == sorted(values, reverse=True)[:10]
    assert all(s.part["part"] == "hand" for s in worst.kept)


def test_a_person_s_part_is_kept_once_where_its_p_is_highest():
    worst = WorstParts(THRESHOLDS)
    for i, p in enumerate((0.6, 0.9, 0.7)):
        parts = part("hand", [50, 60, 80, 90], p), part("human", [40, 40, 90, 200], p - 0.1)
        worst.add(frame(i), frame_row(i, person(*parts)))
    other = person(part("hand", [200, 60, 230, 90], 0.4), number=1)
    worst.add(frame(3), frame_row(3, other))
    found = [(s.person, s.part["part"], s.frame, s.p) for s in worst.kept]
    assert found == [(0, "hand", 1, 0.9), (0, "human", 1, 0.8), (1, "hand", 3, 0.4)]


def test_what_is_not_flagged_is_not_among_the_worst():
    worst = WorstParts(THRESHOLDS)
    worst.add(frame(0), moving(0, THRESHOLDS["hand"]))
    assert worst.kept == [] and worst.sizes == [(0, 320, 240)]


def test_the_crop_is_the_square_and_the_view_is_the_frame_with_its_box():
    worst = WorstParts(THRESHOLDS)
    worst.add(frame(4), frame_row(4, person(part("hand", [50, 60, 80, 90], 0.6))))
    assert np.array_equal(worst.kept[0].crop, frame(4).image[60:90, 50:80])
    view = worst.kept[0].view
    assert view.shape == (240, 320, 3) and view[75, 50, 2] > 200 and view[75, 150, 2] == 14


def test_overlay_marks_the_peak():
    heat = np.zeros((8, 8), np.float32)
    heat[6, 1] = 1
    image = overlay(np.full((256, 256, 3), 90, np.uint8), heat).astype(int)
    warm = image[208, 48]
    assert abs(image[64, 192] - 90).max() < 3 and warm.max() > 150


def test_safe_names_are_harmless_and_differ():
    names = [safe_name(Path(name).stem) for name in [*HOSTILE, "a/../..", "a b", "a-b", "漢", "字"]]
    harmless = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-")
    assert len(set(names)) == len(names) and all(set(name) <= harmless for name in names)


def test_a_page_holds_the_pictures_and_a_video_without_boxes(tmp_path):
    source = make_results(tmp_path, names=["a.mp4", "none.mp4"], frames=4, explain=half_heat)[0]
    evidence = Evidence(tmp_path, THRESHOLDS, report=True)
    page = evidence.page(source.stem)
    content = read_evidence(page, evidence.rows(source.stem))
    assert content["sizes"] == [[0, 320, 240]]
    (worst,) = content["worst"]
    assert (worst["person"], worst["part"], worst["p_abnormal"]) == (0, "hand", 0.9)
    for name in ("crop", "heat", "view"):
        assert cv2.imread(str(page / worst[name])) is not None
    assert cv2.imread(str(page / worst["crop"])).shape == (256, 256, 3)
    image = cv2.VideoCapture(str(page / "video.webm")).read()[1]
    assert image.shape == (240, 320, 3) and np.ptp(image) < 20  # grey as the clip: nothing drawn
    image = cv2.VideoCapture(str(evidence.annotated(source.stem))).read()[1]
    assert np.ptp(image) > 150


def test_evidence_tells_where_the_frames_change_their_size(tmp_path):
    (tmp_path / "shots").mkdir()
    sizes = [(320, 240), (320, 240), (200, 300), (320, 240)]
    for i, (width, height) in enumerate(sizes):
        cv2.imwrite(str(tmp_path / f"shots/{i}.png"), np.full((height, width, 3), 90, np.uint8))
    (source,) = find_sources([tmp_path / "shots"]).sources
    evidence = Evidence(tmp_path, THRESHOLDS, report=True)
    write_jsonl(evidence.rows("shots"), [moving(i, 0.1) for i in range(4)])
    evidence.catch_up(source)
    content = read_evidence(evidence.page("shots"), evidence.rows("shots"))
    assert content["sizes"] == [[0, 320, 240], [2, 200, 300], [3, 320, 240]]


def test_evidence_of_another_scoring_is_stale(tmp_path):
    sources = make_results(tmp_path, names=["a.mp4"], frames=4)
    evidence = Evidence(tmp_path, THRESHOLDS, report=True)
    assert not evidence.missing(sources[0])
    rows = evidence.rows("a")
    write_jsonl(rows, [moving(i, 0.5) for i in range(4)])
    assert evidence.missing(sources[0]) and read_evidence(evidence.page("a"), rows) is None
    evidence.catch_up(sources[0])
    assert not evidence.missing(sources[0])
    evidence.annotated("a").unlink()
    assert evidence.missing(sources[0])


def test_evidence_of_another_format_is_made_again(tmp_path):
    source = make_results(tmp_path, names=["a.mp4"], frames=2)[0]
    evidence = Evidence(tmp_path, THRESHOLDS, report=True)
    path = evidence.page("a") / "evidence.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 1}))
    assert evidence.missing(source)
    path.write_text("[]")
    assert evidence.missing(source)


def test_a_broken_scoring_leaves_no_evidence(tmp_path):
    write_clip(tmp_path / "a.mp4", 4)
    evidence = Evidence(tmp_path, THRESHOLDS, report=True)
    source = Source(tmp_path / "a.mp4", "a")
    with pytest.raises(KeyboardInterrupt), evidence.watch(source) as on_frame:
        on_frame(frame(0), moving(0, 0.9))
        raise KeyboardInterrupt
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


def test_evidence_that_cannot_be_written_does_not_lose_the_scores(tmp_path):
    write_clip(tmp_path / "a.mp4", 4)
    evidence = Evidence(tmp_path, THRESHOLDS, report=True)
    source = Source(tmp_path / "a.mp4", "a")
    (tmp_path / "report").write_text("a file where a folder must be")
    with evidence.watch(source) as on_frame:
        on_frame(frame(0), moving(0, 0.9))
        write_jsonl(evidence.rows("a"), [moving(0, 0.9)])
    assert len(evidence.failed) == 1 and evidence.missing(source)
    assert not [p for p in tmp_path.iterdir() if ".part" in p.name]

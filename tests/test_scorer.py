"""The scoring rules, on rows whose scores are known by hand."""

import logging
import threading
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from conftest import ROOT

from human_anomaly.configs.defaults import get_config
from human_anomaly.data.video import Frame, Source, VideoError
from human_anomaly.models.detector import FrameDetections, PartBox, Person
from human_anomaly.models.device import Stopwatch
from human_anomaly.models.scoring.scorer import VideoScorer
from human_anomaly.models.scoring.scores import Tally, VideoResult
from human_anomaly.models.weights import choose_weights
from human_anomaly.models.yolo_world import predictor

LIMITS = {"human": 0.45, "face": 0.3, "hand": 0.32}


def _row(*people) -> dict:
    """Return a frame's row of people given as {part: p}."""
    rows = []
    for number, person in enumerate(people):
        parts = [{"part": part, "p_abnormal": p} for part, p in person.items()]
        abnormal = any(p > LIMITS[k] for k, p in person.items())
        rows.append({"id": number, "abnormal": abnormal, "parts": parts})
    normal = sum(not row["abnormal"] for row in rows)
    return {"score": normal / len(rows) if rows else None, "people": rows}


def _scores(*rows, no_person=None) -> dict:
    tally = Tally(no_person)
    for row in rows:
        tally.add(row, LIMITS)
    return tally.scores()


def test_four_scores():
    scores = _scores(
        _row({"human": 0.1, "hand": 0.2}, {"human": 0.5, "face": 0.9}),  # one of two is normal
        _row({"human": 0.4}),
        _row(),  # nobody: in clean frames only
    )
    assert scores["video_results"] == pytest.approx(2 / 3)
    assert scores["score_frame_mean"] == pytest.approx(0.75)
    assert scores["score_clean_frames"] == pytest.approx(2 / 3)
    assert scores["score_soft"] == pytest.approx(1 - (0.2 + 0.9 + 0.4) / 3)
    assert scores["tracks"] == 2  # the first person is seen twice
    assert scores["score_people"] == pytest.approx(0.5)
    assert (scores["frames"], scores["people"], scores["abnormal_people"]) == (3, 3, 1)
    assert scores["abnormal_by_part"] == {"human": 1 / 3, "face": 1 / 3, "hand": 0}
    low, high = scores["ci95"]
    assert low == pytest.approx(0.5) and high == pytest.approx(1.0)


def test_somebody_seen_often_counts_once_in_the_score_of_people():
    often, once = {"human": 0.1}, {"human": 0.9}
    scores = _scores(*[_row(often)] * 7, _row({"human": 0.9}, once))
    assert scores["score_people"] == pytest.approx((7 / 8 + 0) / 2) and scores["tracks"] == 2


def test_values_per_person_for_rewards():
    rows = [
        _row({"human": 0.1, "hand": 0.2}, {"human": 0.7, "face": 0.9}),
        _row({"human": 0.3}),
        _row(),
    ]
    result = VideoResult(_scores(*rows), rows, LIMITS)
    first, second = result.people
    assert (first["id"], first["views"], first["normal"]) == (0, 2, 1.0)
    assert (second["id"], second["views"], second["normal"]) == (1, 1, 0.0)
    assert first["soft"] == pytest.approx(0.75) and second["soft"] == pytest.approx(0.1)
    assert result.micro == pytest.approx(2 / 3) and result.macro == pytest.approx(0.5)
    assert result.soft == pytest.approx(1 - (0.2 + 0.9 + 0.3) / 3)
    assert result.unreliable is None


@pytest.mark.parametrize(
    "hands, reason",
    [
        ((0.30, 0.31, 0.34, 0.9), "hand: 75% of p are within 0.05 of the threshold"),
        ((0.30, 0.31, 0.31), None),  # near the threshold, but nobody is flagged
        ((0.30, 0.9, 0.9, 0.34), None),  # most are far from it
        ((), "no people"),
    ],
)
def test_scores_that_say_little_are_named(hands, reason):
    rows = [_row({"human": 0.1, "hand": p}) for p in hands]
    assert VideoResult({}, rows, LIMITS).unreliable == reason


def test_parts_that_are_not_judged_have_no_share():
    tally = Tally(None, ["hand"])
    tally.add(_row({"hand": 0.9}, {"hand": 0.1}), LIMITS)
    assert tally.scores()["abnormal_by_part"] == {"human": None, "face": None, "hand": 0.5}


def test_nobody_in_the_video():
    scores = _scores(_row(), _row())
    assert scores["video_results"] is None and scores["ci95"] is None
    assert scores["score_people"] is None and scores["tracks"] == 0
    assert scores["score_clean_frames"] == 1
    assert _scores(_row(), no_person=1.0)["video_results"] == 1.0


def test_the_threshold_itself_is_normal():
    assert _scores(_row({"human": 0.45, "face": 0.3}))["abnormal_people"] == 0


class _FakeDetector:
    """Finds in every frame the people it was given."""

    device, on_device, compiled = torch.device("cpu"), False, False
    dtype, threads = torch.float32, 1

    def __init__(self, people):
        self.people = people
        self.predictor = SimpleNamespace(clock=Stopwatch())

    def detect(self, frames, run=map):
        return [FrameDetections(self.people, skipped=1) for _ in frames]


class _Brightness(torch.nn.Module):
    """Says abnormal where the crop's first channel is bright."""

    def __init__(self):
        super().__init__()
        self.seen = 0

    def forward(self, x):
        self.seen += len(x)
        return x[:, 0].mean((1, 2)) * 10


def _person(*parts) -> Person:
    return Person([PartBox(part, (0, 0, 1, 1), 0.9, square) for part, square in parts])


BRIGHT, DARK = (0, 0, 40, 40), (60, 60, 100, 100)


@pytest.fixture
def frames():
    image = np.zeros((100, 100, 3), np.uint8)
    image[:40, :40] = (0, 0, 255)  # red, in BGR
    return [Frame(i, i / 10, image) for i in range(3)]


def _judge(frames, people, classifiers, opts=()):
    scorer = VideoScorer(_FakeDetector(people), classifiers, get_config(None, opts), batch_size=2)
    return scorer._score_batch(frames)["rows"]


def test_each_square_is_judged_once(frames):
    model = _Brightness()
    twice = [_person(("human", BRIGHT)), _person(("human", BRIGHT), ("human", DARK))]
    rows = _judge(frames, twice, {"human": model})
    assert model.seen == 2 * len(frames)
    assert [p["abnormal"] for p in rows[0]["people"]] == [True, True]
    assert rows[2]["frame"] == 2 and rows[2]["score"] == 0


def test_channel_order(frames):
    people = [_person(("human", BRIGHT))]
    red_first = _judge(frames[:1], people, {"human": _Brightness()})
    blue_first = _judge(frames[:1], people, {"human": _Brightness()}, ["TEST.CHANNELS", "bgr"])
    assert red_first[0]["people"][0]["parts"][0]["p_abnormal"] > 0.99
    assert blue_first[0]["people"][0]["parts"][0]["p_abnormal"] < 0.01


def test_fewer_parts_judge_fewer(frames):
    people = [_person(("human", DARK), ("hand", BRIGHT)), Person()]
    rows = _judge(frames[:1], people, {"human": _Brightness()})
    assert [p["part"] for p in rows[0]["people"][0]["parts"]] == ["human"]
    assert rows[0]["score"] == 1  # a person without a judged crop counts as normal


def test_too_little_memory_for_the_classifiers_fails_the_video(frames):
    class ShortOfMemory(torch.nn.Module):
        def forward(self, _images):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.5 GiB")

    with pytest.raises(VideoError, match="give a smaller --batch-size"):
        _judge(frames, [_person(("human", DARK))], {"human": ShortOfMemory()})


class _Together(torch.nn.Module):
    """Computes only when two threads do so at the same time; notes how many cores each takes."""

    def __init__(self):
        super().__init__()
        self.barrier, self.cores = threading.Barrier(2, timeout=20), set()

    def forward(self, x):
        self.cores.add(torch.get_num_threads())
        self.barrier.wait()
        return torch.zeros(len(x))


class _DetectorTogether(_FakeDetector):
    """Runs two batches of its own for every batch of frames."""

    def __init__(self, people):
        super().__init__(people)
        self.network = _Together()

    def detect(self, frames, run=map):
        list(run(self.network, [torch.zeros(1), torch.zeros(1)]))
        return super().detect(frames, run)


def test_the_batches_of_one_frame_keep_all_cores_busy(frames):
    """Each batch is on one core, so that results do not depend on how many cores there are."""
    squares = [("human", (i, 0, i + 40, 40)) for i in range(9)]  # two batches of a classifier
    detector, classifier = _DetectorTogether([_person(*squares)]), _Together()
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        scorer = VideoScorer(detector, {"human": classifier}, get_config(), workers=2)
        (row,) = scorer.score_frames(frames[0].image[None]).frames
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert len(row["people"][0]["parts"]) == 9
    assert detector.network.cores == classifier.cores == {1}


@pytest.fixture(scope="module")
def demo_scorer():
    """The demo's scorer as torch.hub gives it to somebody who uses it from Python."""
    return torch.hub.load(str(ROOT), "human_anatomy", source="local", weights="demo", device="cpu")


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> dict[Path, np.ndarray]:
    """Three folders of frames of the demo's videos, and the same frames as RGB arrays."""
    found = {}
    for name, count in (("normal_1", 3), ("hand_fused", 4), ("normal_2", 1)):
        folder = tmp_path_factory.mktemp(name)
        reader = cv2.VideoCapture(str(ROOT / f"demo/videos/{name}.mp4"))
        frames = [reader.read()[1] for _ in range(count)]
        reader.release()
        for i, frame in enumerate(frames):
            cv2.imwrite(str(folder / f"{i}.png"), frame)
        found[folder] = np.stack(frames)[..., ::-1]
    return found


def test_frames_in_memory_give_the_rows_of_the_video(demo_scorer, clips):
    one_by_one = [demo_scorer.score_frames(clip) for clip in clips.values()]
    together = demo_scorer.score_frames(list(clips.values()))
    for folder, alone, shared in zip(clips, one_by_one, together, strict=True):
        images = tuple(sorted(folder.glob("*.png")))
        expected = demo_scorer.score(Source(folder, "clip", images))
        assert expected.summary["people"] > 0
        assert alone.frames == shared.frames == expected.frames
        for key in ("video_results", "score_soft", "people", "skipped_crops"):
            assert alone.summary[key] == shared.summary[key] == expected.summary[key]


def test_tensors_and_a_full_batch_of_several_clips(demo_scorer, clips, monkeypatch):
    arrays = list(clips.values())
    expected = demo_scorer.score_frames(arrays)
    tensors = demo_scorer.score_frames([torch.from_numpy(clip.copy()) for clip in arrays])
    assert [r.frames for r in tensors] == [r.frames for r in expected]
    monkeypatch.setattr(demo_scorer, "mix_clips", True)
    for mixed, alone in zip(demo_scorer.score_frames(arrays), expected, strict=True):
        assert mixed.summary["abnormal_people"] == alone.summary["abnormal_people"]
        found, known = (
            [p["p_abnormal"] for f in r.frames for person in f["people"] for p in person["parts"]]
            for r in (mixed, alone)
        )
        assert found == pytest.approx(known, abs=1e-4)


def test_the_detectors_settings_hold_from_python(demo_scorer):
    files = choose_weights(parts=["face"], models={})
    config = get_config(files.cfg, ["DETECTOR.SCORE_THR", "0.999"])
    strict = VideoScorer.from_files(
        files.detector_config, files.detector_weights, files.models, config, device="cpu"
    )
    video = ROOT / "demo/videos/normal_2.mp4"
    strict.stride = 8
    assert strict.score(video).summary["people"] == 0


def test_a_cpu_compiles_nothing(monkeypatch, caplog):
    """There it makes nothing faster, and takes a minute."""
    monkeypatch.setattr(predictor, "_compiled", None)  # would fail
    caplog.set_level(logging.INFO)
    torch.hub.load(str(ROOT), "human_anatomy", "demo", source="local", device="cpu", compile=True)
    assert "--compile is ignored: on a CPU it makes nothing faster" in caplog.text

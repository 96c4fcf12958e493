"""The demo: its weights order its videos and name the abnormal part; its figures are right."""

import json
import runpy

import numpy as np
import pytest
import torch

from human_anomaly.configs.defaults import PARTS, ConfigError, get_config
from human_anomaly.data.video import FrameReader, Source
from human_anomaly.demo import evaluate
from human_anomaly.demo.choose import typical
from human_anomaly.demo.detector_calibration import shift_for, shifted
from human_anomaly.demo.evaluate import Detections, TrueCrops, auroc, right_part, score_aurocs
from human_anomaly.demo.paths import CONFIG, ROOT, VIDEOS, WEIGHTS, load_scorer
from human_anomaly.demo.show import EXPLANATION, table
from human_anomaly.demo.truth import (
    abnormal_part,
    label_crops,
    match,
    overlaps,
    read_truth,
    true_parts,
)
from human_anomaly.demo.views import Views, confidence
from human_anomaly.demo.world.files import chunks, draw_stills, read_stills, truth_file
from human_anomaly.models.checkpoint import CheckpointError, read_checkpoint
from human_anomaly.models.classifier import AnomalyClassifier, load_classifier, shape_of
from human_anomaly.models.scoring.results import SCORES
from human_anomaly.utils import UsageError, read_jsonl

PERSON = {
    "human": [100, 100, 200, 400],
    "face": [[130, 110, 170, 160]],
    "hand": [[100, 250, 120, 270], [180, 250, 200, 270]],
    "abnormal_parts": ["hand"],
    "anomaly_boxes": [[180, 250, 200, 270]],
}


def shipped_truth() -> dict[str, str | None]:
    """Return {video: the part that its truth calls abnormal} of the shipped videos."""
    frames = read_truth(ROOT / "demo/truth.jsonl")
    return {video: abnormal_part(people) for video, people in frames.items()}


def test_typical_videos_are_nearest_to_the_median_and_of_small_seeds():
    scores = {7: 0.2, 3: 0.5, 9: 0.5, 4: 0.6, 8: 0.9, 5: 0.0, 6: 1.0}
    assert typical(scores, 1) == [3]
    assert typical(scores, 2) == [3, 9]
    assert typical(scores, 3) == [3, 4, 9]


def test_the_shipped_weights_order_two_videos_and_name_the_part():
    """From file to score, on a normal video and one with a hand anomaly."""
    truth = shipped_truth()
    normal = min(video for video, part in truth.items() if part is None)
    hand = min(video for video, part in truth.items() if part == "hand")
    scorer = load_scorer(stride=6)
    rows = {v: scorer.score(VIDEOS / v, keep_frames=False).summary for v in (normal, hand)}
    assert rows[normal]["people"] > 0 and rows[hand]["people"] > 0
    assert rows[normal]["score_soft"] > rows[hand]["score_soft"] + 0.1
    assert right_part(rows, {normal: None, hand: "hand"}) == 1.0


def test_the_embedded_files_are_small_whole_and_plain():
    weights = [WEIGHTS / f"{name}.pth" for name in ("detector", *PARTS)]
    assert sum(path.stat().st_size for path in weights) <= 16e6
    for path in weights:
        content = read_checkpoint(path)
        state = content.get("state_dict") or content["model"]
        floats = {v.dtype for v in state.values() if v.is_floating_point()}
        assert floats == {torch.float16}
    videos = sorted(VIDEOS.glob("*.mp4"))
    assert sum(path.stat().st_size for path in videos) <= 6e6
    truth = shipped_truth()
    assert sorted(truth) == [path.name for path in videos]
    assert sorted(truth.values(), key=str) == [None, None, "hand", "human"]


def test_the_table_names_truth_and_scores():
    rows = {
        "a.mp4": {
            "video_results": 0.25,
            "score_soft": 0.5,
            "abnormal_by_part": {"human": 0.0, "face": 0.1, "hand": 0.75},
        },
        "b.mp4": {
            "video_results": None,
            "score_soft": None,
            "abnormal_by_part": dict.fromkeys(PARTS, 0.0),
        },
    }
    text = table(rows, {"a.mp4": "hand", "b.mp4": None}).splitlines()
    words = [line.split() for line in text]
    scores = ["0.250", "0.500", "0.0%", "10.0%", "75.0%"]
    assert words[1] == ["a.mp4", "hand", "anomaly", "low", *scores]
    assert words[2] == ["b.mp4", "normal", "high", "-", "-", "0.0%", "0.0%", "0.0%"]
    assert len({len(line) for line in text}) == 1  # the columns are aligned
    assert max(map(len, [*text, *EXPLANATION.splitlines()])) <= 110


def test_the_package_says_what_there_is(capsys):
    runpy.run_module("demo", run_name="__main__")
    shown = capsys.readouterr().out
    assert all(f"python -m demo.{c}" in shown for c in ("show", "evaluate", "train", "world"))


def test_overlap_of_boxes():
    found = overlaps([[0, 0, 10, 10]], [[0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30]])
    np.testing.assert_allclose(found, [[1, 1 / 3, 0]])
    assert overlaps([], [[0, 0, 1, 1]]).shape == (0, 1)


def test_each_true_box_is_found_once_by_the_most_certain():
    boxes = [[0, 0, 10, 10], [0, 0, 10, 9], [100, 100, 110, 110]]
    assert match(boxes, [0.5, 0.9, 0.8], [[0, 0, 10, 10]]) == [None, 0, None]
    assert match([], [], [[0, 0, 10, 10]]) == []


def test_only_the_odd_hand_is_abnormal():
    found = {part: [bad for _, bad, _ in true_parts([PERSON], part)] for part in PARTS}
    assert found == {"human": [False], "face": [False], "hand": [False, True]}


def test_crops_get_their_label_from_the_part_that_they_show():
    def row(box, part="hand", file="hand/x.jpg"):
        return {
            **{"source": "s", "frame": 3, "person": 0, "part": part, "score": 0.9},
            **{"box": box, "file": file},
        }

    rows = [
        row([101, 250, 120, 270]),  # the normal hand
        row([180, 251, 200, 270]),  # the odd one
        row([500, 500, 520, 520], file="hand/none.jpg"),
        row([195, 265, 225, 300]),  # a corner of the odd one
        row([115, 265, 145, 300], file="hand/corner.jpg"),  # of the normal one
        row([101, 250, 120, 270], file=None),  # no square fitted
        row([130, 110, 170, 160], part="face", file="face/y.jpg"),
    ]
    found = [row[:2] for row in label_crops(rows, {"s": {3: [PERSON]}}, "hand")]
    shown = [("hand/x.jpg", 0), ("hand/x.jpg", 1)]
    assert found == [*shown, ("hand/none.jpg", 0), ("hand/corner.jpg", 0)]
    assert [row[1] for row in label_crops(rows[:3], {"s": {3: []}}, "hand")] == [0, 0, 0]


def test_what_the_detector_finds_is_counted_inside_found_people():
    def part(name, box, score=0.9):
        return {"part": name, "bbox": box, "detector_score": score}

    other = {**PERSON, "human": [700, 100, 800, 400], "face": [[730, 110, 770, 160]], "hand": []}
    people = [
        {"parts": [part("human", [100, 100, 200, 395]), part("hand", [180, 250, 200, 271])]},
        {"parts": [part("human", [100, 100, 200, 390], 0.5)]},  # twice the same person
    ]
    counts = Detections()
    counts.add(people, [PERSON, other])
    assert counts.figures() == {
        "human_recall": 0.5,
        "face_recall": 0.0,  # of one: the other person was not found
        "hand_recall": 0.5,
        "false_people_per_frame": 1.0,
    }
    assert counts.true == {"human": 2, "face": 1, "hand": 2}


def test_views_are_counted_by_what_the_truth_says():
    def person(box, p, part="human"):
        body = {"part": "human", "bbox": box, "detector_score": 0.8, "p_abnormal": 0.1}
        parts = [body, {**body, "part": part, "p_abnormal": p}]
        return {"abnormal": p > 0.5, "parts": parts}

    normal = {**PERSON, "human": [700, 100, 800, 400], "abnormal_parts": []}
    people = [
        person([100, 100, 200, 400], 0.9),
        person([700, 100, 800, 400], 0.9, "hand"),
        person([705, 100, 800, 390], 0.1),  # a second box
        {"abnormal": True, "parts": []},  # no square fitted its body
    ]
    views = Views()
    views.add(people, [PERSON, normal])
    views.add(people[:2], [PERSON, {**normal, "abnormal_parts": []}])
    views.add([person([700, 100, 800, 400], 0.2)], [PERSON, normal])
    assert views.seen == {"normal": 3, "abnormal": 2, "second": 1}
    figures = views.figures()
    assert figures["normal_views_flagged"] == pytest.approx(2 / 3)
    assert figures["abnormal_views_flagged"] == 1
    assert figures["normal_flagged_by_hand"] == pytest.approx(2 / 3)
    assert figures["normal_flagged_by_human"] == 0
    assert confidence(people) == pytest.approx(0.8) and confidence([]) is None


def test_every_score_that_is_known_is_compared_with_the_truth():
    rows = [
        {**dict.fromkeys(SCORES, score), "detector confidence": 1 - score}
        for score in (0.9, 0.8, 0.3, 0.2)
    ]
    found = score_aurocs(rows, [False, False, True, True])
    assert list(found) == [*SCORES, "detector confidence"]
    assert found["score_soft"] == (1.0, 1.0, 1.0)
    assert found["detector confidence"][0] == 0.0


def test_the_detector_is_shifted_until_few_second_boxes_pass():
    """Of five scores on ten stills 0.2 a still may stay: the third highest comes to 0.1."""
    shift = shift_for([0.5, 0.12, 0.4, 0.2, 0.3], 10, per_frame=0.2, threshold=0.1)
    again = [1 / (1 + np.exp(-(np.log(p / (1 - p)) + shift))) for p in (0.3, 0.4)]
    assert again[0] == pytest.approx(0.1) and again[1] > 0.1
    assert shift_for([0.5], 10, per_frame=0.2, threshold=0.1) == 0
    name = "bbox_head.head_module.cls_contrasts.1"
    state = {f"{name}.bias": torch.tensor(2.0), f"{name}.norm.bias": torch.zeros(3)}
    moved = shifted(state, -1.5)
    assert moved[f"{name}.bias"] == 0.5 and not moved[f"{name}.norm.bias"].any()


def test_the_right_part_is_the_one_that_rises_most_over_normal_videos():
    rows = {
        "n": {"abnormal_by_part": {"human": 0.5, "face": 0.0, "hand": 0.1}},
        "a": {"abnormal_by_part": {"human": 0.6, "face": 0.0, "hand": 0.4}},
        "b": {"abnormal_by_part": {"human": 0.9, "face": 0.3, "hand": 0.1}},
    }
    assert right_part(rows, {"n": None, "a": "hand", "b": "face"}) == 0.5


def test_videos_of_one_kind_are_refused_before_they_are_scored(tmp_path, monkeypatch):
    words = ["evaluate", "--videos", "1", "--workers", "1", "--work", str(tmp_path)]
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(UsageError, match="--videos 1: expected normal and abnormal ones"):
        evaluate.main()


def test_ties_count_half():
    assert auroc([True, True, False, False], [0.9, 0.5, 0.5, 0.1]) == 0.875


def test_stills_are_drawn_once_and_known_by_their_seed(tmp_path):
    seeds = range(3)
    assert list(draw_stills(tmp_path, seeds)) == [0, 3]
    ((folder, part),) = chunks(tmp_path, seeds)
    assert sorted(p.name for p in folder.iterdir()) == [f"{s:06d}.jpg" for s in part]
    rows = [json.loads(line) for line in truth_file(folder).read_text().splitlines()]
    assert [(row["video"], row["frame"]) for row in rows] == [(folder.name, i) for i in part]
    assert list(draw_stills(tmp_path, seeds)) == [3]
    found = list(read_stills(tmp_path, seeds))
    assert [path.name for path, _ in found] == ["000000.jpg", "000001.jpg", "000002.jpg"]
    assert found[2][1] == rows[2]["people"]


def test_a_convolutional_stem_is_saved_and_read_back(tmp_path):
    config = get_config(CONFIG)
    model = AnomalyClassifier(**shape_of(config)).eval()
    for norm in model.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            norm.running_mean.normal_()
    torch.save({"model": model.state_dict(), "epoch": 0}, tmp_path / "a.pth")
    image = torch.rand(2, 3, config.DATA.IMG_SIZE, config.DATA.IMG_SIZE)
    again = load_classifier(tmp_path / "a.pth", config, "cpu")
    with torch.no_grad():
        torch.testing.assert_close(again(image), model(image))
    plain = get_config(CONFIG, ["MODEL.VIT.CONV_STEM", "False"])
    with pytest.raises(CheckpointError, match="other architecture"):
        load_classifier(tmp_path / "a.pth", plain, "cpu")


def test_a_stem_that_does_not_fit_the_patches_is_named():
    with pytest.raises(ConfigError, match="PATCH_SIZE"):
        AnomalyClassifier(**shape_of(get_config(CONFIG, ["MODEL.VIT.PATCH_SIZE", "12"])))


def test_true_crops_are_judged_as_scoring_judges_them():
    """hand_fused's first frame: the truth's own boxes, in the order of the truth's parts."""
    scorer = load_scorer()
    video = VIDEOS / "hand_fused.mp4"
    (truth, *_) = (
        row["people"]
        for row in read_jsonl(ROOT / "demo/truth.jsonl")
        if row["video"] == video.name and row["frame"] == 0
    )
    frame = next(iter(FrameReader(Source(video, "hand_fused"))))
    crops = TrueCrops(scorer)
    crops.add(frame, truth)
    assert len(crops.judged["hand"]) == len(crops.labels["hand"]) > 0
    found = dict(zip(crops.labels["hand"], crops.judged["hand"], strict=True))
    assert found[True] > 0.5 > found[False]  # crops in the wrong channel order miss this

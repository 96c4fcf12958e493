"""The same video gives the same squares and verdicts, however its frames are batched."""

import cv2
import pytest
from conftest import ROOT

from human_anomaly.configs.defaults import get_config
from human_anomaly.data.video import Source
from human_anomaly.models.scoring.scorer import VideoScorer

MOST_P = 1e-5  # sums of floats in another order


def short_video(path, frames: int):
    video = cv2.VideoCapture(str(ROOT / "demo/videos/hand_fused.mp4"))
    images = [video.read()[1] for _ in range(frames)]
    height, width = images[0].shape[:2]
    out = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 25, (width, height))
    for image in images:
        out.write(image)
    out.release()
    return Source(path, path.stem)


def demo_scorer(batch_size: int) -> VideoScorer:
    weights = ROOT / "demo/weights"
    return VideoScorer.from_files(
        ROOT / "configs/demo/yolo_world_demo.py",
        weights / "detector.pth",
        {part: weights / f"{part}.pth" for part in ("human", "face", "hand")},
        get_config(ROOT / "configs/demo/demo.yaml"),
        device="cpu",
        batch_size=batch_size,
    )


def scored(source: Source, batch_size: int) -> list[dict]:
    return demo_scorer(batch_size).score(source).frames


def verdicts(rows: list[dict]) -> list:
    return [
        [(person["abnormal"], [(p["part"], p["square"]) for p in person["parts"]])]
        for row in rows
        for person in row["people"]
    ]


def probabilities(rows: list[dict]) -> list[float]:
    people = [person for row in rows for person in row["people"]]
    return [part["p_abnormal"] for person in people for part in person["parts"]]


@pytest.mark.slow
def test_batches_of_1_3_and_16_agree_and_twice_is_the_same(tmp_path):
    source = short_video(tmp_path / "a.mp4", 18)
    by_one = scored(source, 1)
    assert scored(source, 1) == by_one  # the same command twice: the same bits
    changes = []
    for size in (3, 16):
        rows = scored(source, size)
        assert verdicts(rows) == verdicts(by_one)
        pairs = zip(probabilities(rows), probabilities(by_one), strict=True)
        changes.append(max(abs(a - b) for a, b in pairs))
    print(f"largest change of p with batches of 3 and 16: {changes}")
    assert max(changes) < MOST_P

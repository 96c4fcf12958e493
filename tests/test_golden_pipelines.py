"""The reference values of whole runs, whose weights are slow to make: scoring, cropping, export."""

from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import RELEASE_YAML, detector_config, golden
from PIL import Image
from preprocess_runs import flags, rows_of
from seeded_weights import scene_frame
from test_goldens import assert_same_verdicts, assert_scene, golden_scorer, near_whole

from human_anomaly import preprocess
from human_anomaly.configs.defaults import PARTS, get_config
from human_anomaly.data.crops import cut
from human_anomaly.data.sources import Source
from human_anomaly.data.transforms import EvalTransform
from human_anomaly.data.video import FrameReader
from human_anomaly.models.checkpoint import read_checkpoint
from human_anomaly.models.detector import PartDetector
from human_anomaly.tools import export_vocabulary


@pytest.fixture(scope="module")
def golden_crops(clip, golden_weights, tmp_path_factory) -> Path:
    """Return the real clip's crops as PNG, with the golden detector of size S."""
    output = tmp_path_factory.mktemp("golden") / "crops"
    detector = golden_weights("pipeline_clip.expected.json") / "detector.pth"
    arguments = flags(clip, output, detector, "--format", "png", "--device", "cpu")
    arguments[arguments.index("s.py")] = str(detector_config("s"))
    assert preprocess.main(arguments) == 0
    return output


def test_the_real_clip_gives_the_golden_squares(golden_crops):
    expected, loose = Counter(), set()
    for frame in golden("pipeline_clip.expected.json")["frames"]:
        for person in frame["persons"]:
            for part in person["parts"]:
                key = (frame["frame"], part["part"], *part["square"])
                expected[key] += 1
                if near_whole(part):
                    loose.add(key)
    found = Counter(
        (row["frame"], row["part"], *row["square"]) for row in rows_of(golden_crops / "boxes.jsonl")
    )
    assert found.total() == expected.total() == 69
    assert set(expected - found) <= loose


def test_crops_are_the_pixels_that_scoring_judges(golden_crops, golden_weights, clip):
    from human_anomaly.models.detector import PartDetector
    from human_anomaly.models.scoring.scorer import VideoScorer

    class Spy(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.seen: list[torch.Tensor] = []

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.seen += list(x)
            return torch.zeros(len(x))

    weights = golden_weights("pipeline_clip.expected.json") / "detector.pth"
    detector = PartDetector(detector_config("s"), weights)
    spies = {part: Spy() for part in PARTS}
    result = VideoScorer(detector, spies, get_config(RELEASE_YAML), stride=4).score(clip)
    rows = [row for row in rows_of(golden_crops / "boxes.jsonl") if row["frame"] % 4 == 0]
    scored = [
        (frame["frame"], number, part["part"], part["square"])
        for frame in result.frames
        for number, person in enumerate(frame["people"])
        for part in person["parts"]
    ]
    assert [(r["frame"], r["person"], r["part"], r["square"]) for r in rows] == scored
    frames = {frame.index: frame.image for frame in FrameReader(Source(clip, "clip"))}
    transform = EvalTransform()
    for file, row in {row["file"]: row for row in rows}.items():
        crop = cv2.imread(str(golden_crops / file))
        assert np.array_equal(crop, cut(frames[row["frame"]], row["square"]))
        judged = transform(Image.fromarray(crop))  # the release feeds BGR
        difference = min((judged - x).abs().max().item() for x in spies[row["part"]].seen)
        assert difference < 1e-3, file


@pytest.mark.parametrize("channels", ["rgb", "bgr"])
def test_scene(channels, golden_weights, tmp_path):
    weights = golden_weights(f"pipeline_scene.{channels}.expected.json")
    assert_scene(weights, tmp_path, channels, "cpu")


def test_real_clip(golden_weights, clip):
    name = "pipeline_clip.expected.json"
    scorer = golden_scorer(golden_weights(name), get_config(RELEASE_YAML))
    assert_same_verdicts(scorer.score(clip), golden(name))


@pytest.mark.slow
def test_exporting_the_vocabulary_keeps_every_box(tmp_path, golden_weights, capsys):
    source = golden_weights("pipeline_scene.rgb.expected.json") / "detector.pth"
    target = tmp_path / "small.pth"
    assert export_vocabulary.main([str(source), str(target)]) == 0
    assert "MB" in capsys.readouterr().out
    names = list(read_checkpoint(target)["state_dict"])
    assert not any(name.startswith("backbone.text_model.") for name in names)
    assert source.stat().st_size - target.stat().st_size > 4 * 63e6
    config = detector_config("s")
    both = [PartDetector(config, path, score_thr=0.05) for path in (source, target)]
    for texts in ("people_texts", "part_texts"):
        a, b = (d.predictor([scene_frame(0)], getattr(d, texts))[0] for d in both)
        assert len(a.xyxy) > 0
        np.testing.assert_allclose(a.xyxy, b.xyxy, atol=1e-3)
        np.testing.assert_array_equal(a.labels, b.labels)

"""Where the demo's settings, weights and videos lie, and a scorer made of them."""

from pathlib import Path

from human_anomaly.configs.defaults import get_config
from human_anomaly.configs.parts import BASE_PARTS
from human_anomaly.configs.places import ROOT

DETECTOR_CONFIG = ROOT / "configs/demo/yolo_world_demo.py"
CONFIG = ROOT / "configs/demo/demo.yaml"
WEIGHTS = ROOT / "demo/weights"
VIDEOS = ROOT / "demo/videos"


def load_scorer(weights: Path = WEIGHTS, *, stride: int = 1):
    """Return a VideoScorer on the CPU with the four files in `weights`; raises CheckpointError."""
    from human_anomaly.models.scoring.scorer import VideoScorer

    return VideoScorer.from_files(
        DETECTOR_CONFIG,
        weights / "detector.pth",
        {part: weights / f"{part}.pth" for part in BASE_PARTS},
        get_config(CONFIG),
        device="cpu",
        stride=stride,
    )

"""Where the demo's settings, weights and videos lie, and a scorer made of them."""

from pathlib import Path

from configs.defaults import PARTS, get_config

ROOT = Path(__file__).resolve().parents[1]
DETECTOR_CONFIG = ROOT / "configs/demo/yolo_world_demo.py"
CONFIG = ROOT / "configs/demo/demo.yaml"
WEIGHTS = ROOT / "demo/weights"
VIDEOS = ROOT / "demo/videos"


def load_scorer(weights: Path = WEIGHTS, *, stride: int = 1):
    """Return a VideoScorer on the CPU with the four files in `weights`; raises CheckpointError."""
    from models.classifier import load_classifier
    from models.detector import PartDetector
    from models.scorer import VideoScorer

    config = get_config(CONFIG)
    detector = PartDetector(
        DETECTOR_CONFIG,
        weights / "detector.pth",
        score_thr=config.DETECTOR.SCORE_THR,
        keep_padding_class=config.DETECTOR.KEEP_PADDING_CLASS,
    )
    classifiers = {p: load_classifier(weights / f"{p}.pth", config, "cpu") for p in PARTS}
    return VideoScorer(detector, classifiers, config, stride=stride)

"""The demo's own files: where its settings and weights lie, and a scorer made of them."""

from pathlib import Path

from configs.defaults import PARTS, get_config

ROOT = Path(__file__).resolve().parents[1]
DETECTOR_CONFIG = ROOT / "configs/demo/yolo_world_demo.py"
CONFIG = ROOT / "configs/demo/demo.yaml"
WEIGHTS = ROOT / "demo/weights"
VIDEOS = ROOT / "demo/videos"


def load_scorer(weights: Path = WEIGHTS, *, stride: int = 1):
    """Return a VideoScorer of the drawn world on the CPU; raises CheckpointError."""
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


def shown_part(frames) -> str | None:
    """Return the part that a video's truth (people per frame) calls abnormal, None if none."""
    named = {part for people in frames for person in people for part in person["abnormal_parts"]}
    return min(named, default=None)

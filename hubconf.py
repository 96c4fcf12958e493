"""torch.hub's door: `torch.hub.load(FOLDER, "human_anatomy", source="local", weights="demo")`."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
dependencies = ["torch", "torchvision", "timm", "mmyolo"]


def human_anatomy(weights: str = "release", device: str = "auto", **options):
    """Return a VideoScorer with the released weights, or with the demo's for drawn people.

    `options` are those of `VideoScorer.from_files`: batch_size, stride, fps, fast, compile. Raises
    UsageError where the weights are not on this machine.
    """
    if str(ROOT) not in sys.path:  # torch.hub removes it again, but modules are imported late too
        sys.path.append(str(ROOT))
    from configs.defaults import PARTS, get_config
    from models.scorer import VideoScorer
    from models.weights import choose_weights

    if weights not in ("release", "demo"):
        raise ValueError(f"weights: expected release or demo, got {weights!r}")
    files = choose_weights(parts=PARTS, models={}, release=weights == "release")
    return VideoScorer.from_files(
        files.detector_config,
        files.detector_weights,
        files.models,
        get_config(files.cfg),
        device=device,
        **options,
    )

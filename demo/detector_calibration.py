"""Shifts the detector's scores so that few second boxes on a person pass the score threshold.

After a short training, a true person scores 0.6 and more, and loosely placed second boxes score 0.1
to 0.5. The threshold stays the documented 0.1; a shift of all logits, added to the biases of the
head, moves the second boxes below it. It changes neither the order of scores nor any box.
"""

import math
import re
from collections.abc import Sequence
from pathlib import Path

import cv2
import torch
from torch import Tensor

from human_anomaly.demo.truth import match
from human_anomaly.models.checkpoint import read_checkpoint
from human_anomaly.models.detector import PartDetector
from human_anomaly.utils import atomic_write

SECOND_BOXES = 0.05  # how many per frame may stay above the threshold

Stills = Sequence[tuple[Path, Sequence[dict]]]  # pictures, and their people as in truth.jsonl


def calibrate(config: Path, source: Path, target: Path, stills: Stills, threshold: float) -> float:
    """Write the detector at `source` to `target`, its scores shifted; return the shift."""
    detector = PartDetector(config, source, score_thr=threshold)
    scores = second_scores(detector, stills)
    shift = shift_for(scores, len(stills), per_frame=SECOND_BOXES, threshold=threshold)
    content = read_checkpoint(source)
    # Cloned, because the file's tensors are mapped from disk.
    state = {name: value.clone() for name, value in content["state_dict"].items()}
    with atomic_write(target, "wb") as file:
        torch.save({**content, "state_dict": shifted(state, shift)}, file)
    return shift


def second_scores(detector: PartDetector, stills: Stills) -> list[float]:
    """Return the scores of all boxes except the one that is matched to each person."""
    scores = []
    for path, people in stills:
        (found,) = detector.predictor([cv2.imread(str(path))], detector.people_texts)
        matches = match(found.xyxy, found.scores, [person["human"] for person in people])
        scores += [float(s) for s, m in zip(found.scores, matches, strict=True) if m is None]
    return scores


def shift_for(scores: Sequence[float], stills: int, *, per_frame: float, threshold: float) -> float:
    """Return the shift of logits that leaves `per_frame` of the `scores` above `threshold`.

    It is 0 where no more than `per_frame` are above it anyway.
    """
    falling = sorted(scores, reverse=True)
    allowed = int(per_frame * stills)
    cut = max(falling[allowed], threshold) if allowed < len(falling) else threshold
    return math.log(threshold / (1 - threshold)) - math.log(cut / (1 - cut))


def shifted(state: dict[str, Tensor], shift: float) -> dict[str, Tensor]:
    """Return a detector's `state` with `shift` added to the logits of all texts."""
    is_bias = re.compile(r"cls_contrasts\.\d+\.bias$").search
    return {name: value + shift if is_bias(name) else value for name, value in state.items()}

"""How good a classifier is: its logit of every crop, and the figures computed from them."""

import numpy as np
import torch
from torch import nn

from human_anomaly.configs.defaults import thresholds
from human_anomaly.data.dataset import Manifest, read_batches
from human_anomaly.utils import UsageError, sum_over_processes


@torch.no_grad()
def predict(
    model: nn.Module, loader, count: int, *, device: torch.device, precision: str = "fp32"
) -> np.ndarray:
    """Return the abnormal logits (count,) float64 of all crops, on every process.

    `loader` gives (images (B, 3, S, S), targets, rows (B,)). Raises RuntimeError unless the loaders
    of all processes together give each row of `range(count)` once, and UsageError for a logit that
    is not finite.
    """
    model.eval()
    logits = torch.zeros(count, dtype=torch.float64, device=device)
    seen = torch.zeros(count, dtype=torch.int64, device=device)
    for images, _, rows in read_batches(loader):
        rows = rows.to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            logits[rows] = model(images.to(device, non_blocking=True)).double()
        seen[rows] += 1
    sum_over_processes(logits)
    sum_over_processes(seen)
    if not bool((seen == 1).all()):
        raise RuntimeError(f"{int((seen != 1).sum())} crops were not judged exactly once")
    if not bool(torch.isfinite(logits).all()):
        row = int((~torch.isfinite(logits)).nonzero()[0])
        raise UsageError(f"the classifier's logit of crop {row + 1} is {logits[row].item()}")
    return logits.cpu().numpy()


def evaluate(config, model: nn.Module, crops: Manifest, loader, device: torch.device):
    """Return (logits, metrics) of all crops, at the threshold of their part (unknown: 0.5)."""
    logits = predict(model, loader, len(crops), device=device, precision=config.TRAIN.PRECISION)
    return logits, measure(crops.targets, logits, thresholds(config).get(crops.part, 0.5))


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Return p(abnormal) of logits, the sigmoid, without overflow."""
    return np.exp(-np.logaddexp(0.0, -logits))


def reliability(targets: np.ndarray, p: np.ndarray, bins: int = 10) -> list[dict]:
    """Return mean p, share of abnormal crops and count of each equally wide bin that has crops."""
    numbers = np.minimum((p * bins).astype(int), bins - 1)
    found = [(p[numbers == n], targets[numbers == n]) for n in np.unique(numbers)]
    return [{"p": float(q.mean()), "abnormal": float(t.mean()), "count": len(q)} for q, t in found]


def calibration_error(targets: np.ndarray, p: np.ndarray) -> float:
    """Return the expected calibration error: how far p is from the share of abnormal crops."""
    rows = reliability(targets, p)
    return sum(row["count"] * abs(row["p"] - row["abnormal"]) for row in rows) / len(p)


def best_threshold(targets: np.ndarray, p: np.ndarray) -> tuple[float, float]:
    """Return the threshold (p > threshold is called abnormal) with the highest F1, and that F1.

    The threshold lies half-way between two scores, so that rounding cannot move a score across it.
    """
    from sklearn.metrics import f1_score, precision_recall_curve

    precision, recall, cuts = precision_recall_curve(targets, p)
    total = np.maximum(precision + recall, 1e-12)
    best = int(np.argmax((2 * precision * recall / total)[: len(cuts)]))
    below = cuts[best - 1] if best else min(0.0, float(cuts[0]))
    threshold = float((cuts[best] + below) / 2)
    return threshold, float(f1_score(targets, p > threshold))


def measure(targets: np.ndarray, logits: np.ndarray, threshold: float) -> dict:
    """Return figures of `logits` (N,) against `targets` (N,), in which both 0 and 1 must occur.

    Abnormal (1) is the positive class, and a crop is flagged where p > `threshold`. Only
    `accuracy_at_half` uses p > 0.5, as the released logs do.
    """
    from sklearn import metrics

    p = probabilities(logits)
    flagged = (p > threshold).astype(np.int64)
    (tn, fp), (fn, tp) = metrics.confusion_matrix(targets, flagged, labels=[0, 1]).tolist()
    best, best_f1 = best_threshold(targets, p)
    return {
        "count": len(targets),
        "loss": float(np.mean(np.logaddexp(0.0, np.where(targets == 1, -logits, logits)))),
        "auroc": float(metrics.roc_auc_score(targets, p)),
        "average_precision": float(metrics.average_precision_score(targets, p)),
        "threshold": float(threshold),
        "accuracy": (tp + tn) / len(targets),
        "balanced_accuracy": (tp / (tp + fn) + tn / (tn + fp)) / 2,
        "f1": 2 * tp / max(2 * tp + fp + fn, 1),
        "confusion": {
            "normal_passed": tn,
            "normal_flagged": fp,
            "abnormal_passed": fn,
            "abnormal_flagged": tp,
        },
        "accuracy_at_half": float(np.mean((p > 0.5) == (targets == 1))),
        "calibration_error": calibration_error(targets, p),
        "best_f1": best_f1,
        "best_f1_threshold": best,
    }

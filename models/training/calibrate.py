"""Fitting a classifier's scores to its part's documented threshold.

A scale and a shift of the logit are folded into the last layer, so the file's layout and the
scoring rule stay as they are.
"""

import logging
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from human_anomaly.data.dataset import Manifest
from human_anomaly.models.checkpoint import CheckpointError, State, pick_state, read_checkpoint
from human_anomaly.models.training.metrics import measure
from human_anomaly.models.training.report import describe_origin
from human_anomaly.models.training.run_folder import save
from human_anomaly.utils import UsageError, rank

logger = logging.getLogger(__name__)

KEPT = ("epoch", "config", "abnormal_label")  # of a checkpoint, beside the weights
FEW = 10  # where fewer normal crops are flagged, their share is a guess


@dataclass(frozen=True)
class Calibration:
    """The new logit is `scale` times the old one plus `shift`."""

    scale: float
    shift: float

    def __call__(self, logits: np.ndarray) -> np.ndarray:
        return self.scale * logits + self.shift


def fit(
    targets: np.ndarray, logits: np.ndarray, threshold: float, false_flags: float | None = None
) -> Calibration:
    """Return the calibration of `logits` (N,) for `targets` (N,), 1 for abnormal.

    Logistic regression makes p the probability that such a crop is abnormal (Platt scaling). With
    `false_flags` its scale is kept, but the shift is chosen such that `threshold` flags this share
    of the normal crops. Raises UsageError where abnormal crops have no higher logits.
    """
    from sklearn.linear_model import LogisticRegression

    line = LogisticRegression().fit(logits[:, None], targets)
    scale, shift = float(line.coef_[0, 0]), float(line.intercept_[0])
    if scale <= 0:
        raise UsageError(
            "cannot calibrate: abnormal crops have no higher scores than normal ones. Causes, the "
            "likeliest first: too few epochs; a start from random weights (no --pretrained); the "
            "labels' polarity (--abnormal-label); crops of another part"
        )
    if false_flags is not None:
        normal = logits[targets == 0]
        if false_flags * len(normal) < FEW:
            logger.warning(
                f"--false-flags {false_flags:.3g} of {len(normal)} normal crops is less than {FEW} "
                "crops, so the share is not exact"
            )
        cut = float(np.quantile(normal, 1 - false_flags))
        shift = float(np.log(threshold / (1 - threshold))) - scale * cut
    return Calibration(scale, shift)


def fold(state: State, calibration: Calibration, abnormal_index: int, path: Path) -> State:
    """Return `state` with the calibration folded into its last layer.

    A two-logit head (the released layout) keeps both rows: both are scaled and the abnormal one is
    shifted, which scales and shifts their difference. Raises CheckpointError, which names `path`,
    where there is no head.
    """
    name = next((n for n in ("head.2", "head") if f"{n}.weight" in state), None)
    if name is None:
        raise CheckpointError(f"{path}: expected a classifier's weights with a head")
    # In double precision, and stored as float32 even if the file was float16: rounding must not
    # change the order of crops.
    weight, bias = (state[f"{name}.{kind}"].double() for kind in ("weight", "bias"))
    shift = bias.new_zeros(len(bias))
    shift[abnormal_index if len(bias) == 2 else 0] = calibration.shift
    folded = {
        f"{name}.weight": (weight * calibration.scale).float(),
        f"{name}.bias": (bias * calibration.scale + shift).float(),
    }
    return {**state, **folded}


def calibrate_file(
    source: Path,
    target: Path,
    crops: Manifest,
    logits: np.ndarray,
    *,
    threshold: float,
    false_flags: float | None,
    abnormal_index: int,
) -> tuple[np.ndarray, dict]:
    """Write `source` with calibrated weights to `target`; return the new logits and their figures.

    `logits` (N,) are those that `source` gives the crops.
    """
    calibration = fit(crops.targets, logits, threshold, false_flags)
    after = calibration(logits)
    before_figures, figures = (measure(crops.targets, x, threshold) for x in (logits, after))
    content = read_checkpoint(source)
    state = fold(pick_state(content, ("model",), source), calibration, abnormal_index, source)
    record = {
        **asdict(calibration),
        **describe_origin(source, crops),
        "crops": len(crops),
        "threshold": threshold,
        "false_flags": false_flags,
        "before": before_figures,
        "after": figures,
    }
    kept = {k: content[k] for k in KEPT if isinstance(content.get(k), (int, str))}
    # Cloned, because the file's tensors are mapped from disk.
    model = {k: v.clone() for k, v in state.items()}
    if rank() == 0:
        save(target, {**kept, "model": model, "metrics": figures, "calibration": record})
    logger.info(f"{target}: {tell(record)}")
    return after, figures


def tell(record: dict) -> str:
    """Return a checkpoint's "calibration" in words."""
    before, after = record["before"], record["after"]
    words = [
        f"{label} flagged {flagged(before, label):.1%}, now {flagged(after, label):.1%}"
        for label in ("normal", "abnormal")
    ]
    words += [
        f"{name} {before[key]:.3f}, now {after[key]:.3f}"
        for key, name in (("f1", "F1"), ("calibration_error", "calibration error"))
    ]
    return (
        f"calibrated on {record['crops']} crops of {record['val_path']}: logit x "
        f"{record['scale']:.4g} {record['shift']:+.4g}; at {record['threshold']:.4g} "
        f"{'; '.join(words)}"
    )


def flagged(figures: dict, label: str) -> float:
    """Return the share of "normal" or "abnormal" crops that are flagged in `measure`'s figures."""
    counts = figures["confusion"]
    return counts[f"{label}_flagged"] / (counts[f"{label}_flagged"] + counts[f"{label}_passed"])


def calibrated_path(checkpoint: Path) -> Path:
    """Return the default path of a checkpoint's calibrated copy, beside the checkpoint."""
    return checkpoint.with_suffix(".calibrated.pth")


def check_share(value: float | None) -> None:
    """Raise UsageError where --false-flags is not between 0 and 1."""
    if value is not None and not 0 < value < 1:
        raise UsageError(f"--false-flags: expected a share between 0 and 1, got {value}")

"""The report of a classifier on labelled crops: figures, curves, mistakes, every prediction."""

import csv
import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from human_anomaly.data.checks import ABNORMAL_COLOR, NORMAL_COLOR, draw_tiles
from human_anomaly.data.dataset import Manifest, read_image
from human_anomaly.models.training.metrics import calibration_error, probabilities, reliability
from human_anomaly.utils import UsageError, atomic_write, rank, read_jsonl, write_json

logger = logging.getLogger(__name__)


def describe_origin(checkpoint: Path, crops: Manifest) -> dict:
    """Return what a report is about: these keys are in its metrics.json."""
    return {
        "checkpoint": str(checkpoint),
        "val_path": str(crops.path),
        "part": crops.part,
        "abnormal_label": crops.abnormal_label,
    }


def check_report(folder: Path, checkpoint: Path, crops: Manifest, *, overwrite: bool) -> None:
    """Raise UsageError if `folder` holds a report of another checkpoint or of other crops."""
    path = folder / "metrics.json"
    if overwrite or not path.is_file():
        return
    found = json.loads(path.read_text(encoding="utf-8"))
    for key, value in describe_origin(checkpoint, crops).items():
        if found.get(key) != value:
            raise UsageError(
                f"--output: {folder} is a report of {key} {found.get(key)!r}, not {value!r}; "
                "choose another folder, or --overwrite"
            )


def save_report(
    run: Path,
    checkpoint: Path,
    crops: Manifest,
    logits: np.ndarray,
    metrics: dict,
    before: np.ndarray | None = None,
) -> None:
    """Write the report into the folder `run`, from process 0, with curves if the run made it."""
    path = run / "metrics.jsonl"
    is_own = checkpoint.resolve().parent == run.resolve() and path.is_file()
    if rank() == 0:
        history = read_jsonl(path) if is_own else []
        report = run / "report"
        write_report(report, checkpoint, crops, logits, metrics, history=history, before=before)


def write_report(
    folder: Path,
    checkpoint: Path,
    crops: Manifest,
    logits: np.ndarray,
    metrics: dict,
    *,
    history: Sequence[dict] = (),
    before: np.ndarray | None = None,
) -> None:
    """Write the report of `logits` (N,), which `checkpoint` gives `crops`, into `folder`.

    `metrics` is what `measure` returned. `history` are the rows of metrics.jsonl (none: no curves),
    `before` (N,) the logits before a calibration. metrics.json is written last: where it exists,
    the report is complete.
    """
    folder.mkdir(parents=True, exist_ok=True)
    targets, p = crops.targets, probabilities(logits)
    write_predictions(folder / "val_predictions.csv", crops, logits, metrics["threshold"])
    if any("val" in row for row in history):
        _save(plot_history(history), folder / "curves.png")
    _save(plot_roc_pr(targets, p, metrics), folder / "roc_pr.png")
    _save(plot_scores(targets, p, metrics), folder / "scores.png")
    curves = {"as it is": p} if before is None else {"before": probabilities(before), "after": p}
    _save(plot_calibration(targets, curves, metrics["threshold"]), folder / "calibration.png")
    (folder / "mistakes.jpg").unlink(missing_ok=True)
    wrong = worst_mistakes(targets, p, metrics["threshold"])
    if wrong:
        with atomic_write(folder / "mistakes.jpg", "wb") as file:
            draw_mistakes(crops, p, wrong).save(file, "JPEG", quality=90)
    origin = describe_origin(checkpoint, crops)
    write_json(folder / "metrics.json", {**origin, "metrics": metrics})
    logger.info(f"report: {folder}")


def write_predictions(path: Path, crops: Manifest, logits: np.ndarray, threshold: float) -> None:
    """Write one CSV row per crop, in the order of the JSONL."""
    p = probabilities(logits)
    flagged = (p > threshold).astype(int)
    correct = (flagged == crops.targets).astype(int)
    columns = (crops.names, crops.labels, crops.targets, p, logits, flagged, correct)
    with atomic_write(path) as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["file", "label", "abnormal", "p_abnormal", "logit", "flagged", "correct"])
        for *crop, score, logit, flag, right in zip(*columns, strict=True):
            table.writerow([*crop, f"{score:.6f}", f"{logit:.6f}", flag, right])


def worst_mistakes(
    targets: np.ndarray, p: np.ndarray, threshold: float, max_rows: int = 32
) -> list[int]:
    """Return the rows of the `max_rows` clearest mistakes, the clearest first."""
    # The distance from the threshold is divided by the greatest possible one on that side: with a
    # threshold of 0.3, p = 0 for an abnormal crop is as clear a mistake as p = 1 for a normal one.
    greatest = np.where(p > threshold, max(1 - threshold, 1e-9), max(threshold, 1e-9))
    distance = np.abs(p - threshold) / greatest
    wrong = np.flatnonzero((p > threshold) != (targets == 1))
    return wrong[np.argsort(-distance[wrong], kind="stable")][:max_rows].tolist()


def draw_mistakes(crops: Manifest, p: np.ndarray, rows: Sequence[int]):
    """Return an RGB sheet of the crops in `rows`: label, p(abnormal) and file name under each."""
    tiles = []
    for row in rows:
        truth = "ABNORMAL" if crops.targets[row] else "NORMAL"
        image = read_image(crops.image_path(row), crops.place(row))
        name = Path(crops.names[row]).name
        tiles.append((image, f"{truth}, p(abn) {p[row]:.3f}\n{name}"))
    return draw_tiles(tiles, columns=min(8, len(tiles)))


def _figure(columns: int, width: float = 5.0):
    from matplotlib.figure import Figure  # without pyplot: no display, no global state

    figure = Figure(figsize=(width * columns, 4.0), layout="constrained")
    axes = figure.subplots(1, columns, squeeze=False)[0]
    for one in axes:
        one.grid(alpha=0.3)
    return figure, axes


def _save(figure, path: Path) -> None:
    with atomic_write(path, "wb") as file:
        figure.savefig(file, format="png", dpi=110)


def plot_history(history: Sequence[dict]):
    """Return the figure of loss and metrics by epoch; `history` is the rows of metrics.jsonl."""
    figure, (left, right) = _figure(2)
    steps = [row for row in history if "step" in row]
    epochs = [row for row in history if "val" in row]
    x = [row["epoch"] + 1 for row in epochs]
    if steps:
        at = [row["at"] for row in steps]
        left.plot(at, [row["loss"] for row in steps], color="0.8", lw=0.8, label="training step")
    left.plot(x, [row["train_loss"] for row in epochs], ".-", label="training, mean of the epoch")
    left.plot(x, [row["val"]["loss"] for row in epochs], ".-", label="validation")
    left.set(xlabel="epochs", ylabel="loss", title="Loss (training: mixed and smoothed)")
    left.legend()
    for label in ("AUROC", "average precision", "accuracy", "balanced accuracy", "F1"):
        values = [row["val"][label.lower().replace(" ", "_")] for row in epochs]
        style = ".--" if label == "balanced accuracy" else ".-"  # often the same as accuracy
        right.plot(x, values, style, label=label)
    threshold = epochs[-1]["val"]["threshold"]
    right.set(xlabel="epochs", ylim=(0, 1.02), title=f"Validation at threshold {threshold:.4g}")
    right.legend(loc="lower right")
    return figure


def plot_roc_pr(targets: np.ndarray, p: np.ndarray, metrics: dict):
    """Return the figure of the ROC and precision-recall curves.

    It marks the threshold in use and the one with the best F1.
    """
    from sklearn.metrics import precision_recall_curve, roc_curve

    figure, (left, right) = _figure(2)
    false_rate, true_rate, _ = roc_curve(targets, p)
    precision, recall, _ = precision_recall_curve(targets, p)
    left.plot(false_rate, true_rate)
    left.plot([0, 1], [0, 1], ":", color="0.6")
    left.set(xlabel="normal crops flagged", ylabel="abnormal crops found")
    left.set_title(f"ROC, area {metrics['auroc']:.3f}")
    right.plot(recall, precision)
    right.axhline(targets.mean(), ls=":", color="0.6")
    right.set(xlabel="recall", ylabel="precision", ylim=(0, 1.02))
    right.set_title(f"Precision and recall, average precision {metrics['average_precision']:.3f}")
    marks = (("in use", metrics["threshold"], "o"), ("best F1", metrics["best_f1_threshold"], "s"))
    for name, threshold, marker in marks:
        flagged, positive = p > threshold, targets == 1
        found, alarms = flagged[positive].mean(), flagged[~positive].mean()
        label = f"{name}: p > {threshold:.3g}"
        left.plot(alarms, found, marker, ms=8, mfc="none", mew=1.8, label=label)
        if flagged.any():
            right.plot(found, positive[flagged].mean(), marker, ms=8, mfc="none", mew=1.8)
    left.legend(loc="lower right")
    return figure


def plot_scores(targets: np.ndarray, p: np.ndarray, metrics: dict):
    """Return the figure of p(abnormal) by label, as histograms."""
    figure, (axes,) = _figure(1, 7.0)
    bins = np.linspace(0, 1, 41)
    for target, name, color in ((0, "normal", NORMAL_COLOR), (1, "abnormal", ABNORMAL_COLOR)):
        scores = p[targets == target]
        axes.hist(scores, bins, alpha=0.55, color=color, label=f"{name} ({len(scores)})")
    axes.axvline(metrics["threshold"], color="black", label=f"threshold {metrics['threshold']:.4g}")
    best = metrics["best_f1_threshold"]
    axes.axvline(best, color="black", ls=":", label=f"best F1 at {best:.3g}")
    axes.set(xlabel="p(abnormal)", ylabel="crops", title="Scores by label")
    axes.legend()
    return figure


def plot_calibration(targets: np.ndarray, curves: dict[str, np.ndarray], threshold: float):
    """Return the figure of reliability, and of false flags and hits by threshold.

    `curves` maps names to p (N,): one, or those before and after calibration.
    """
    figure, (left, right) = _figure(2)
    left.plot([0, 1], [0, 1], ":", color="0.6")
    cuts = np.linspace(0, 1, 501)
    normal, abnormal = targets == 0, targets == 1
    for name, p in curves.items():
        rows = reliability(targets, p)
        label = f"{name}: calibration error {calibration_error(targets, p):.3f}"
        left.plot([r["p"] for r in rows], [r["abnormal"] for r in rows], ".-", label=label)
        shares = [[(p[kind] > cut).mean() for cut in cuts] for kind in (normal, abnormal)]
        (line,) = right.plot(cuts, shares[0], label=f"{name}: normal crops flagged")
        right.plot(cuts, shares[1], "--", color=line.get_color(), label=f"{name}: abnormal ones")
    right.axvline(threshold, color="black", lw=0.8, label=f"threshold {threshold:.4g}")
    left.set(xlabel="p(abnormal), mean of a bin", ylabel="share of abnormal crops")
    left.set_title("Reliability")
    right.set(xlabel="threshold", ylabel="share of crops", title="False flags and hits")
    for axes in (left, right):
        axes.legend(fontsize="small")
    return figure

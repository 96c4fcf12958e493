"""The figures of the training report: SVG paths in a box 100 x 100 that the page stretches.

The page writes names and ticks as text beside the box, so they keep their size in a narrow window.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from human_anomaly.models.report.facts import histogram_path
from human_anomaly.models.training.metrics import calibration_error, reliability

SHARES = np.linspace(0, 1, 6)
MOST = 400  # points of a line
Line = tuple[str, str, Sequence[float], Sequence[float]]  # name, class in page.css, xs, ys


def _figure(
    title: str,
    x: str,
    y: str,
    lines: Sequence[Line],
    x_ticks: Sequence[float] = SHARES,
    y_ticks: Sequence[float] = SHARES,
) -> dict:
    """Return the figure as the page's template reads it; `x` and `y` name its axes.

    Each line has a path and a dot for each of its points; the template draws one or both.
    """
    drawn = []
    for name, style, xs, ys in lines:
        kept = np.linspace(0, len(xs) - 1, min(len(xs), MOST)).astype(int)
        points = _along(xs, x_ticks)[kept], 100 - _along(ys, y_ticks)[kept]
        places = [f"{x:.2f} {y:.2f}" for x, y in zip(*points, strict=True)]
        dots = "".join(f"M{place}h0" for place in places)
        drawn.append({"name": name, "style": style, "path": f"M{'L'.join(places)}", "dots": dots})
    ticks = {
        name: list(zip(_along(at, at).tolist(), [f"{tick:.4g}" for tick in at], strict=True))
        for name, at in (("x_ticks", x_ticks), ("y_ticks", y_ticks))
    }
    return {"title": title, "x": x, "y": y, "lines": drawn, **ticks}


def _along(values: Sequence[float], ticks: Sequence[float]) -> np.ndarray:
    """Return where the values lie on an axis from the first to the last tick, in percent."""
    return 100 * (np.asarray(values, float) - ticks[0]) / (ticks[-1] - ticks[0])


def _ticks(low: float, high: float, least: float = 0.0) -> np.ndarray:
    """Return about five round numbers, at least `least` apart, from below `low` to above `high`."""
    wanted = max((high - low) / 5, least)
    power = 10.0 ** math.floor(math.log10(wanted))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= 0.999 * wanted)
    first, last = math.floor(round(low / step, 6)), math.ceil(round(high / step, 6))
    return np.arange(first, last + 1) * step


def plot_epochs(epochs: Sequence[Mapping]) -> list[dict]:
    """Return the figures of loss and metrics by epoch; `epochs` as `list_epochs` returns them."""
    if not epochs:
        return []
    best = next(row["epoch"] for row in epochs if "best" in row["what"])
    x = [row["epoch"] for row in epochs]
    x_ticks = _ticks(0, max(1, *x), 1)
    losses = {
        "training (crops mixed, labels smoothed)": [row["train_loss"] for row in epochs],
        "validation": [row["val"]["loss"] for row in epochs],
    }
    highest = max(1e-6, *(value for values in losses.values() for value in values))
    names = ("AUROC", "average precision", "F1", "balanced accuracy")
    shares = {n: [row["val"][n.lower().replace(" ", "_")] for row in epochs] for n in names}
    y_ticks = _ticks(min(0.9, *(v for values in shares.values() for v in values)), 1)
    mark = (f"best AUROC: epoch {best}", "rule", [best, best], [y_ticks[0], y_ticks[-1]])

    def lines(found: Mapping[str, list]) -> list[Line]:
        styles = ("a dotted", "b dotted", "c dotted", "d dotted dashed")
        return [(n, s, x, found[n]) for n, s in zip(found, styles, strict=False)]

    axis = "epoch, numbered as in ckptN.pth"
    return [
        _figure("Loss", axis, "loss", lines(losses), x_ticks, _ticks(0, highest)),
        _figure("Validation", axis, "share", [*lines(shares), mark], x_ticks, y_ticks),
    ]


def plot_ranking(targets: np.ndarray, p: np.ndarray, metrics: Mapping) -> list[dict]:
    """Return the figures of the ROC and precision-recall curves.

    They mark the threshold in use and the one with the best F1.
    """
    from sklearn.metrics import precision_recall_curve, roc_curve

    false_rate, true_rate, _ = roc_curve(targets, p)
    precision, recall, _ = precision_recall_curve(targets, p, drop_intermediate=True)
    share = float(targets.mean())
    roc = [("", "a", false_rate, true_rate), ("chance", "rule", [0, 1], [0, 1])]
    pr = [("", "a", recall, precision), ("chance", "rule", [0, 1], [share, share])]
    marks = (("in use", metrics["threshold"], "b"), ("best F1", metrics["best_f1_threshold"], "c"))
    for name, threshold, style in marks:
        flagged, positive = p > threshold, targets == 1
        found, alarms = flagged[positive].mean(), flagged[~positive].mean()
        name = f"{name}: p > {threshold:.3g}"
        roc.append((name, f"{style} mark", [alarms], [found]))
        if flagged.any():
            pr.append((name, f"{style} mark", [found], [positive[flagged].mean()]))
    found = "abnormal crops found"
    return [
        _figure(f"ROC, area {metrics['auroc']:.3f}", "normal crops flagged", found, roc),
        _figure(
            f"Precision and recall, average precision {metrics['average_precision']:.3f}",
            f"recall: {found}",
            "precision: flagged crops that are abnormal",
            pr,
        ),
    ]


def plot_calibration(
    targets: np.ndarray, curves: Mapping[str, np.ndarray], threshold: float
) -> list[dict]:
    """Return the figures of reliability, and of false flags and hits by threshold.

    `curves` maps names to p (N,): one, or those before and after calibration.
    """
    cuts = np.linspace(0, 1, 201)
    bins, flags = [("as it should be", "rule", [0, 1], [0, 1])], []
    for name, p in curves.items():
        dashed = " dashed" if name.startswith("before") else ""
        rows = reliability(targets, p)
        words = f"{name}calibration error {calibration_error(targets, p):.3f}"
        xs, ys = [row["p"] for row in rows], [row["abnormal"] for row in rows]
        bins.append((words, f"a dotted{dashed}", xs, ys))
        for target, words, style in ((0, "normal crops flagged", "a"), (1, "abnormal found", "b")):
            shares = [(p[targets == target] > cut).mean() for cut in cuts]
            flags.append((f"{name}{words}", f"{style}{dashed}", cuts, shares))
    flags.append((f"threshold {threshold:.4g}", "rule", [threshold] * 2, [0, 1]))
    return [
        _figure("Reliability", "p(abnormal), mean of a bin", "share of abnormal crops", bins),
        _figure("False flags and hits", "threshold", "share of crops", flags),
    ]


def plot_scores(targets: np.ndarray, p: np.ndarray, threshold: float) -> list[dict]:
    """Return the histograms of p by class, as the page's template reads them."""
    return [
        {
            "part": name,
            "threshold": threshold,
            "judged": int((targets == target).sum()),
            "above": int((p[targets == target] > threshold).sum()),
            "bars": histogram_path(p[targets == target]),
        }
        for target, name in enumerate(("normal", "abnormal"))
    ]

"""The figures of a classifier, against counts made by hand and scikit-learn's own."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from drawn_crops import write_crops
from torch import nn

from human_anomaly.data.dataset import read_manifest
from human_anomaly.models.training.metrics import best_threshold, measure, predict, probabilities
from human_anomaly.models.training.report import check_report, worst_mistakes, write_report
from human_anomaly.utils import UsageError


def logit(p):
    p = np.asarray(p, dtype=np.float64)
    return np.log(p / (1 - p))


TARGETS = np.array([0, 0, 0, 1, 1, 1, 1, 0])
P = np.array([0.1, 0.2, 0.35, 0.3, 0.4, 0.8, 0.9, 0.6])


def test_figures_by_hand():
    """At 0.32: flagged are 0.35n 0.4a 0.8a 0.9a 0.6n; passed 0.1n 0.2n 0.3a."""
    metrics = measure(TARGETS, logit(P), 0.32)
    assert metrics["confusion"] == {
        "normal_passed": 2,
        "normal_flagged": 2,
        "abnormal_passed": 1,
        "abnormal_flagged": 3,
    }
    assert metrics["accuracy"] == 5 / 8
    assert metrics["balanced_accuracy"] == (3 / 4 + 2 / 4) / 2
    assert metrics["f1"] == pytest.approx(6 / 9)
    # Of the 16 pairs, 0.3a is below 0.35n and 0.6n, and 0.4a below 0.6n.
    assert metrics["auroc"] == pytest.approx(13 / 16)
    # Ranks of the abnormal: 1, 2, 4, 6.
    assert metrics["average_precision"] == pytest.approx((1 + 1 + 3 / 4 + 4 / 6) / 4)
    assert metrics["accuracy_at_half"] == 5 / 8
    expected = -np.mean(np.log(np.where(TARGETS == 1, P, 1 - P)))
    assert metrics["loss"] == pytest.approx(expected)
    json.dumps(metrics, allow_nan=False)


def test_threshold_is_exclusive():
    """A crop is abnormal when its p is above the threshold, not at it."""
    metrics = measure(np.array([0, 1]), np.array([0.0, 3.0]), 0.5)
    assert metrics["confusion"]["normal_flagged"] == 0


def test_best_threshold():
    """Flagging from 0.3 up gives 4 of 4 abnormal and 2 normal: F1 = 8 / 10, the highest."""
    threshold, f1 = best_threshold(TARGETS, P)
    assert threshold == pytest.approx(0.25) and f1 == pytest.approx(0.8)
    best = max(
        2 * np.sum((t < P) & (TARGETS == 1)) / (np.sum(t < P) + np.sum(TARGETS == 1))
        for t in np.linspace(0, 0.99, 397)
    )
    assert f1 == pytest.approx(best)


@pytest.mark.parametrize("p", [[0.5, 0.5], [0.1, 0.9], [0.9, 0.1]])
def test_best_threshold_of_ties_and_extremes(p):
    targets = np.array([0, 1])
    threshold, f1 = best_threshold(targets, np.array(p))
    flagged = np.array(p) > threshold
    assert f1 == 2 * (flagged & (targets == 1)).sum() / (flagged.sum() + 1)


def test_probabilities_do_not_overflow():
    assert probabilities(np.array([-1e4, 0.0, 1e4])).tolist() == [0.0, 0.5, 1.0]


class Echo(nn.Module):
    def forward(self, images):
        return images.flatten()


def loader(rows, values):
    return [(torch.tensor([values[r]]), torch.zeros(1), torch.tensor([r])) for r in rows]


def test_predict_puts_every_logit_at_its_row():
    values = [0.5, -1.5, 2.0]
    found = predict(Echo(), loader([2, 0, 1], values), 3, device=torch.device("cpu"))
    assert found.tolist() == values


def test_predict_refuses_duplicates_gaps_and_nan():
    cpu = torch.device("cpu")
    with pytest.raises(RuntimeError, match="1 crops were not judged exactly once"):
        predict(Echo(), loader([0, 1], [1.0, 2.0]), 3, device=cpu)
    with pytest.raises(RuntimeError, match="1 crops"):
        predict(Echo(), loader([0, 1, 1], [1.0, 2.0]), 2, device=cpu)
    with pytest.raises(UsageError, match="logit of crop 2 is nan"):
        predict(Echo(), loader([0, 1], [1.0, float("nan")]), 2, device=cpu)


def test_worst_mistakes_come_first():
    """Wrong at 0.32 are 0.35n, 0.3a and 0.6n; relative to the room on each side 0.6n is worst."""
    names = [f"{i}.png" for i in range(8)]
    assert worst_mistakes(names, TARGETS, P, 0.32) == [7, 3, 2]
    assert worst_mistakes(names, TARGETS, P, 0.32, most=1) == [7, 3]  # a normal and an abnormal one
    assert worst_mistakes(names, np.array([0, 1]), np.array([0.1, 0.9]), 0.5) == []


def test_report_files(tmp_path):
    manifest = read_manifest(write_crops(tmp_path, "hand_test", 8, size=24), abnormal_label="0")
    targets = manifest.targets  # of labels 0 1 0 1 ...: 1 0 1 0 ...
    assert targets.tolist() == [1, 0] * 4
    logits = np.where(targets == 1, 2.0, -2.0)
    logits[3] = 1.0  # one normal crop is called abnormal
    metrics = measure(targets, logits, 0.5)
    row = {"epoch": 0, "train_loss": 0.7, "val": metrics}
    step = {"epoch": 0, "step": 0, "at": 0.5, "loss": 0.7}
    folder = tmp_path / "report"
    write_report(folder, Path("a.pth"), manifest, logits, metrics, history=[step, row])
    assert sorted(path.name for path in folder.iterdir()) == [
        "index.html",
        "index.js",
        "metrics.json",
        "mistakes",
        "page.css",
        "val_predictions.csv",
    ]
    assert json.loads((folder / "metrics.json").read_text()) == {
        "checkpoint": "a.pth",
        "val_path": str(manifest.path),
        "part": "hand",
        "abnormal_label": 0,
        "metrics": metrics,
    }
    with (folder / "val_predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows[3] == {
        "file": "hand_test_0003.png",
        "label": "1",
        "abnormal": "0",
        "p_abnormal": "0.731059",
        "logit": "1.000000",
        "flagged": "1",
        "correct": "0",
    }
    assert [r["correct"] for r in rows].count("1") == 7


def test_report_of_something_else(tmp_path):
    crops = read_manifest(write_crops(tmp_path, "hand_test", 2, size=24))
    (tmp_path / "metrics.json").write_text('{"checkpoint": "a.pth", "metrics": {}}')
    check_report(tmp_path, Path("b.pth"), crops, overwrite=True)
    with pytest.raises(UsageError, match=r"report of checkpoint 'a\.pth', not 'b\.pth'"):
        check_report(tmp_path, Path("b.pth"), crops, overwrite=False)
    logits = np.array([-1.0, 1.0])
    metrics = measure(crops.targets, logits, 0.5)
    with pytest.raises(UsageError, match=r"report of val_path None, not .*hand_test\.jsonl"):
        check_report(tmp_path, Path("a.pth"), crops, overwrite=False)
    write_report(tmp_path, Path("a.pth"), crops, logits, metrics)
    check_report(tmp_path, Path("a.pth"), crops, overwrite=False)

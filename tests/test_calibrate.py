"""Calibration: what it fits, what it folds into which file, and what the user is told."""

import json

import numpy as np
import pytest
import torch
import yaml
from drawn_crops import write_crops
from finetune_runs import SMALL
from sklearn.metrics import roc_auc_score

from human_anomaly import main_finetune
from human_anomaly.configs.defaults import get_config
from human_anomaly.data.dataset import read_manifest
from human_anomaly.models.checkpoint import CheckpointError
from human_anomaly.models.classifier import AnomalyClassifier, load_classifier, shape_of
from human_anomaly.models.training import recipe
from human_anomaly.models.training.calibrate import Calibration, fit, fold
from human_anomaly.models.training.metrics import calibration_error, measure, predict, reliability
from human_anomaly.tools import calibrate as calibrate_command
from human_anomaly.utils import UsageError

HAND = 0.32


def rare_abnormal(count: int, seed: int):
    """Return targets, 4% of them abnormal, and logits so low that p never reaches 0.32."""
    rng = np.random.default_rng(seed)
    targets = (np.arange(count) % 25 == 0).astype(int)
    return targets, np.where(targets, -1.35, -3.3) + rng.normal(0, 0.45, count) * (1 + targets) / 2


def test_a_threshold_that_flags_nobody_is_mended():
    targets, logits = rare_abnormal(1130, 0)
    before = measure(targets, logits, HAND)
    assert before["auroc"] > 0.99 and before["f1"] < 0.2 and before["best_f1"] > 0.85
    calibration = fit(targets, logits, HAND)
    other_targets, other = rare_abnormal(1130, 1)
    after = measure(other_targets, calibration(other), HAND)
    assert after["f1"] > after["best_f1"] - 0.03
    assert after["calibration_error"] < 0.02
    assert after["auroc"] == measure(other_targets, other, HAND)["auroc"]


@pytest.mark.parametrize("share", [0.02, 0.05, 0.2])
def test_the_wanted_share_of_normal_crops_is_flagged(share):
    targets, logits = rare_abnormal(4000, 2)
    calibration = fit(targets, logits, HAND, share)
    for seed in (2, 3):  # the crops that it was fitted on, and others
        targets, logits = rare_abnormal(4000, seed)
        counts = measure(targets, calibration(logits), HAND)["confusion"]
        found = counts["normal_flagged"] / (counts["normal_flagged"] + counts["normal_passed"])
        assert found == pytest.approx(share, abs=0.02)


def test_a_share_of_few_crops_is_a_guess_and_wrong_labels_are_an_error(caplog):
    targets, logits = rare_abnormal(100, 0)
    fit(targets, logits, HAND, 0.05)
    assert "--false-flags 0.05 of 96 normal crops is less than 10 crops" in caplog.text
    with pytest.raises(UsageError, match=r"too few epochs; .*--pretrained.*--abnormal-label"):
        fit(1 - targets, logits, HAND)


def test_bins_and_their_error():
    targets, p = np.array([0, 1, 1, 0]), np.array([0.05, 0.07, 1.0, 0.32])
    assert [row["count"] for row in reliability(targets, p)] == [2, 1, 1]
    # |0.06 - 0.5| of two, |0.32 - 0| of one, and none of the last
    assert calibration_error(targets, p) == pytest.approx((2 * 0.44 + 0.32) / 4)


CASES = {"linear": (0, 1), "hidden": (8, 1), "released": (0, 2)}


def write_file(path, hidden: int, logits: int):
    """Write a random small classifier, or the same with the released two-logit head."""
    config = get_config(None, ["MODEL.HEAD_HIDDEN", str(hidden), *OPTS])
    torch.manual_seed(0)
    state = AnomalyClassifier(**shape_of(config)).state_dict()
    name = "head.2" if hidden else "head"
    state[f"{name}.weight"] = torch.randn(logits, state[f"{name}.weight"].shape[1]) * 3
    state[f"{name}.bias"] = torch.randn(logits)
    torch.save({"model": state, "epoch": 29, "config": {"not": "text"}}, path)
    return config


OPTS = [
    *("DATA.IMG_SIZE", "16", "DATA.NUM_WORKERS", "0", "MODEL.VIT.PATCH_SIZE", "8"),
    *("MODEL.VIT.EMBED_DIM", "16", "MODEL.VIT.DEPTH", "1", "MODEL.VIT.NUM_HEADS", "2"),
]


@pytest.fixture(scope="module")
def crops(tmp_path_factory):
    folder = tmp_path_factory.mktemp("crops")
    return [write_crops(folder, f"hand_{n}", 400, seed=i, size=16) for i, n in enumerate("ab")]


def logits_of(path, config, jsonl, **labels):
    crops = read_manifest(jsonl, **labels)
    model = load_classifier(path, config, "cpu")
    loader = recipe.load_val(config, crops)
    return crops.targets, predict(model, loader, len(crops), device=torch.device("cpu"))


@pytest.mark.parametrize("case", CASES)
def test_a_file_of_each_layout_is_calibrated(case, crops, tmp_path):
    hidden, logits = CASES[case]
    source, target = tmp_path / "ckpt29.pth", tmp_path / "new.pth"
    config = write_file(source, hidden, logits)
    content = source.read_bytes()
    targets, before = logits_of(source, config, crops[0])
    label = "1" if roc_auc_score(targets, before) > 0.5 else "0"
    command = [
        *(str(source), "--val-path", str(crops[0]), "--false-flags", "0.1"),
        *("--abnormal-label", label, "--output", str(target)),
        *("--opts", *OPTS, "MODEL.HEAD_HIDDEN", str(hidden)),
    ]
    assert calibrate_command.main(command) == 0
    assert source.read_bytes() == content
    saved = torch.load(target, weights_only=True)
    assert saved["epoch"] == 29 and "config" not in saved
    assert {k: v.shape for k, v in saved["model"].items()} == {
        k: v.shape for k, v in torch.load(source, weights_only=True)["model"].items()
    }
    for jsonl, tolerance in zip(crops, (0.006, 0.06), strict=True):
        targets, after = logits_of(target, config, jsonl, abnormal_label=label)
        flagged = (after > np.log(HAND / (1 - HAND)))[targets == 0]
        assert flagged.mean() == pytest.approx(0.1, abs=tolerance)
        _, before = logits_of(source, config, jsonl)
        assert roc_auc_score(targets, after) == pytest.approx(
            roc_auc_score(targets, before), abs=1e-6
        )
        record = saved["calibration"]
        np.testing.assert_allclose(
            after, record["scale"] * before + record["shift"], rtol=1e-4, atol=1e-4
        )
    report = tmp_path / "new.report"
    assert {"index.html", "metrics.json"} <= {path.name for path in report.iterdir()}


def test_which_logit_is_shifted():
    state = {"head.weight": torch.ones(2, 3), "head.bias": torch.tensor([1.0, 2.0])}
    folded = fold(state, Calibration(2.0, 5.0), 1, "a.pth")
    assert folded["head.bias"].tolist() == [2.0, 9.0]
    assert folded["head.weight"].tolist() == [[2.0] * 3] * 2
    with pytest.raises(CheckpointError, match=r"a\.pth: expected a classifier's weights"):
        fold({"x": torch.ones(1)}, Calibration(1.0, 0.0), 0, "a.pth")


@pytest.mark.parametrize(
    ("case", "flags", "message"),
    [
        ("released", [], "--output: expected a name for the calibrated copy"),
        ("linear", ["--output", "ckpt29.pth"], "--output: expected another file"),
        ("linear", ["--output", "old.pth"], r"old\.pth exists"),
        ("linear", ["--false-flags", "5"], "--false-flags: expected a share between 0 and 1"),
    ],
)
def test_nothing_is_replaced_unasked(case, flags, message, crops, tmp_path, monkeypatch):
    write_file(tmp_path / "ckpt29.pth", *CASES[case])
    (tmp_path / "old.pth").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=message):
        calibrate_command.main(["ckpt29.pth", "--val-path", str(crops[0]), *flags, "--opts", *OPTS])


def test_training_calibrates_and_eval_tells(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    train, test = (write_crops(tmp_path, f"hand_{n}", 64, size=24) for n in ("train", "test"))
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(SMALL))
    run = tmp_path / "run"
    command = [
        *("--cfg", str(tmp_path / "small.yaml"), "--output", str(run), "--val-path", str(test)),
        *("--train-path", str(train), "--opts", "TRAIN.EPOCHS", "6", "TRAIN.BASE_LR", "0.02"),
    ]
    assert main_finetune.main(command) == 0  # first without, then go on with it
    assert not (run / "ckpt5.calibrated.pth").exists()
    assert main_finetune.main([*command, "--calibrate", "--false-flags", "0.25"]) == 0
    saved = torch.load(run / "ckpt5.calibrated.pth", weights_only=True)
    counts = saved["metrics"]["confusion"]
    assert counts["normal_flagged"] == pytest.approx(8, abs=1)
    report = json.loads((run / "report" / "metrics.json").read_text())
    assert report["checkpoint"].endswith("ckpt5.calibrated.pth")
    again = ["--eval", "--resume", str(run / "ckpt5.calibrated.pth"), "--overwrite"]
    capsys.readouterr()
    assert main_finetune.main([*command, *again]) == 0
    told = capsys.readouterr().err
    assert "calibrated on 64 crops of" in told and "normal flagged" in told
    with pytest.raises(UsageError, match="--false-flags: expected --calibrate"):
        main_finetune.main([*command, "--false-flags", "0.25"])
    # The command knows the run's settings without --cfg.
    again = [str(run / "ckpt5.pth"), "--val-path", str(test), "--output", str(run / "again.pth")]
    assert calibrate_command.main([*again, "--false-flags", "0.25"]) == 0
    again = torch.load(run / "again.pth", weights_only=True)
    assert again["metrics"]["confusion"] == counts


def test_a_poor_model_gets_its_report_then_the_advice(tmp_path, monkeypatch):
    """The test list's labels are the wrong way round."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    train = write_crops(tmp_path, "hand_train", 64, size=24)
    test = write_crops(tmp_path, "hand_test", 64, size=24, abnormal_label=0)
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(SMALL))
    command = [
        *("--cfg", str(tmp_path / "small.yaml"), "--output", str(tmp_path / "run")),
        *("--train-path", str(train), "--val-path", str(test), "--calibrate"),
        *("--opts", "TRAIN.EPOCHS", "6", "TRAIN.BASE_LR", "0.02"),
    ]
    for _ in range(2):  # and again, when all epochs are trained
        with pytest.raises(UsageError, match=r"cannot calibrate: .*epochs.*random.*polarity"):
            main_finetune.main(command)
        report = json.loads((tmp_path / "run/report/metrics.json").read_text())
        assert report["metrics"]["auroc"] < 0.5 and report["checkpoint"].endswith("ckpt5.pth")
        assert not (tmp_path / "run/ckpt5.calibrated.pth").exists()

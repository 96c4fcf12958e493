"""best.pth, the epoch of the best validation AUROC: beside the last, over kills and damage."""

import json

import pytest
import torch
from finetune_runs import finetune, same_weights, state

from human_anomaly import main_finetune
from human_anomaly.models.training import run_folder
from human_anomaly.utils import UsageError, read_jsonl

EPOCHS = ("--opts", "TRAIN.EPOCHS", "4")


@pytest.fixture
def measured(monkeypatch):
    """Return a function: the AUROC of the epochs to come; after the last one, measuring fails."""
    evaluate = main_finetune.evaluate

    def say(*aurocs):
        left = list(aurocs)

        def fake(*args):
            if not left:
                raise UsageError("cut off")
            logits, metrics = evaluate(*args)
            return logits, metrics | {"auroc": left.pop(0)}

        monkeypatch.setattr(main_finetune, "evaluate", fake)

    return say


def best(run):
    content = state(run / "best.pth")
    return content["epoch"], content["metrics"]["auroc"]


def test_the_best_epoch_is_kept_and_told(data, tmp_path, measured):
    measured(0.6, 0.9, 0.7, 0.9)  # of two equal ones, the earlier
    run = finetune(data, tmp_path / "run", *EPOCHS)
    assert best(run) == (1, 0.9)
    assert same_weights(run / "best.pth", run / "ckpt1.pth")
    assert not same_weights(run / "best.pth", run / "last.pth")
    content = state(run / "best.pth")
    assert "optimizer" not in content and content["config"] == (run / "config.yaml").read_text()
    epochs = [row for row in read_jsonl(run / "metrics.jsonl") if "val" in row]
    assert [row["best_epoch"] for row in epochs] == [0, 1, 1, 1]
    log = (run / "log.txt").read_text()
    assert f"last epoch: {run}/ckpt3.pth, AUROC 0.9000" in log
    assert f"best epoch: {run}/best.pth, epoch 1, AUROC 0.9000" in log
    report = json.loads((run / "report" / "metrics.json").read_text())
    assert report["checkpoint"].endswith("ckpt3.pth")  # the published recipe takes the last


def test_eval_takes_either(data, finished, tmp_path, capsys):
    for name in ("best.pth", "last.pth"):
        capsys.readouterr()
        finetune(data, tmp_path / name, "--eval", "--resume", str(finished / name))
        printed, saved = json.loads(capsys.readouterr().out), state(finished / name)["metrics"]
        assert printed.pop("confusion") == saved.pop("confusion")
        assert printed == pytest.approx(saved)


def test_a_run_that_was_cut_off_knows_its_best(data, tmp_path, measured):
    measured(0.6, 0.9)
    with pytest.raises(UsageError, match="cut off"):
        finetune(data, tmp_path, *EPOCHS)
    measured(0.7, 0.8)
    finetune(data, tmp_path, *EPOCHS)
    assert best(tmp_path) == (1, 0.9)
    assert "best AUROC 0.9000 in epoch 1" in (tmp_path / "log.txt").read_text().split("epoch 3:")[1]


def test_cut_off_between_last_and_best(data, tmp_path, measured, monkeypatch):
    """The better epoch is in last.pth alone: the next run writes best.pth from it."""
    measured(0.6, 0.9)
    save = run_folder.save

    def stop_at_best(path, content):
        if path.name == "best.pth" and content["epoch"] == 1:
            raise UsageError("cut off")
        save(path, content)

    monkeypatch.setattr(run_folder, "save", stop_at_best)
    with pytest.raises(UsageError, match="cut off"):
        finetune(data, tmp_path, *EPOCHS)
    assert best(tmp_path) == (0, 0.6)
    monkeypatch.setattr(run_folder, "save", save)
    measured(0.7, 0.8)
    finetune(data, tmp_path, *EPOCHS)
    assert best(tmp_path) == (1, 0.9)
    assert same_weights(tmp_path / "best.pth", tmp_path / "ckpt1.pth")


def test_a_best_epoch_that_damage_threw_back_stays(data, tmp_path, measured):
    """last.pth of epoch 2 is damaged, and epoch 2 is trained again, with less luck."""
    measured(0.6, 0.7, 0.9)
    with pytest.raises(UsageError, match="cut off"):
        finetune(data, tmp_path, *EPOCHS)
    weights = state(tmp_path / "best.pth")["model"]
    for name in ("last.pth", "ckpt2.pth"):
        (tmp_path / name).write_bytes(b"PK")
    measured(0.8, 0.85)
    finetune(data, tmp_path, *EPOCHS)
    assert best(tmp_path) == (2, 0.9)
    assert torch.equal(state(tmp_path / "best.pth")["model"]["head.weight"], weights["head.weight"])


def test_a_run_that_goes_on_elsewhere_has_a_best_of_its_own(data, tmp_path, measured):
    measured(0.6, 0.9)
    with pytest.raises(UsageError, match="cut off"):
        finetune(data, tmp_path / "a", *EPOCHS)
    measured(0.7, 0.8)
    run = finetune(data, tmp_path / "b", "--resume", str(tmp_path / "a" / "last.pth"), *EPOCHS)
    assert best(run) == (3, 0.8)
    other = finetune(data, run, "--overwrite", "--seed", "3", "--dry-run")
    assert best(other) == (3, 0.8)  # a dry run deletes nothing

"""metrics.jsonl and TensorBoard's files."""

import sys

import pytest
from finetune_runs import finetune

from human_anomaly import main_finetune
from human_anomaly.models.training.history import scalars
from human_anomaly.utils import UsageError, read_jsonl


def test_without_tensorboard_one_line_says_what_to_install(data, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(UsageError, match=r"--tensorboard: .* run pip install 'tensorboard>=2\.18"):
        finetune(data, tmp_path / "run", "--tensorboard")
    assert not (tmp_path / "run").exists()


def test_the_names_of_the_curves():
    step = {"epoch": 0, "step": 7, "at": 0.5, "loss": 0.7, "grad_norm": 2.0, "lr": 0.1}
    assert scalars(step) == {"step/loss": 0.7, "step/grad_norm": 2.0, "step/lr": 0.1}
    val = {"count": 9, "auroc": 0.8, "f1": 0.5, "confusion": {"normal_passed": 1}}
    epoch = {"epoch": 0, "train_loss": 0.6, "val": val, "best_epoch": 0}
    assert scalars(epoch) == {"train/loss": 0.6, "val/auroc": 0.8, "val/f1": 0.5}


def test_tensorboard_shows_each_step_once_after_a_kill(data, tmp_path, monkeypatch):
    pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    evaluate, calls = main_finetune.evaluate, []

    def cut_off(*args):
        calls.append(args)
        if len(calls) == 2:
            raise UsageError("cut off")
        return evaluate(*args)

    monkeypatch.setattr(main_finetune, "evaluate", cut_off)
    with pytest.raises(UsageError, match="cut off"):
        finetune(data, tmp_path / "run", "--tensorboard")
    run = finetune(data, tmp_path / "run", "--tensorboard")
    board = EventAccumulator(str(run / "tensorboard"))
    board.Reload()
    rows = read_jsonl(run / "metrics.jsonl")
    for name, wanted in (
        ("step/loss", [(row["step"], row["loss"]) for row in rows if "step" in row]),
        ("train/loss", [(3 * row["epoch"] + 2, row["train_loss"]) for row in rows if "val" in row]),
        ("val/auroc", [(3 * r["epoch"] + 2, r["val"]["auroc"]) for r in rows if "val" in r]),
    ):
        found = [(event.step, event.value) for event in board.Scalars(name)]
        assert [step for step, _ in found] == [step for step, _ in wanted]
        assert [value for _, value in found] == pytest.approx([value for _, value in wanted])
    finetune(data, run, "--overwrite", "--seed", "9")
    assert not (run / "tensorboard").exists()

"""The training script end to end on drawn crops: files, resume, processes."""

import json
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml
from conftest import ROOT
from drawn_crops import write_crops
from finetune_runs import (
    NOTHING_RANDOM,
    ONE_THREAD,
    command,
    finetune,
    in_two_processes,
    losses,
    same_weights,
    state,
    write_data,
)

from human_anomaly import main_finetune
from human_anomaly.configs.defaults import get_config
from human_anomaly.models.classifier import load_classifier
from human_anomaly.models.training import run_folder
from human_anomaly.models.training.metrics import probabilities
from human_anomaly.utils import UsageError, read_jsonl


def test_what_a_run_leaves(data, finished):
    names = "best.pth ckpt0.pth ckpt1.pth config.yaml labels.jpg last.pth log.txt metrics.jsonl"
    assert sorted(path.name for path in finished.iterdir()) == [*names.split(), "report"]
    content = state(finished / "ckpt1.pth")
    assert content["epoch"] == 1 and content["metrics"]["threshold"] == 0.32  # a hand's
    assert content["config"] == (finished / "config.yaml").read_text()
    assert "optimizer" not in content and "optimizer" in state(finished / "last.pth")
    config = get_config(finished / "config.yaml")
    assert (config.TRAIN.EPOCHS, config.MODEL.VIT.EMBED_DIM, config.DATA.BATCH_SIZE) == (2, 16, 8)
    rows = read_jsonl(finished / "metrics.jsonl")
    assert [row["step"] for row in rows if "step" in row] == list(range(6))  # 26 // 8 an epoch
    assert [row["epoch"] for row in rows if "val" in row] == [0, 1]
    log = (finished / "log.txt").read_text()
    assert "26 crops, 13 normal and 13 abnormal; label 1 is abnormal (the default)" in log
    assert "TRAIN.EPOCHS: 2 (default 30)" in log


def test_last_epoch_is_what_the_report_and_scoring_see(data, finished):
    """Scoring loads the file unchanged, and gives the probabilities that the report lists."""
    from human_anomaly.data.dataset import CropDataset, read_manifest
    from human_anomaly.data.transforms import EvalTransform

    config = get_config(data / "small.yaml")
    model = load_classifier(finished / "ckpt1.pth", config, "cpu")
    dataset = CropDataset(read_manifest(data / "hand_test.jsonl"), EvalTransform(size=16))
    with torch.no_grad():
        logits = model(torch.stack([dataset[i][0] for i in range(10)])).double().numpy()
    rows = (finished / "report" / "val_predictions.csv").read_text().splitlines()[1:]
    listed = [float(row.split(",")[3]) for row in rows]
    np.testing.assert_allclose(listed, probabilities(logits), atol=2e-6)
    metrics = json.loads((finished / "report" / "metrics.json").read_text())
    assert metrics["metrics"] == state(finished / "ckpt1.pth")["metrics"]
    assert metrics["checkpoint"].endswith("ckpt1.pth") and metrics["part"] == "hand"


def test_running_a_finished_run_again_changes_nothing(data, finished):
    def times():
        kept = ("last.pth", "ckpt1.pth", "metrics.jsonl", "report/metrics.json")
        return {name: (finished / name).read_bytes() for name in kept}

    before = times()
    finetune(data, finished)
    assert times() == before
    shutil.rmtree(finished / "report")  # as if it had died before the report
    finetune(data, finished)
    assert times() == before


def test_the_same_seed_gives_the_same_run(data, finished, tmp_path):
    again = finetune(data, tmp_path / "again")
    assert same_weights(finished / "last.pth", again / "last.pth")
    other = finetune(data, tmp_path / "other", "--seed", "1")
    assert not same_weights(finished / "last.pth", other / "last.pth")


def kill_at(text, data, output, *more):
    """Start the script as a process of its own and SIGKILL it when its log says `text`."""
    process = subprocess.Popen(
        [sys.executable, ROOT / "main_finetune.py", *command(data, output, *more)],
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=ONE_THREAD,
    )
    for line in process.stderr:
        if text in line:
            process.send_signal(signal.SIGKILL)
            break
    process.stderr.close()
    assert process.wait() == -signal.SIGKILL


def test_killed_and_run_again_ends_the_same(data, finished, tmp_path):
    """Killed in the middle of its second epoch, with workers, everything random on."""
    output = tmp_path / "hand"
    kill_at("epoch 1 [1/", data, output, "--opts", "DATA.NUM_WORKERS", "1")
    assert not (output / "report").exists()
    (output / ".last.pth.99.part").write_bytes(b"half a checkpoint")
    finetune(data, output)
    assert same_weights(finished / "last.pth", output / "last.pth")
    assert (output / "metrics.jsonl").read_text() == (finished / "metrics.jsonl").read_text()
    assert not (output / ".last.pth.99.part").exists()


def test_a_disk_full_between_two_checkpoints_changes_nothing(data, finished, tmp_path, monkeypatch):
    """Only the first epoch's first file can be written: the rerun ends with the same weights."""
    output, save, saved = tmp_path / "hand", run_folder.save, []

    def save_one(path, content):
        if saved:
            raise UsageError(f"{path}: cannot save the checkpoint")
        saved.append(path)
        save(path, content)

    monkeypatch.setattr(run_folder, "save", save_one)
    with pytest.raises(UsageError, match="cannot save"):
        finetune(data, output)
    monkeypatch.undo()
    finetune(data, output)
    for name in ("ckpt0.pth", "ckpt1.pth", "last.pth"):
        assert same_weights(finished / name, output / name)


def test_a_damaged_last_checkpoint_is_skipped(data, finished, tmp_path, caplog):
    output = tmp_path / "hand"
    shutil.copytree(finished, output)
    (output / "ckpt1.pth").unlink()
    (output / "last.pth").write_bytes((finished / "last.pth").read_bytes()[:-1000])
    shutil.rmtree(output / "report")
    finetune(data, output)
    assert state(output / "last.pth")["epoch"] == 1
    log = (output / "log.txt").read_text()
    assert "checkpoint skipped" in log and "optimiser state, so the optimiser starts anew" in log


def test_two_processes_equal_one(tmp_path):
    """Loss per step over 24 steps and the figures on 11 test crops, an odd number."""
    write_data(tmp_path, train=100, test=11)
    opts = ("--opts", "TRAIN.BASE_LR", "0.2", *NOTHING_RANDOM)
    one = finetune(tmp_path, tmp_path / "one", *opts)
    two = in_two_processes(tmp_path, tmp_path / "two", "--batch-size", "4", *opts)
    assert two.returncode == 0, two.stderr[-2000:]
    assert len(losses(one)) == 24
    assert max(losses(one)) - min(losses(one)) > 0.01  # it learns, so the steps matter
    np.testing.assert_allclose(losses(tmp_path / "two"), losses(one), atol=1e-4, rtol=0)
    found, expected = (state(folder / "last.pth")["metrics"] for folder in (tmp_path / "two", one))
    assert found.pop("confusion") == expected.pop("confusion")
    assert found["count"] == 11 and found == pytest.approx(expected, abs=1e-4)
    # The run of two goes on, finished, as a run of one with the same images a step.
    finetune(tmp_path, tmp_path / "two", "--batch-size", "8", *opts)
    with pytest.raises(UsageError, match="trained with 8 images a step, now 4"):
        finetune(tmp_path, tmp_path / "two", "--batch-size", "4", *opts)


def test_accumulation_equals_a_larger_batch(data, tmp_path):
    one = finetune(data, tmp_path / "one", "--opts", *NOTHING_RANDOM)
    more = ("--batch-size", "2", "--accumulation-steps", "4", "--opts", *NOTHING_RANDOM)
    four = finetune(data, tmp_path / "four", *more)
    np.testing.assert_allclose(losses(four), losses(one), atol=1e-5, rtol=0)


def test_learns_a_drawn_data_set(tmp_path):
    """Discs against crosses; about 15 s on one core."""
    write_crops(tmp_path, "hand_train", 512, seed=1, size=56)
    write_crops(tmp_path, "hand_test", 256, seed=2, size=56)
    vit = {"EMBED_DIM": 64, "DEPTH": 2, "NUM_HEADS": 2, "PATCH_SIZE": 8, "INIT_VALUES": 1.0}
    settings = {
        "MODEL": {"DROP_PATH_RATE": 0.0, "VIT": vit},
        "DATA": {"IMG_SIZE": 48, "BATCH_SIZE": 16, "NUM_WORKERS": 0},
        "TRAIN": {"EPOCHS": 10, "WARMUP_EPOCHS": 1, "LAYER_DECAY": 1.0, "BASE_LR": 1.6e-2},
        "AUG": {"MIN_CROP": 0.6, "AUTO_AUGMENT": "none", "COLOR_JITTER": 0.2, "REPROB": 0.0}
        | {"MIXUP": 0.0, "CUTMIX": 0.0},
        "PRINT_FREQ": 50,
    }
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(settings))
    run = finetune(tmp_path, tmp_path / "run")
    assert state(run / "last.pth")["metrics"]["auroc"] >= 0.95


def test_flags_reach_the_settings(data, tmp_path):
    args = main_finetune.parse_args(
        command(
            *(data, "out", "--image-root", "i", "--part", "face", "--resume", "r.pth"),
            *("--accumulation-steps", "3", "--use-checkpoint", "--precision", "bf16", "--compile"),
            *("--abnormal-label", "0", "--seed", "7", "--pretrained", "p", "--batch-size", "6"),
            *("--opts", "TRAIN.EPOCHS", "9", "SEED", "8"),
        )
    )
    config = main_finetune.read_settings(args)
    data_node, train = config.DATA, config.TRAIN
    assert (data_node.IMAGE_ROOT, data_node.PART, config.MODEL.RESUME) == ("i", "face", "r.pth")
    assert (train.ACCUMULATION_STEPS, train.USE_CHECKPOINT, train.COMPILE) == (3, True, True)
    assert (train.PRECISION, data_node.ABNORMAL_LABEL, train.EPOCHS) == ("bf16", "0", 9)
    assert (config.SEED, config.PRETRAINED, data_node.BATCH_SIZE) == (7, "p", 6)
    assert config.OUTPUT == "out" and data_node.TRAIN_PATH.endswith("hand_train.jsonl")


def test_bf16_and_checkpointing_train(data, tmp_path):
    more = ("--precision", "bf16", "--use-checkpoint", "--opts", "TRAIN.EPOCHS", "1")
    run = finetune(data, tmp_path / "run", *more)
    content = state(run / "last.pth")
    assert content["model"]["head.weight"].dtype == torch.float32
    assert losses(run)[0] == pytest.approx(0.6931, rel=0.05)  # p is 0.5 before the first step


def test_dry_run_writes_the_label_sheet_only(data, tmp_path):
    finetune(data, tmp_path / "run", "--dry-run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["labels.jpg"]


def test_eval_of_a_two_logit_file(data, finished, tmp_path, capsys):
    """A released file has two logits, abnormal first: the same figures as one logit's."""
    content = state(finished / "ckpt1.pth")
    weight, bias = content["model"]["head.weight"], content["model"]["head.bias"]
    content["model"]["head.weight"] = torch.cat([weight * 1.5, weight * 0.5])
    content["model"]["head.bias"] = torch.cat([bias + 2, torch.full_like(bias, 2.0)])
    released = tmp_path / "released.pth"
    torch.save({"model": content["model"], "epoch": 29}, released)
    output = tmp_path / "eval"
    capsys.readouterr()
    finetune(data, output, "--eval", "--resume", str(released))
    printed = json.loads(capsys.readouterr().out)
    assert printed.pop("confusion") == content["metrics"].pop("confusion")
    assert printed == pytest.approx(content["metrics"], abs=1e-5)
    assert sorted(path.name for path in output.iterdir()) == ["report"]
    assert "Last and best epoch" not in (output / "report/index.html").read_text()
    with pytest.raises(UsageError, match=r"is a report of checkpoint .*choose another folder"):
        finetune(data, output, "--eval", "--resume", str(finished / "ckpt1.pth"))
    # Without --resume: the newest checkpoint in --output.
    finetune(data, finished, "--eval", "--overwrite")
    assert "last.pth" in (finished / "report" / "metrics.json").read_text()
    with pytest.raises(UsageError, match=r"--resume is missing and .* holds no checkpoint"):
        finetune(data, tmp_path / "none", "--eval")


def test_abnormal_label_turns_the_figures_round(data, finished, tmp_path):
    run = str(finished / "ckpt1.pth")
    metrics = []
    for label in ("1", "0"):
        output = tmp_path / label
        finetune(data, output, "--eval", "--resume", run, "--abnormal-label", label)
        metrics.append(json.loads((output / "report/metrics.json").read_text())["metrics"])
    assert metrics[1]["auroc"] == pytest.approx(1 - metrics[0]["auroc"])


def test_resume_of_a_named_checkpoint(data, finished, tmp_path):
    """It starts a new folder from another run's state; afterwards that folder's own comes first."""
    kept = tmp_path / "kept.pth"
    shutil.copy(finished / "last.pth", kept)
    run = finetune(data, tmp_path / "run", "--resume", str(kept))
    assert (run / "report").is_dir() and not (run / "ckpt1.pth").exists()  # all epochs were done
    other = finetune(data, tmp_path / "other", "--opts", "TRAIN.EPOCHS", "1")
    finetune(data, other, "--resume", str(kept), "--overwrite")
    assert not (other / "last.pth").exists()  # its own run went, and is not what was resumed

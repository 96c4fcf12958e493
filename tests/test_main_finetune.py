"""The training script end to end on drawn crops: files, resume, processes, every bad input."""

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from drawn_crops import write_crops

import main_finetune
from configs.defaults import get_config
from models.classifier import load_classifier
from models.training import engine
from models.training.metrics import probabilities
from utils import UsageError, read_jsonl, run_main

ROOT = Path(__file__).resolve().parents[1]
SMALL = {
    "MODEL": {
        "DROP_PATH_RATE": 0.1,
        "VIT": {"EMBED_DIM": 16, "DEPTH": 2, "NUM_HEADS": 2, "PATCH_SIZE": 8},
    },
    "DATA": {"IMG_SIZE": 16, "BATCH_SIZE": 8, "NUM_WORKERS": 0},
    "TRAIN": {"EPOCHS": 2, "WARMUP_EPOCHS": 1},
    "SAVE_FREQ": 1,
    "PRINT_FREQ": 1,
}
NOTHING_RANDOM = [
    "AUG.MIN_CROP",
    "0",
    "AUG.AUTO_AUGMENT",
    "none",
    "AUG.COLOR_JITTER",
    "0",
    "AUG.REPROB",
    "0",
    "AUG.MIXUP",
    "0",
    "AUG.CUTMIX",
    "0",
    "MODEL.DROP_PATH_RATE",
    "0",
]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """24 training and 10 test crops, and the YAML of a very small classifier."""
    folder = tmp_path_factory.mktemp("data")
    write_crops(folder, "hand_train", 26, seed=1, size=24)
    write_crops(folder, "hand_test", 10, seed=2, size=24)
    (folder / "small.yaml").write_text(yaml.safe_dump(SMALL))
    return folder


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    """Keep torch's thread count, which the script sets, the same here and in other processes."""
    before = torch.get_num_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    yield
    torch.set_num_threads(before)


def command(data, output, *more):
    return [
        *("--cfg", str(data / "small.yaml"), "--output", str(output)),
        *("--train-path", str(data / "hand_train.jsonl")),
        *("--val-path", str(data / "hand_test.jsonl"), *more),
    ]


def finetune(data, output, *more):
    assert main_finetune.main(command(data, output, *more)) == 0
    return output


def state(path):
    return torch.load(path, weights_only=True)


def same_weights(one, other):
    one, other = state(one)["model"], state(other)["model"]
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    """The folder of an unbroken run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        return finetune(data, tmp_path_factory.mktemp("finished") / "hand")


def test_what_a_run_leaves(data, finished):
    assert sorted(path.name for path in finished.iterdir()) == [
        "ckpt0.pth",
        "ckpt1.pth",
        "config.yaml",
        "labels.jpg",
        "last.pth",
        "log.txt",
        "metrics.jsonl",
        "report",
    ]
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
    from data.dataset import CropDataset, read_manifest
    from data.transforms import build_eval_transform

    config = get_config(data / "small.yaml")
    model = load_classifier(finished / "ckpt1.pth", config, "cpu")
    dataset = CropDataset(read_manifest(data / "hand_test.jsonl"), build_eval_transform(size=16))
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


def test_a_damaged_last_checkpoint_is_passed_over(data, finished, tmp_path, caplog):
    output = tmp_path / "hand"
    shutil.copytree(finished, output)
    (output / "ckpt1.pth").unlink()
    (output / "last.pth").write_bytes((finished / "last.pth").read_bytes()[:-1000])
    shutil.rmtree(output / "report")
    finetune(data, output)
    assert state(output / "last.pth")["epoch"] == 1
    log = (output / "log.txt").read_text()
    assert "passed over" in log and "optimiser state: its moments start new" in log


def losses(folder):
    return [row["loss"] for row in read_jsonl(folder / "metrics.jsonl") if "loss" in row]


def in_two_processes(data, output, *more):
    """Run the script under torchrun; return the completed process."""
    launch = [
        *(sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"),
        *("--master_port", str(20000 + os.getpid() % 20000), str(ROOT / "main_finetune.py")),
    ]
    words = [*launch, *command(data, output, *more)]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True)


ONE_LINE = [
    # wrong in all processes, before and after the data is read
    ((), ("--output", ""), "error: --output: missing"),
    ((), ("--batch-size", "998"), "error: --batch-size: the training data has 26 crops"),
    # a broken image in the share of process 1
    ("hand_train_0003.png", (), "error: .*hand_train.jsonl:4: cannot read image"),
]


@pytest.mark.parametrize("broken, flags, message", ONE_LINE)
def test_two_processes_print_one_error(data, tmp_path, broken, flags, message):
    if broken:
        data = edited(data, tmp_path, lambda f: (f / "all_images" / broken).write_bytes(b"\x89PNG"))
    done = in_two_processes(data, tmp_path / "run", *flags)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert done.returncode != 0 and len(errors) == 1 and re.match(message, errors[0])


def test_two_processes_equal_one(tmp_path):
    """Loss per step over 24 steps and the figures on 11 test crops, an odd number."""
    write_crops(tmp_path, "hand_train", 100, seed=1, size=24)
    write_crops(tmp_path, "hand_test", 11, seed=2, size=24)
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(SMALL))
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
    assert not (output / "report" / "curves.png").exists()
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


def edited(data, tmp_path, edit):
    """Return a copy of the data after `edit(folder)`."""
    folder = tmp_path / "data"
    shutil.copytree(data, folder)
    edit(folder)
    return folder


def append(name, line):
    return lambda folder: (folder / name).write_text((folder / name).read_text() + line + "\n")


BAD_DATA = [
    # broken JSON in the 27th line
    (append("hand_train.jsonl", '["x.png", 1'), r"hand_train\.jsonl:27: not JSON"),
    (append("hand_train.jsonl", '["x.png", 2, 0.1]'), r"hand_train\.jsonl:27: label: expected"),
    (append("hand_train.jsonl", '["x.png", null]'), r"hand_train\.jsonl:27: label is null"),
    (append("hand_test.jsonl", '["x.png", 1, 0.1]'), r"hand_test\.jsonl:11: no such image"),
    # a corrupt image
    (
        lambda folder: (folder / "all_images" / "hand_train_0004.png").write_bytes(b"\x89PNG cut"),
        r"hand_train\.jsonl:5: cannot read image .*hand_train_0004\.png",
    ),
    (lambda folder: (folder / "hand_train.jsonl").write_text(""), r"hand_train\.jsonl: empty"),
    (
        lambda folder: (folder / "hand_test.jsonl").write_text('["hand_test_0001.png", 1]\n'),
        r"hand_test\.jsonl: all 1 lines have label 1, expected both",
    ),
    (lambda folder: (folder / "hand_test.jsonl").unlink(), r"hand_test\.jsonl: cannot read"),
]


@pytest.mark.parametrize("edit, message", BAD_DATA)
def test_bad_data_stops_before_the_first_step(data, tmp_path, edit, message):
    folder = edited(data, tmp_path, edit)
    with pytest.raises(UsageError, match=message) as caught:
        finetune(folder, tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run" / "last.pth").exists()


def test_corrupt_image_met_on_the_way(data, tmp_path):
    """With --skip-check a worker meets it, and its error still is one line."""
    image = "hand_test_0004.png"  # a training crop might be met while drawing labels.jpg
    folder = edited(data, tmp_path, lambda f: (f / "all_images" / image).write_bytes(b"\x89PNG"))
    for workers in ("0", "1"):
        with pytest.raises(
            UsageError, match=rf"hand_test\.jsonl:5: cannot read .*{image}"
        ) as caught:
            more = ("--skip-check", "--opts", "DATA.NUM_WORKERS", workers)
            finetune(folder, tmp_path / workers, *more)
        assert "\n" not in str(caught.value)


BAD_FLAGS = [
    (("--batch-size", "998"), r"--batch-size: .* has 26 crops, fewer than the 998 of one step"),
    (("--opts", "LOSS.FOCAL", "True"), r"LOSS\.FOCAL: this setting means nothing here"),
    (("--batch-size", "7"), "--batch-size: mixup and cutmix need an even number, got 7"),
    (("--batch-size", "0"), r"DATA\.BATCH_SIZE: expected at least 1, got 0"),
    (("--opts", "TRAIN.EPOCH", "3"), r"TRAIN\.EPOCH: no such setting"),
    (("--opts", "TRAIN.EPOCHS", "many"), r"TRAIN\.EPOCHS: expected int, got 'many'"),
    (("--opts", "TRAIN.EPOCHS"), "--opts: expected KEY VALUE pairs"),
    (("--opts", "DATA.IMG_SIZE", "17"), r"DATA\.IMG_SIZE: expected a multiple of"),
    (("--image-root", "/no/such"), "--image-root: no such folder"),
    (("--pretrained", "/no/such.pth"), r"/no/such\.pth: no such weight file"),
    (("--resume", "/no/such.pth"), r"/no/such\.pth: no such weight file"),
    (("--cfg", "/no/such.yaml"), r"--cfg: cannot read /no/such\.yaml"),
    (("--train-path", ""), "--train-path: missing"),
]


@pytest.mark.parametrize("flags, message", BAD_FLAGS)
def test_wrong_use_is_named(data, tmp_path, flags, message):
    with pytest.raises(UsageError, match=message):
        finetune(data, tmp_path / "run", *flags)


def test_one_line_and_status_2(data, tmp_path, capsys):
    arguments = command(data, tmp_path / "run", "--batch-size", "998")
    with pytest.raises(SystemExit) as caught:
        run_main(lambda: main_finetune.main(arguments))
    assert caught.value.code == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1 and "--batch-size" in errors[0]


def test_folder_of_another_run(data, finished, tmp_path):
    output = tmp_path / "run"
    shutil.copytree(finished, output)
    before = (output / "last.pth").read_bytes()
    with pytest.raises(UsageError, match=r"other settings \(SEED 0, now 5\)"):
        finetune(data, output, "--seed", "5")
    # --overwrite deletes nothing as long as the new run cannot start.
    with pytest.raises(UsageError, match="fewer than"):
        finetune(data, output, "--seed", "5", "--overwrite", "--batch-size", "998")
    assert (output / "last.pth").read_bytes() == before
    finetune(data, output, "--seed", "5", "--overwrite")
    assert "SEED: 5" in (output / "config.yaml").read_text()
    assert not same_weights(output / "last.pth", finished / "last.pth")
    report = json.loads((output / "report" / "metrics.json").read_text())["metrics"]
    assert report == state(output / "ckpt1.pth")["metrics"]


def test_checkpoint_of_another_architecture(data, finished, tmp_path):
    wide = ("--opts", "MODEL.VIT.EMBED_DIM", "32")
    for flags in (("--eval",), ()):
        with pytest.raises(UsageError, match=r"last\.pth: other architecture .* expected \("):
            finetune(data, tmp_path / "a", *flags, "--resume", str(finished / "last.pth"), *wide)
    with pytest.raises(UsageError, match="expected a SimMIM pre-training file, found a fine-tuned"):
        finetune(data, tmp_path / "b", "--pretrained", str(finished / "ckpt1.pth"))


def test_loss_that_is_not_a_number_stops_the_run(data, tmp_path, monkeypatch):
    step, numbers = engine.train_step, itertools.count()

    def poisoned(network, *args, **keywords):
        if next(numbers) == 4:  # the second step of epoch 1
            with torch.no_grad():
                network.head.bias.fill_(float("nan"))
        return step(network, *args, **keywords)

    monkeypatch.setattr(engine, "train_step", poisoned)
    message = r"loss is nan in step 1 of epoch 1; .*last\.pth.*8 files .*nonfinite_batch\.txt"
    with pytest.raises(UsageError, match=message):
        finetune(data, tmp_path / "run")
    assert state(tmp_path / "run" / "last.pth")["epoch"] == 0
    names = (tmp_path / "run" / "nonfinite_batch.txt").read_text().split()
    assert len(set(names)) == 8 and all(name.startswith("hand_train_") for name in names)
    monkeypatch.setattr(engine, "train_step", step)
    finetune(data, tmp_path / "run")  # and it can go on from there
    assert state(tmp_path / "run" / "last.pth")["epoch"] == 1

"""What the training script refuses, in one line that names the flag, the file or the crop."""

import itertools
import json
import re
import shutil

import pytest
import torch
from finetune_runs import edited, finetune, in_two_processes, same_weights, state

from human_anomaly.models.training import engine
from human_anomaly.utils import UsageError


def append(name, line):
    return lambda folder: (folder / name).write_text((folder / name).read_text() + line + "\n")


BAD_DATA = [
    # a wrong line (test_dataset.py has all kinds), a missing image, a corrupt one
    (append("hand_train.jsonl", '["x.png", 2, 0.1]'), r"hand_train\.jsonl:27: label: expected"),
    (append("hand_test.jsonl", '["x.png", 1, 0.1]'), r"hand_test\.jsonl:11: no such image"),
    (
        lambda folder: (folder / "all_images" / "hand_train_0004.png").write_bytes(b"\x89PNG cut"),
        r"hand_train\.jsonl:5: cannot read image .*hand_train_0004\.png",
    ),
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


def test_lists_of_two_conventions_are_refused_before_training(data, tmp_path):
    public = tmp_path / "VBench-2.0_human_anomaly"
    shutil.copytree(data, public)
    flags = ("--train-path", str(public / "hand_train.jsonl"))
    with pytest.raises(UsageError, match=r"^--abnormal-label: .*the lists differ: in .*VBench-2"):
        finetune(data, tmp_path / "run", *flags)
    assert not (tmp_path / "run" / "last.pth").exists()
    finetune(data, tmp_path / "run", *flags, "--abnormal-label", "1", "--dry-run")


BAD_FLAGS = [
    (("--batch-size", "998"), r"--batch-size: .* has 26 crops, fewer than the 998 of one step"),
    (("--batch-size", "7"), "--batch-size: mixup and cutmix need an even number, got 7"),
    (("--batch-size", "0"), r"DATA\.BATCH_SIZE: expected at least 1, got 0"),
    (("--opts", "TRAIN.EPOCH", "3"), r"TRAIN\.EPOCH: no such setting"),
    (("--opts", "DATA.IMG_SIZE", "17"), r"DATA\.IMG_SIZE: expected a multiple of"),
    (("--pretrained", "/no/such.pth"), r"/no/such\.pth: no such weight file"),
    (("--resume", "/no/such.pth"), r"/no/such\.pth: no such weight file"),
    (("--train-path", ""), "--train-path: missing"),
]


@pytest.mark.parametrize("flags, message", BAD_FLAGS)
def test_wrong_use_is_named(data, tmp_path, flags, message):
    with pytest.raises(UsageError, match=message):
        finetune(data, tmp_path / "run", *flags)


def one_class(folder):
    rows = (folder / "hand_test.jsonl").read_text().splitlines(keepends=True)
    (folder / "hand_test.jsonl").write_text("".join(row for row in rows if ", 1, " in row))


def broken_image(folder):
    (folder / "all_images" / "hand_train_0003.png").write_bytes(b"\x89PNG")


ONE_LINE = [
    # wrong in all processes, before and after the data is read
    (None, ("--output", ""), "--output: missing"),
    (one_class, (), r".*hand_test\.jsonl: all 5 lines have label 1, expected both 0 and 1"),
    # in the share of process 1
    (broken_image, (), ".*hand_train.jsonl:4: cannot read image"),
]


@pytest.mark.parametrize("edit, flags, message", ONE_LINE)
def test_two_processes_print_one_error_and_end_with_it(data, tmp_path, edit, flags, message):
    data = edited(data, tmp_path, edit) if edit else data
    done = in_two_processes(data, tmp_path / "run", *flags)
    lines = done.stderr.splitlines()
    errors = [line for line in lines if line.startswith("error:")]
    assert done.returncode != 0 and len(errors) == 1 and re.match(f"error: {message}", errors[0])
    # torchrun's own lines come after it; below them stands the error, then a ruler.
    last = [line for line in lines if line.strip("= ")][-1]
    assert re.search(f"UsageError: {message}", last)


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
        with pytest.raises(UsageError, match=r"last\.pth: other architecture .* expected \("):
            finetune(data, tmp_path / "b", "--pretrained", str(finished / "last.pth"), *wide)


def test_loss_that_is_not_a_number_stops_the_run(data, tmp_path, monkeypatch):
    step, numbers = engine.train_step, itertools.count()

    def poisoned(network, *args, **keywords):
        if next(numbers) == 4:  # the second step of epoch 1
            with torch.no_grad():
                network.head.bias.fill_(float("nan"))
        return step(network, *args, **keywords)

    monkeypatch.setattr(engine, "train_step", poisoned)
    message = r"loss is nan in step 1 of epoch 1; .*last\.pth.*8 files .*nonfinite_batch\.txt"
    with pytest.raises(UsageError, match=message):  # steps 1 and 2 are read together
        finetune(data, tmp_path / "run", "--opts", "PRINT_FREQ", "10")
    assert state(tmp_path / "run" / "last.pth")["epoch"] == 0
    names = (tmp_path / "run" / "nonfinite_batch.txt").read_text().split()
    assert len(set(names)) == 8 and all(name.startswith("hand_train_") for name in names)
    monkeypatch.setattr(engine, "train_step", step)
    finetune(data, tmp_path / "run")  # and it can go on from there
    assert state(tmp_path / "run" / "last.pth")["epoch"] == 1

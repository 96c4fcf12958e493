"""What tests of main_finetune.py share: drawn crops, a very small classifier, and the script."""

import os
import shutil
import subprocess
import sys

import pytest
import torch
import yaml
from conftest import ROOT
from drawn_crops import write_crops

from human_anomaly import main_finetune
from human_anomaly.utils import read_jsonl

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
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}
RANDOM = ("MIN_CROP", "COLOR_JITTER", "REPROB", "MIXUP", "CUTMIX")
NOTHING_RANDOM = [word for key in RANDOM for word in (f"AUG.{key}", "0")]
NOTHING_RANDOM += ["AUG.AUTO_AUGMENT", "none", "MODEL.DROP_PATH_RATE", "0"]


def write_data(folder, train=26, test=10):
    """Write `train` and `test` crops and the YAML of a very small classifier; return `folder`."""
    write_crops(folder, "hand_train", train, seed=1, size=24)
    write_crops(folder, "hand_test", test, seed=2, size=24)
    (folder / "small.yaml").write_text(yaml.safe_dump(SMALL))
    return folder


def command(data, output, *more):
    return [
        *("--cfg", str(data / "small.yaml"), "--output", str(output)),
        *("--train-path", str(data / "hand_train.jsonl")),
        *("--val-path", str(data / "hand_test.jsonl"), *more),
    ]


def finetune(data, output, *more):
    """Run the script here, on one thread as in other processes; return `output`."""
    before = torch.get_num_threads()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("OMP_NUM_THREADS", "1")
            assert main_finetune.main(command(data, output, *more)) == 0
    finally:
        torch.set_num_threads(before)
    return output


def state(path):
    return torch.load(path, weights_only=True)


def same_weights(one, other):
    one, other = state(one)["model"], state(other)["model"]
    return all(torch.equal(one[name], other[name]) for name in one)


def losses(folder):
    return [row["loss"] for row in read_jsonl(folder / "metrics.jsonl") if "loss" in row]


def in_two_processes(data, output, *more):
    """Run the script under torchrun; return the completed process."""
    launch = [
        *(sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"),
        *("--master_port", str(20000 + os.getpid() % 20000), str(ROOT / "main_finetune.py")),
    ]
    words = [*launch, *command(data, output, *more)]
    return subprocess.run(words, cwd=ROOT, env=ONE_THREAD, capture_output=True, text=True)


def edited(data, tmp_path, edit):
    """Return a copy of the data after `edit(folder)`."""
    folder = tmp_path / "data"
    shutil.copytree(data, folder)
    edit(folder)
    return folder

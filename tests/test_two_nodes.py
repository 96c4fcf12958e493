"""Training on two machines, as two torchrun agents that meet over the loopback interface."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import ROOT
from drawn_crops import write_crops

from human_anomaly import main_finetune
from human_anomaly.utils import read_jsonl

STEPS = 20
TINY = {
    "MODEL": {
        "DROP_PATH_RATE": 0,
        "VIT": {"EMBED_DIM": 16, "DEPTH": 2, "NUM_HEADS": 2, "PATCH_SIZE": 8},
    },
    "DATA": {"IMG_SIZE": 16, "NUM_WORKERS": 0},
    "TRAIN": {"EPOCHS": 4, "WARMUP_EPOCHS": 1, "BASE_LR": 0.2},
    # Nothing random but the order, so that one process sees what two do.
    "AUG": {
        "MIN_CROP": 0,
        "AUTO_AUGMENT": "none",
        "COLOR_JITTER": 0,
        "REPROB": 0,
        "MIXUP": 0,
        "CUTMIX": 0,
    },
    "PRINT_FREQ": 1,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Return a folder of 40 training and 11 test crops and the settings of a tiny classifier."""
    folder = tmp_path_factory.mktemp("data")
    write_crops(folder, "hand_train", 40, seed=1, size=24)
    write_crops(folder, "hand_test", 11, seed=2, size=24)
    (folder / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    return folder


def flags(data: Path, output: Path, batch_size: int) -> list[str]:
    lists = ["--train-path", data / "hand_train.jsonl", "--val-path", data / "hand_test.jsonl"]
    own = ["--cfg", data / "tiny.yaml", "--output", output, "--batch-size", batch_size]
    return list(map(str, [*lists, *own]))


def start_nodes(data: Path, output: Path) -> list[subprocess.Popen]:
    """Start the agents of two machines with one process each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    meet = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}", "--rdzv-id", "test"]
    launch = ["--nnodes", "2", "--nproc-per-node", "1", *meet, "--local-addr", "127.0.0.1"]
    script = [ROOT / "main_finetune.py", *flags(data, output, 4)]
    command = [sys.executable, "-m", "torch.distributed.run", *launch, *script]
    return [
        subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"},
        )
        for _ in range(2)
    ]


def end(nodes: list[subprocess.Popen]) -> list[int]:
    return [node.wait(60) for node in nodes]


def kill(node: subprocess.Popen) -> None:
    """End an agent and its worker at once, as a machine that loses its power does."""
    workers = Path(f"/proc/{node.pid}/task/{node.pid}/children").read_text().split()
    for number in (node.pid, *map(int, workers)):
        os.kill(number, signal.SIGKILL)


@pytest.fixture(scope="module")
def unbroken(data, tmp_path_factory) -> Path:
    """Return the folder that a run on two nodes fills."""
    output = tmp_path_factory.mktemp("nodes") / "hand"
    assert end(start_nodes(data, output)) == [0, 0]
    return output


def losses(folder: Path) -> list[float]:
    return [row["loss"] for row in read_jsonl(folder / "metrics.jsonl") if "loss" in row]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "last.pth", weights_only=True)["model"]


@pytest.mark.slow
def test_two_nodes_equal_one_process(data, unbroken, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    threads = torch.get_num_threads()
    assert main_finetune.main(flags(data, tmp_path / "one", 8)) == 0
    torch.set_num_threads(threads)
    one = losses(tmp_path / "one")
    assert len(one) == STEPS
    assert max(one) - min(one) > 0.01  # it learns, so the steps matter
    np.testing.assert_allclose(losses(unbroken), one, atol=1e-4, rtol=0)
    expected = weights(tmp_path / "one")
    for name, found in weights(unbroken).items():
        torch.testing.assert_close(found, expected[name], atol=1e-4, rtol=0)


@pytest.mark.slow
def test_a_node_that_dies_ends_the_run_and_the_same_commands_go_on(data, unbroken, tmp_path):
    output = tmp_path / "hand"
    nodes = start_nodes(data, output)
    deadline = time.monotonic() + 50
    while not (output / "metrics.jsonl").exists() or len(losses(output)) < STEPS // 4 + 1:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    kill(nodes[1])
    ended = end(nodes)
    assert ended[0] > 0 and ended[1] == -signal.SIGKILL
    assert not (output / "report").exists()
    assert end(start_nodes(data, output)) == [0, 0]
    assert losses(output) == losses(unbroken)
    assert weights(output).keys() == weights(unbroken).keys()
    for name, found in weights(output).items():
        assert torch.equal(found, weights(unbroken)[name]), name

"""The scripts in odd environments: little shared memory, a terminal of ASCII alone, no home."""

import io
import os
import re
import signal
import subprocess
import sys

import cv2
import numpy as np
import pytest
from conftest import ROOT
from finetune_runs import command
from torch.utils.data import DataLoader, Dataset

from human_anomaly import inference
from human_anomaly.data.dataset import read_batches, worker_errors
from human_anomaly.utils import UsageError

NAME = "\u00e9\U0001f642.png"
FULL = "data workers: /dev/shm is full; start the container with `--shm-size 8g`, or give "
FULL += "`--opts DATA.NUM_WORKERS 0`, which needs none"


def score(folder) -> list[str]:
    paths = [str(folder / name) for name in (NAME, "a.png")]
    for path in paths:
        cv2.imwrite(path, np.zeros((64, 64, 3), np.uint8))
    return ["--video", *paths, "--output", str(folder / "out"), "--report"]


# The environment, the exit status, and how the name is printed.
ASCII = [
    pytest.param({"PYTHONIOENCODING": "ascii"}, 0, rb"\xe9\U0001f642.png", marks=pytest.mark.slow),
    # Where Python is told not to, a file's name is no text, and this one file fails.
    ({"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}, 1, rb"\xe9\U0001f642.png"),
]


@pytest.mark.parametrize(("variables", "status", "shown"), ASCII)
def test_names_that_the_terminal_cannot_show(tmp_path, variables, status, shown):
    words = [sys.executable, "inference.py", *score(tmp_path)]
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    done = subprocess.run(words, cwd=ROOT, env=kept | variables, capture_output=True)
    assert (done.returncode, b"Traceback" in done.stderr) == (status, False)
    assert shown in done.stdout
    assert (tmp_path / "out/report/index.html").is_file()


def test_the_report_is_built_before_anything_is_printed(tmp_path, monkeypatch):
    """Another program calls `main`, and its standard output is its own."""
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), "ascii"))
    with pytest.raises(UnicodeEncodeError):
        inference.main(score(tmp_path))
    assert (tmp_path / "out/report/index.html").is_file()


NOBODY = """
import pwd, runpy, sys

def getpwuid(number):
    raise KeyError(f"getpwuid(): uid not found: {number}")

pwd.getpwuid = getpwuid
sys.path.insert(0, ".")
runpy.run_path("inference.py", run_name="__main__")
"""


def test_a_user_without_a_name_and_a_home(tmp_path):
    """A library refuses to load then; its line says what to set."""
    words = ["env", "-i", sys.executable, "-c", NOBODY, *score(tmp_path)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert re.match("error: RuntimeError: could not .* HOME", done.stderr.splitlines()[-1])


def test_little_shared_memory(data, tmp_path):
    """Docker's /dev/shm has 64 MB; here it is 1 MB, and a batch 2.4 MB."""
    inner = 'mount -t tmpfs -o size=1m tmpfs /dev/shm && exec "$0" "$@"'
    alone = ["unshare", "-m", "sh", "-c", inner]
    if os.getuid() or subprocess.run([*alone, "true"], capture_output=True).returncode:
        pytest.skip("no namespace of its own")
    size = ("DATA.IMG_SIZE", "224", "MODEL.VIT.PATCH_SIZE", "56", "DATA.NUM_WORKERS", "2")
    words = command(data, tmp_path / "run", "--batch-size", "16", "--opts", *size)
    done = subprocess.run(
        [*alone, sys.executable, "main_finetune.py", *words],
        cwd=ROOT,
        env=os.environ | {"PYTHON_CPU_COUNT": "2"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1] == f"error: {FULL}"


class Deadly(Dataset):
    """Its worker ends by a signal."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int):
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_that_is_killed_is_one_line_with_its_signal():
    expected = r"^a data worker is killed by signal: Killed; .* `--opts DATA.NUM_WORKERS 0`"
    with pytest.raises(UsageError, match=expected) as error, worker_errors():
        list(read_batches(DataLoader(Deadly(), num_workers=1)))
    assert "\n" not in str(error.value)


# What torch says, and what a user reads.
SAID = [
    ("DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that ..", FULL),
    ("unable to allocate shared memory(shm) for file </torch_1>: No space left (28)", FULL),
    ("unable to mmap 99 bytes from file </torch_1>: Cannot allocate memory (12)", None),
    ("DataLoader worker (pid(s) 7, 8) exited unexpectedly", "a data worker exited unexpectedly"),
    ("mat1 and mat2 shapes cannot be multiplied", None),
]


@pytest.mark.parametrize(("said", "read"), SAID)
def test_what_torch_says_of_its_workers(said, read):
    kind = UsageError if read else RuntimeError
    with pytest.raises(kind) as error, worker_errors():
        raise RuntimeError(f"Caught RuntimeError in worker.\nOriginal Traceback:\n{said}")
    assert str(error.value).startswith(read or "Caught")

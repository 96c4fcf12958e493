"""`make demo-train` in small: stills, crops, classifiers, four files; a rerun trains nothing."""

import shutil
import subprocess
import sys

import pytest
import torch
from conftest import ROOT

pytestmark = pytest.mark.slow


def test_the_demo_trains_from_stills_to_four_files_and_goes_on(tmp_path):
    """The shipped detector stands for the trained one, because its training has its own test.

    Nothing is calibrated: classifiers of three steps need not rank abnormal crops higher.
    """
    work, output = tmp_path / "work", tmp_path / "weights"
    work.mkdir()
    shutil.copy(ROOT / "demo/weights/detector.pth", work / "detector.pth")
    command = [
        *(sys.executable, "-m", "demo.train", "--work", work, "--output", output),
        *(
            "--stills",
            60,
            "--detector-stills",
            10,
            "--calibration-stills",
            0,
            "--opts",
            "TRAIN.EPOCHS",
            1,
        ),
        *("TRAIN.WARMUP_EPOCHS", 0),
    ]
    command = list(map(str, command))
    first = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert first.returncode == 0, first.stderr[-2000:]
    for name in ("detector", "human", "face", "hand"):
        content = torch.load(output / f"{name}.pth", weights_only=True)
        state = content.get("model") or content["state_dict"]
        assert {v.dtype for v in state.values() if v.is_floating_point()} == {torch.float16}
    before = {p: p.stat().st_mtime_ns for p in work.rglob("*.pth")}
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr[-2000:]
    assert "main_finetune.py" not in again.stdout
    assert {p: p.stat().st_mtime_ns for p in work.rglob("*.pth")} == before

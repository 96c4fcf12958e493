"""Memory: weights and one batch, whatever the length of the video (`make check`)."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import GOLDENS, ROOT, YAML, detector_config, golden

from human_anomaly.configs.defaults import PARTS

pytestmark = pytest.mark.slow

# Scores the video with the given files and prints the peak of anonymous memory in MiB: pages that
# are mapped from the weight files can be dropped at any time and do not count.
SCRIPT = """
import json, sys, threading, time
peak, done = [0], threading.Event()
def watch():
    while not done.wait(0.02):
        status = open("/proc/self/status").read()
        peak[0] = max(peak[0], int(status.split("RssAnon:")[1].split()[0]))
threading.Thread(target=watch, daemon=True).start()
from human_anomaly import inference
status = inference.main(json.loads(sys.argv[1]))
done.set()
print(json.dumps({"status": status, "mib": peak[0] / 1024}))
"""


def peak_mib(*flags) -> float:
    command = [sys.executable, "-c", SCRIPT, json.dumps([*map(str, flags), "--device", "cpu"])]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["status"] == 0
    return result["mib"]


def _write(path: Path, frames: int) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 24, (1920, 1080))
    ramp = np.tile(np.linspace(0, 255, 1920).astype(np.uint8)[None, :, None], (1080, 1, 3))
    for i in range(frames):
        writer.write(np.roll(ramp, 8 * i, 1))
    writer.release()
    return path


def test_memory_does_not_grow_with_length(tmp_path):
    short, long = _write(tmp_path / "short.mp4", 20), _write(tmp_path / "long.mp4", 2000)
    low = peak_mib("--video", short, "--output", tmp_path / "a")
    high = peak_mib("--video", long, "--output", tmp_path / "b")
    print(f"20 frames {low:.0f} MiB, 2000 frames {high:.0f} MiB")
    assert high <= 1.05 * low


def test_xl_and_three_classifiers_need_their_weights_and_little_more(tmp_path):
    import make_checkpoints

    weights = golden("pipeline_clip.expected.json")["weights"]
    weights = weights | {"bn": "yolo_world_v2_xl.bn.npz"}
    state = make_checkpoints.detector_state("xl", weights, GOLDENS)
    torch.save({"meta": {}, "state_dict": state}, tmp_path / "detector.pth")
    for part in PARTS:
        state = make_checkpoints.classifier_state(part, weights)
        torch.save({"model": state, "epoch": 29}, tmp_path / f"{part}.pth")
    del state
    (tmp_path / "frames").mkdir()
    for i in range(2):
        image = np.full((1080, 1920, 3), 60 * i + 40, np.uint8)
        cv2.imwrite(str(tmp_path / "frames" / f"{i}.png"), image)
    models = [x for p in PARTS for x in (f"--{p}_model", tmp_path / f"{p}.pth")]
    models += ["--detector_config", detector_config("xl")]
    models += ["--detector_weights", tmp_path / "detector.pth"]
    data = ["--video", tmp_path / "frames", "--output", tmp_path / "out"]
    peak = peak_mib("--cfg", YAML, *models, "--batch-size", 1, *data)
    held = sum(path.stat().st_size for path in tmp_path.glob("*.pth")) / 2**20
    print(f"weights {held:.0f} MiB, peak {peak:.0f} MiB")
    assert peak <= held + 1536

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

# Scores the video with the given files and prints the mean anonymous memory of each quarter of the
# run's time, and the peak, in MiB. Pages that are mapped from the weight files do not count: they
# can be dropped at any time.
SCRIPT = """
import json, sys, threading, time
found, done = [], threading.Event()
def watch():
    while not done.wait(0.02):
        status = open("/proc/self/status").read()
        found.append(int(status.split("RssAnon:")[1].split()[0]) / 1024)
threading.Thread(target=watch, daemon=True).start()
from human_anomaly import inference
status = inference.main(json.loads(sys.argv[1]))
done.set()
quarters = [found[len(found) * i // 4 : len(found) * (i + 1) // 4] for i in range(4)]
means = [sum(quarter) / len(quarter) for quarter in quarters]
print(json.dumps({"status": status, "quarters": means, "peak": max(found)}))
"""


def memory(*flags) -> dict:
    command = [sys.executable, "-c", SCRIPT, json.dumps([*map(str, flags), "--device", "cpu"])]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["status"] == 0
    return result


def _write(path: Path, frames: int) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 24, (1920, 1080))
    ramp = np.tile(np.linspace(0, 255, 1920).astype(np.uint8)[None, :, None], (1080, 1, 3))
    for i in range(frames):
        writer.write(np.roll(ramp, 8 * i, 1))
    writer.release()
    return path


def test_memory_does_not_grow_with_length(tmp_path):
    """Once a run has filled its queues and the allocator's reserve, it needs no more."""
    found = memory("--video", _write(tmp_path / "long.mp4", 2000), "--output", tmp_path / "out")
    _, second, _, last = found["quarters"]
    print(f"second quarter {second:.0f} MiB, last {last:.0f} MiB, peak {found['peak']:.0f} MiB")
    assert last <= 1.01 * second


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
    peak = memory("--cfg", YAML, *models, "--batch-size", 1, *data)["peak"]
    held = sum(path.stat().st_size for path in tmp_path.glob("*.pth")) / 2**20
    print(f"weights {held:.0f} MiB, peak {peak:.0f} MiB")
    assert peak <= held + 1536

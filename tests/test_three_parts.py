"""The command lines that users know: train three parts, then score with the three files unchanged.

On a drawn data set in the public one's layout. Two crops a part: 30 epochs of ViT-B are 30 steps.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import ROOT, golden
from drawn_crops import draw_crop
from seeded_weights import seeded_tensor

from human_anomaly.configs.defaults import PARTS
from human_anomaly.utils import read_jsonl, write_jsonl

YAML = "configs/vit_base__800ep/simmim_finetune__vit_base__img224__800ep.yaml"
PRETRAINED = "pretrain/simmim_pretrain__vit_base__img224__800ep.pth"
ROOM = 12e9  # bytes; 1 GB is written an epoch, half of the test's time on a disk
# As users know them, but for the port, the batch, and the detector, which is the demo's.
TRAIN = """
torchrun --master_port {port} main_finetune.py --cfg '{cfg}' \
  --train-path "VBench-2.0_human_anomaly/dataset/{part}_train.jsonl" \
  --val-path "VBench-2.0_human_anomaly/dataset/{part}_test.jsonl" \
  --pretrained '{pretrained}' --batch-size 2 --output "checkpoint/{part}"
"""
SCORE = """
python inference.py --cfg '{cfg}' \
  --detector_config 'configs/demo/yolo_world_demo.py' \
  --detector_weights 'demo/weights/detector.pth' \
  --human_model 'checkpoint/human/ckpt29.pth' --face_model 'checkpoint/face/ckpt29.pth' \
  --hand_model 'checkpoint/hand/ckpt29.pth' --video frames
"""


def write_dataset(folder: Path) -> None:
    """Write two training and two test crops a part; there, label 0 is abnormal."""
    rng = np.random.default_rng(0)
    (folder / "all_images").mkdir(parents=True)
    for part in PARTS:
        for split in ("train", "test"):
            rows = []
            for label in (0, 1):
                name = f"{part}_{split}_{label}.jpg"
                draw_crop(rng, label == 0, 96).save(folder / "all_images" / name, quality=90)
                rows.append([name, label, 0.9])
            write_jsonl(folder / f"{part}_{split}.jsonl", rows)


def write_pretrained(path: Path) -> None:
    """Write seeded weights under SimMIM's own names."""
    from make_checkpoints import relative_position_index

    shapes = golden("simmim_pretrain_vitb.keys.json")
    state = {
        name: relative_position_index()
        if name.endswith("relative_position_index")
        else seeded_tensor(f"pretrain/{name}", tuple(shape))
        for name, shape in shapes.items()
    }
    path.parent.mkdir()
    torch.save({"model": state}, path)


def write_frames(folder: Path, count: int = 2) -> None:
    folder.mkdir()
    reader = cv2.VideoCapture(str(ROOT / "demo/videos/normal_1.mp4"))
    for i in range(count):
        cv2.imwrite(str(folder / f"{i}.png"), reader.read()[1])
    reader.release()


@pytest.fixture
def project(tmp_path):
    """A folder like a user's clone with the public files fetched; in memory where it fits."""
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > ROOM
    with tempfile.TemporaryDirectory(dir=memory if roomy else tmp_path) as name:
        folder = Path(name)
        for tracked in ("configs", "third_party", "demo", "main_finetune.py", "inference.py"):
            (folder / tracked).symlink_to(ROOT / tracked)
        write_dataset(folder / "VBench-2.0_human_anomaly/dataset")
        write_pretrained(folder / PRETRAINED)
        write_frames(folder / "frames")
        yield folder


def run(line: str, folder: Path) -> str:
    """Run a command line in `folder` with this Python; return what it said on standard error."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        shlex.split(line),
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


@pytest.mark.slow
def test_three_lines_train_and_inference_takes_the_files(project):
    port = 20000 + os.getpid() % 20000
    for part in PARTS:
        said = run(TRAIN.format(port=port, part=part, cfg=YAML, pretrained=PRETRAINED), project)
        why = "label 0 is abnormal (the path holds VBench-2.0_human_anomaly)"
        for split in ("train", "test"):
            assert f"{part}_{split}.jsonl: 2 crops, 1 normal and 1 abnormal; {why}" in said
        output = project / "checkpoint" / part
        content = torch.load(output / "ckpt29.pth", weights_only=True)
        assert (content["epoch"], content["abnormal_label"]) == (29, 0)
        assert content["model"]["head.weight"].shape == (1, 768)
        report = json.loads((output / "report/metrics.json").read_text())
        assert (report["part"], report["abnormal_label"]) == (part, 0)
        steps = [row for row in read_jsonl(output / "metrics.jsonl") if "loss" in row]
        assert len(steps) == 30 and (output / "report/index.html").is_file()
        for file in output.glob("*.pth"):  # 3 GB a part
            if file.name != "ckpt29.pth":
                file.unlink()
    run(SCORE.format(cfg=YAML), project)
    scores = json.loads((project / "results/frames/scores.json").read_text())
    assert scores["settings"]["models"] == {p: f"checkpoint/{p}/ckpt29.pth" for p in PARTS}
    (row,) = scores["videos"]
    assert scores["failed"] == [] and row["frames"] == 2 and row["people"] > 0
    found = [
        part
        for frame in read_jsonl(project / "results/frames/frames.frames.jsonl")
        for person in frame["people"]
        for part in person["parts"]
    ]
    assert {part["part"] for part in found} == set(PARTS)
    assert all(0 <= part["p_abnormal"] <= 1 for part in found)

"""What tests of preprocess.py share: noise as videos, and the script with a made-up detector."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import ROOT
from fake_detector import FakeDetector

from human_anomaly import preprocess

FAKE = ROOT / "tests/fake_detector.py"


def write_video(path: Path, frames: int, seed: int, size: tuple[int, int] = (96, 72)) -> None:
    rng = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    out = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 25, size)
    for _ in range(frames):
        small = rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)
        out.write(cv2.resize(small, size, interpolation=cv2.INTER_CUBIC))
    out.release()


def write_videos(folder: Path) -> Path:
    """Write six videos of 3 to 13 frames, three of them in a folder of their own."""
    for i in range(6):
        write_video(folder / ("sub" if i % 2 else "") / f"v{i}.mp4", 3 + 2 * i, i)
    return folder


def flags(videos, output: Path, weights: Path, *more: str) -> list[str]:
    inputs = [str(path) for path in (videos if isinstance(videos, list) else [videos])]
    fixed = ["--output", str(output), "--detector_config", "s.py"]
    return ["--input", *inputs, *fixed, "--detector_weights", str(weights), *more]


def use_fake_detector(patch: pytest.MonkeyPatch) -> None:
    """Have `preprocess.main` look with the fake detector, in three threads."""
    patch.setattr(preprocess, "load_detector", lambda options: (FakeDetector().detect, 3))


def start(arguments: list[str], *, pause: float = 0.0, **options):
    """Start preprocess.py with the fake detector."""
    options = {"stderr": subprocess.PIPE, "text": True, "start_new_session": True} | options
    return subprocess.Popen([sys.executable, str(FAKE), str(pause), *arguments], **options)


def start_together(arguments: list[str], processes: int, **options) -> list:
    """Start `processes` of them as torchrun does."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    started = []
    for number in range(processes):
        place = {"RANK": str(number), "WORLD_SIZE": str(processes)}
        started.append(start(arguments, env=os.environ | address | place, **options))
    return started


def tree(folder: Path) -> dict[str, bytes]:
    """Return every file in `folder` but what it remembers for itself (times, mainly)."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "merged" and "item." not in path.name
    }


def rows_of(path: Path) -> list:
    return [json.loads(line) for line in path.read_text().splitlines()]

"""The command tools.vbench2, called here, and videos drawn for it."""

from pathlib import Path

import cv2
import numpy as np
from conftest import ROOT

from human_anomaly.demo.world import World
from human_anomaly.tools.vbench2 import __main__ as vbench2

WEIGHTS = [
    *("--cfg", str(ROOT / "configs/demo/demo.yaml")),
    *("--detector_config", str(ROOT / "configs/demo/yolo_world_demo.py")),
    *("--detector_weights", str(ROOT / "demo/weights/detector.pth")),
    *(
        w
        for p in ("human", "face", "hand")
        for w in (f"--{p}_model", f"{ROOT}/demo/weights/{p}.pth")
    ),
    *("--device", "cpu"),
]


def draw(path: Path, seed: int | None) -> None:
    """Write 2 drawn frames of 640x360; without a seed they show nobody."""
    frames = [np.full((720, 1280, 3), 128, np.uint8)] * 2
    if seed is not None:
        world = World(seed, "human", frames=2)
        frames = [world.render(i)[0] for i in range(2)]
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 24, (640, 360))
    for frame in frames:
        writer.write(cv2.resize(frame, (640, 360), interpolation=cv2.INTER_AREA))
    writer.release()


def call(*words) -> int:
    return vbench2.main([str(word) for word in words])


def names_of(prompts: list[str]) -> list[str]:
    return [f"{prompt}-{index}.mp4" for prompt in prompts for index in range(3)]


def without(scores: dict, *lost: str, failed: bool = False) -> dict:
    """Return the scores.json without these videos, or with them as failed."""
    kept = [row for row in scores["videos"] if Path(row["video_path"]).name not in lost]
    gone = [row for row in scores["videos"] if row not in kept]
    errors = [{"video_path": row["video_path"], "error": "broken"} for row in gone]
    return {**scores, "videos": kept, "failed": errors if failed else []}

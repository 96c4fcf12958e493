"""Clips that benchmarks score: a video's first frames, and its frames on a device."""

from functools import cache
from pathlib import Path

import cv2
import numpy as np
import torch

from human_anomaly.data.video import FrameReader, Source


@cache
def read_clip(video: Path, device: torch.device) -> torch.Tensor:
    """Return the video's frames (T, H, W, 3) uint8 RGB on `device`, read only once."""
    frames = [frame.image[:, :, ::-1] for frame in FrameReader(Source(video, "video"))]
    return torch.from_numpy(np.stack(frames)).to(device)


def shorten(video: Path, frames: int, folder: Path) -> Path:
    """Write the first `frames` of `video`, to warm up with; return the file."""
    reader, path = cv2.VideoCapture(str(video), cv2.CAP_FFMPEG), folder / "first.avi"
    images = [reader.read()[1] for _ in range(frames)]
    size = images[0].shape[1::-1]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 24, size)
    for image in images:
        writer.write(image)
    writer.release()
    return path

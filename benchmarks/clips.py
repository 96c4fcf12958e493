"""Clips that benchmarks score: a video's first frames."""

from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from human_anomaly.data.video import FrameReader, Source


def first_frames(video: Path, count: int) -> list[np.ndarray]:
    """Return the video's first frames (H, W, 3) uint8 BGR, at most `count`."""
    return [frame.image for frame in islice(FrameReader(Source(video, "video")), count)]


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

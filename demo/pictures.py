"""Write the README's pictures of videos: `python -m demo.pictures`.

Stills of the demo's videos, and a frame of an annotated one from results/demo: `make demo` first.
The diagrams are drawn by `python -m demo.diagrams`.
"""

from pathlib import Path

import cv2
import numpy as np

from demo.paths import ROOT, VIDEOS
from utils import UsageError, atomic_write, run_main

PICTURES = ROOT / "demo" / "pictures"
STILLS = {"normal_1": 18, "hand_fused": 12, "body_third_arm": 20}  # frames that show it well
STILL_WH = (640, 360)
ANNOTATED, FRAME = ROOT / "results" / "demo" / "hand_fused.annotated.webm", 10


def read_frame(path: Path, index: int) -> np.ndarray:
    """Return frame `index` of a video, (H, W, 3) uint8 BGR."""
    capture, image = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG), None
    for _ in range(index + 1):
        image = capture.read()[1]
    capture.release()
    if image is None:
        raise UsageError(f"{path}: no frame {index} there; run `make demo` first")
    return image


def write_jpeg(path: Path, image: np.ndarray) -> None:
    with atomic_write(path, "wb") as file:
        file.write(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes())


def main() -> int:
    for name, index in STILLS.items():
        frame = read_frame(VIDEOS / f"{name}.mp4", index)
        still = cv2.resize(frame, STILL_WH, interpolation=cv2.INTER_AREA)
        write_jpeg(PICTURES / f"{name}.jpg", still)
    write_jpeg(PICTURES / "annotated.jpg", read_frame(ANNOTATED, FRAME))
    return 0


if __name__ == "__main__":
    run_main(main)

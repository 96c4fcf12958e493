"""Write the README's picture from the demo's results: `python -m models.demo.pictures`.

Needs `make demo` first: it takes a frame of an annotated video in results/demo.
"""

import cv2

from models.demo.world import ROOT
from utils import UsageError, atomic_write, run_main

SOURCE = ROOT / "results" / "demo" / "hand_fused.annotated.webm"
FRAME = 10


def main() -> int:
    capture = cv2.VideoCapture(str(SOURCE), cv2.CAP_FFMPEG)
    image = None
    for _ in range(FRAME + 1):
        image = capture.read()[1]
    capture.release()
    if image is None:
        raise UsageError(f"{SOURCE}: no frame {FRAME} there; run `make demo` first")
    with atomic_write(ROOT / "demo" / "pictures" / "annotated.jpg", "wb") as file:
        file.write(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes())
    return 0


if __name__ == "__main__":
    run_main(main)

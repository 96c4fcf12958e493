"""What OpenCV 4.12 reads in some videos, and whether this project's reader gives the same pixels.

Made once, in an environment of its own (the videos of tests/files by tests/files/make.sh):

    python -m venv opencv412 && opencv412/bin/pip install "opencv-python==4.12.*"
    opencv412/bin/python tests/frame_hashes.py --make

    python tests/frame_hashes.py          # checks; needs only numpy, PyAV, Pillow and natsort
"""

import hashlib
import json
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
HASHES = ROOT / "tests/files/frames.json"


def videos() -> dict[str, Path]:
    """Return the videos that are here, by name; the golden clip is not tracked."""
    found = sorted((ROOT / "tests/files").glob("*.mp*")) + sorted((ROOT / "demo/videos").glob("*"))
    clips = (ROOT / "tests/goldens/clip.mp4", ROOT.parent / "shared/goldens/clip.mp4")
    found += [path for path in clips if path.is_file()][:1]
    return {path.name: path for path in found if path.suffix in (".mp4", ".mpg")}


def digest(frames: Iterable[np.ndarray]) -> list:
    """Return the number of frames, the first one's shape, and the SHA-256 of all pixels."""
    found, count, shape = hashlib.sha256(), 0, None
    for frame in frames:
        count, shape = count + 1, shape or frame.shape
        found.update(np.ascontiguousarray(frame))
    return [count, list(shape), found.hexdigest()]


def by_opencv(path: Path) -> Iterable[np.ndarray]:
    import cv2

    assert cv2.__version__.startswith("4.12."), cv2.__version__
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    while (read := capture.read())[0]:
        yield read[1]


def by_reader(path: Path) -> Iterable[np.ndarray]:
    sys.path.insert(0, str(ROOT))
    from human_anomaly.data.video import FrameReader, Source

    return (frame.image for frame in FrameReader(Source(path, path.stem)))


def differing() -> list[str]:
    """Return the names of the videos in which the reader's pixels are not OpenCV 4.12's."""
    expected = json.loads(HASHES.read_text())
    return [name for name, path in videos().items() if digest(by_reader(path)) != expected[name]]


if __name__ == "__main__":
    if sys.argv[1:] == ["--make"]:
        rows = {name: digest(by_opencv(path)) for name, path in videos().items()}
        lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(row)}" for name, row in rows.items())
        HASHES.write_text(f"{{\n{lines}\n}}\n")
    else:
        sys.exit(f"other pixels: {', '.join(names)}" if (names := differing()) else 0)

"""How many frames two versions of the reader give of damaged videos, and where they differ.

    python tests/robustness/frames_before.py --before ../checkout_of_before 300

Each version reads the same files in a process of its own, which is started again if it dies.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from clips import damaged_clip

FRAMES = 12  # in each video
ROOT = Path(__file__).resolve().parents[2]
READER = """
import sys
from pathlib import Path
sys.path.insert(0, ".")
try:
    from human_anomaly.data.video import FrameReader, Source, VideoError
except ModuleNotFoundError:
    from data.video import FrameReader, Source, VideoError
import json
for line in sys.stdin:
    path = Path(line.strip())
    count, why = 0, []
    try:
        reader = FrameReader(Source(path, "a"))
        why = reader.warnings
        for frame in reader:
            count += 1
    except VideoError as error:
        why = [*why, str(error)]
    print(json.dumps([count, why]), flush=True)
"""


class Version:
    """Reads videos with the code below `folder`; `crashes` counts the deaths of its process."""

    def __init__(self, folder: Path):
        self.folder, self.crashes = folder, 0
        self._start()

    def _start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", READER],
            cwd=self.folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def read(self, path: Path) -> list:
        """Return [frames, warnings and errors]."""
        self._process.stdin.write(f"{path}\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if line:
            return json.loads(line)
        self.crashes += 1
        self._start()
        return [0, ["crashed"]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", type=Path, required=True, help="checkout of the other version")
    parser.add_argument("count", type=int)
    args = parser.parse_args()
    now, before = Version(ROOT), Version(args.before)
    outcomes = Counter()
    for number in range(args.count):
        with tempfile.TemporaryDirectory() as folder:
            path = damaged_clip(Path(folder), random.Random(f"videos {number}"))
            (new, why), (old, why_old) = now.read(path), before.read(path)
            outcome = "more" if new > old else "fewer" if new < old else "same"
            silent = not why and new < FRAMES
            outcomes[outcome] += 1
            outcomes["frames missing without a warning"] += silent
            outcomes["the same, before"] += not why_old and old < FRAMES
        if outcome != "same" or silent:
            print(f"{number} {path.suffix}: {new} frames {why}; before {old} {why_old}")
    crashes = {"crashes": now.crashes, "crashes before": before.crashes}
    print(json.dumps({"files": args.count, **outcomes, **crashes}))


if __name__ == "__main__":
    main()

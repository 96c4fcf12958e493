"""Kill a script at random moments, run it again, and compare with a run that nobody killed.

python tests/robustness/kills.py inference 30
python tests/robustness/kills.py preprocess 20
"""

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DETECTOR = ["--detector-config", "configs/demo/yolo_world_demo.py"]
DETECTOR += ["--detector-weights", "demo/weights/detector.pth"]


def command(script: str, output: Path) -> list[str]:
    stride = ["--frame-stride", "20", "--output", str(output)]
    if script == "inference":
        return [sys.executable, "inference.py", "--video", "demo/videos", *stride]
    return [sys.executable, "preprocess.py", "--input", "demo/videos", *DETECTOR, *stride]


def results(folder: Path) -> dict[str, object]:
    """Return the content of each result file; how long it took is no result."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and ".state" not in path.parts:
            found[path.relative_to(folder).as_posix()] = path.read_bytes()
    if "scores.json" in found:
        scores = json.loads(found["scores.json"])
        found["scores.json"] = scores
        for row in scores["videos"]:
            row.pop("seconds")
    return found


def run(words: list[str], kill_after: float | None = None) -> int:
    process = subprocess.Popen(
        words, cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    try:
        return process.wait(kill_after)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("script", choices=("inference", "preprocess"))
    parser.add_argument("kills", type=int)
    args = parser.parse_args()
    rng, outcomes = random.Random(0), {"kills": 0, "same": 0, "lost": 0}
    with tempfile.TemporaryDirectory() as folder:
        whole, cut = Path(folder) / "whole", Path(folder) / "cut"
        start = time.perf_counter()
        assert run(command(args.script, whole)) == 0
        length, expected = time.perf_counter() - start, results(whole)
        while outcomes["kills"] < args.kills:
            killed = run(command(args.script, cut), rng.uniform(0.1, 0.95) * length) < 0
            outcomes["kills"] += killed
            if killed and rng.random() < 0.5:  # half of the runs are killed several times
                continue
            same = run(command(args.script, cut)) == 0 and results(cut) == expected
            outcomes["same" if same else "lost"] += 1
            shutil.rmtree(cut)
    print(json.dumps({"script": args.script, **outcomes}))
    return int(outcomes["lost"] > 0)


if __name__ == "__main__":
    sys.exit(main())

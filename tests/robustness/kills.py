"""Kill a script at random moments, run it again, and compare with a run that nobody killed.

    python tests/robustness/kills.py inference 30

Scripts: inference, ray (inference.py --ray), preprocess, training, training-two (two processes).
Training's checkpoints are compared bit for bit, other results byte for byte.
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from scripts import SCRIPTS, command, results, run


def kill(script: str, kills: int) -> dict[str, int]:
    """Return how many kills there were, and how many results were the "same" or "lost" after."""
    rng, outcomes = random.Random(0), {"kills": 0, "same": 0, "lost": 0}
    with tempfile.TemporaryDirectory() as folder:
        data, whole, cut = (Path(folder) / name for name in ("data", "whole", "cut"))
        start = time.perf_counter()
        status, told = run(command(script, whole, data))
        assert status == 0, told
        length, expected = time.perf_counter() - start, results(whole)
        assert expected
        while outcomes["kills"] < kills:
            words = command(script, cut, data)
            killed = run(words, rng.uniform(0.1, 0.95) * length)[0] < 0
            outcomes["kills"] += killed
            if killed and rng.random() < 0.5:  # half of the runs are killed several times
                continue
            status, told = run(words)
            same = status == 0 and results(cut) == expected
            outcomes["same" if same else "lost"] += 1
            if not same:
                print(status, told[-2000:], sorted(results(cut)), file=sys.stderr)
            shutil.rmtree(cut)
    return outcomes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("script", choices=SCRIPTS)
    parser.add_argument("kills", type=int)
    args = parser.parse_args()
    outcomes = kill(args.script, args.kills)
    print(json.dumps({"script": args.script, **outcomes}))
    return int(outcomes["lost"] > 0)


if __name__ == "__main__":
    sys.exit(main())

"""Fill the disk that a script writes to: small file systems in memory (needs root).

    python tests/robustness/disks.py inference

At each size the script must end by itself with one line and status 1 or 2, or succeed; a
second run, on the same disk made large, must finish with the results of one that had room.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from scripts import SCRIPTS, command, results, run

LEAST, SECONDS = 8, 300  # least: KiB


def used(folder: Path) -> int:
    """Return KiB that the files below `folder` take in pages of 4 KiB."""
    return sum(-(-p.stat().st_size // 4096) * 4 for p in folder.rglob("*") if p.is_file())


def fault(script: str, disk: Path, size: int, data: Path, expected: dict) -> str | None:
    """Run the script on a disk of `size` KiB, then on a large one; return what went wrong."""
    output = disk / "out"
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", disk], check=True)
    try:
        status, told = run(command(script, output, data), SECONDS)
        if status not in (0, 1, 2):
            return f"status {status}: {told[-300:]}"
        if "Traceback" in told:
            return f"a traceback: {told[-600:]}"
        if status and not told.strip():
            return f"status {status} without a word"
        if left := [p.name for p in output.rglob("*.part*")]:
            return f"left behind: {left}"
        if status == 0 and results(output) != expected:
            return "status 0 with other results"
        subprocess.run(["mount", "-o", "remount,size=1g", disk], check=True)
        status, told = run(command(script, output, data), SECONDS)
        if status or results(output) != expected:
            return f"the run with room: status {status}, {told[-300:]}"
    finally:
        subprocess.run(["umount", disk], check=True)
    return None


def fill(script: str, sizes: int) -> dict[int, str]:
    """Return what went wrong at each of `sizes` sizes of the disk, from LEAST to enough (KiB)."""
    lost = {}
    with tempfile.TemporaryDirectory() as folder:
        data, whole, disk = (Path(folder) / name for name in ("data", "whole", "disk"))
        status, told = run(command(script, whole, data))
        assert status == 0, told
        expected, most = results(whole), used(whole)
        shutil.rmtree(whole)
        disk.mkdir()
        for i in range(sizes):
            size = round(LEAST * (1.1 * most / LEAST) ** (i / (sizes - 1)))
            if wrong := fault(script, disk, size, data, expected):
                lost[size] = wrong
    return lost


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("script", choices=SCRIPTS)
    parser.add_argument("sizes", type=int, nargs="?", default=20)
    args = parser.parse_args()
    lost = fill(args.script, args.sizes)
    for size, wrong in lost.items():
        print(f"{size} KiB: {wrong}")
    print(json.dumps({"script": args.script, "sizes": args.sizes, "lost": len(lost)}))
    return int(len(lost) > 0)


if __name__ == "__main__":
    sys.exit(main())

"""Scoring a folder of the benchmark's videos with inference.py."""

import glob
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from human_anomaly.configs.defaults import PARTS
from human_anomaly.data.runs.marks import read_object
from human_anomaly.models.scoring.results import count, first_five, read_scores
from human_anomaly.tools.vbench2.evaluation import Evaluation, collect
from human_anomaly.tools.vbench2.prompts import CUSTOM, STANDARD, mp4_names, standard_names
from human_anomaly.utils import UsageError, world_size, write_json

WEIGHT_FLAGS = ("--detector-config", "--detector-weights", *(f"--{part}-model" for part in PARTS))

ASKED = "vbench2.json"  # in the folder of results: name, mode and videos that were asked for


class RunError(Exception):
    """A script that failed; `status` is 2 for wrong use, else 1."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = 2 if status == 2 else 1


def run_script(script: str, *words: str | Path) -> int:
    """Run one of the three scripts with this interpreter and return its exit status.

    Status 1 says that some inputs failed. Any other status but 0 raises RunError.
    """
    command = [sys.executable, "-m", f"human_anomaly.{Path(script).stem}", *map(str, words)]
    shown = shlex.join(["python", *command[1:]])
    shown = shown if len(shown) < 400 else f"{shown[:400]} ..."
    print(f"$ {shown}", flush=True)
    status = subprocess.run(command).returncode
    if status not in (0, 1):
        raise RunError(status, f"{script} ended with exit status {status}")
    return status


def evaluate(
    videos: Path,
    output: Path,
    *,
    name: str,
    mode: str = STANDARD,
    prompts: list[str] | None = None,
    allow_missing: bool = False,
    flags: Sequence[str] = (),
) -> Evaluation | None:
    """Score the benchmark's videos in the folder `videos` with inference.py into `output`.

    `flags` are inference.py's; if none of them names weights, the released ones are used. Returns
    None in a process of torchrun that ends while others still score. Raises UsageError for missing
    videos unless `allow_missing`, RunError where scoring fails.
    """
    present = mp4_names(videos)
    wanted = present if mode == CUSTOM else standard_names(present, prompts)
    found = set(wanted).intersection(present)
    _check_videos(videos, mode, wanted, found, allow_missing)
    given = {word.partition("=")[0].replace("_", "-") for word in flags}
    if given.isdisjoint(WEIGHT_FLAGS):
        flags = ["--release", *flags]
    inputs = [videos / file for file in sorted(found)]
    if mode == CUSTOM:  # a pattern, because a command line may not hold all names
        inputs = [f"{glob.escape(str(videos))}/*.[mM][pP]4"]
    path = output / "scores.json"
    before = path.stat().st_mtime_ns if path.is_file() else None
    status = run_script("inference.py", *flags, "--output", output, "--video", *inputs)
    written = path.is_file() and path.stat().st_mtime_ns != before
    if not written and status:
        raise RunError(
            status, f"inference.py ended with exit status {status} before it wrote {path}"
        )
    if not written and world_size() > 1:
        return None
    scores = read_scores(path)
    asked = {"name": name, "mode": mode, "videos": str(videos), "allow_missing": allow_missing}
    write_json(output / ASKED, asked | {"wanted": wanted})
    result = collect(scores, wanted, name=name, folder=videos, mode=mode)
    if unknown := sorted(found.intersection(result.missing)):
        raise RunError(
            status, f"{path}: holds neither a score nor an error for {first_five(unknown)}"
        )
    names = {path.name for path in videos.iterdir() if not path.name.startswith(".")}
    result.left_out = sorted(names.difference(wanted))
    return result


def read_asked(folder: Path) -> dict:
    """Return the ASKED file's content in a folder of results, {} without that file."""
    path, types = folder / ASKED, {"name": str, "mode": str, "videos": str, "wanted": list}
    if not path.exists():
        return {}
    asked = read_object(path) or {}
    whole = all(isinstance(asked.get(key), kind) for key, kind in types.items())
    if not whole or not all(isinstance(name, str) for name in asked["wanted"]):
        raise UsageError(f"{path}: expected {', '.join(types)} as tools.vbench2 writes; delete it")
    return asked


def _check_videos(
    videos: Path, mode: str, wanted: list[str], found: set[str], allow_missing: bool
) -> None:
    """Raise UsageError where videos are missing."""
    if not found and mode == CUSTOM:
        raise UsageError(f"--videos: expected .mp4 files directly in {videos}, found none")
    if not found:
        raise UsageError(
            f"--videos: expected files named <prompt>-<0..2>.mp4 directly in {videos}, found none; "
            f"--mode {CUSTOM} scores .mp4 files of any name"
        )
    missing = [name for name in wanted if name not in found]
    if missing and not allow_missing:
        raise UsageError(
            f"--videos: {len(missing)} of {count(len(wanted), 'video')} missing in {videos}: "
            f"{first_five(missing)}; --allow-missing scores the others"
        )

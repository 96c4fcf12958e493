"""The three scripts on small inputs, for what kills them or fills their disk."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import uuid
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from finetune_runs import command as training
from finetune_runs import write_data

ROOT = Path(__file__).resolve().parents[2]
DETECTOR = ["--detector-config", "configs/demo/yolo_world_demo.py"]
DETECTOR += ["--detector-weights", "demo/weights/detector.pth"]
TWO = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
SCRIPTS = ("inference", "report", "ray", "preprocess", "training", "training-two")


def command(script: str, output: Path, data: Path) -> list[str]:
    """Return the words that run `script`; `data` is where its training set lies, or is written."""
    stride = ["--frame-stride", "20", "--output", str(output)]
    if script == "preprocess":
        words = ["preprocess.py", "--input", "demo/videos", *DETECTOR, *stride]
    elif script.startswith("training"):
        if not data.is_dir():
            write_data(data)
        words = ["main_finetune.py", *training(data, output, "--opts", "TRAIN.EPOCHS", "6")]
        words = [*(TWO if script == "training-two" else []), *words]
    else:
        more = {"inference": [], "report": ["--report"], "ray": ["--ray"]}[script]
        words = ["inference.py", "--video", "demo/videos", *more, *stride]
    return [sys.executable, *words]


def run(words: list[str], kill_after: float | None = None) -> tuple[int, str]:
    """Run `words`, or kill them and all that they started; return status and standard error."""
    mark = f"TRY={uuid.uuid4()}"
    with tempfile.TemporaryFile("w+") as told:
        process = subprocess.Popen(
            words,
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=told,
            env={**os.environ, "OMP_NUM_THREADS": "1", **dict([mark.split("=")])},
        )
        try:
            process.wait(kill_after)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kill_all(mark)
        told.seek(0)
        return process.returncode, told.read()


def kill_all(mark: str) -> None:
    """Kill the processes that inherited `mark`: torchrun's and Ray's are in no common group."""
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if mark.encode() in path.read_bytes().split(b"\0"):
                os.kill(int(path.parent.name), signal.SIGKILL)


def results(folder: Path) -> dict[str, object]:
    """Return the content of each result; times, logs and pages that hold them are no results."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_file() or name.startswith((".state", "report/")):
            continue
        if name == "scores.json":
            found[name] = json.loads(path.read_text())
            for row in found[name]["videos"]:
                row.pop("seconds")
        elif path.suffix == ".pth":
            state = torch.load(path, weights_only=True)["model"]
            found[name] = {key: value.numpy().tobytes() for key, value in state.items()}
        elif path.suffix not in (".txt", ".log", ".html", ".csv", ".png", ".webm", ".yaml"):
            found[name] = path.read_bytes()
    found.pop("metrics.jsonl", None)  # holds seconds
    return found

"""inference.py, called here with the embedded weights."""

import json
from pathlib import Path

from conftest import ROOT

from human_anomaly import inference

VIDEOS = ROOT / "demo" / "videos"


def run(output: Path, *flags) -> tuple[int, dict]:
    """Score into `output`; return the exit status and scores.json."""
    status = inference.main(["--device", "cpu", *map(str, flags), "--output", str(output)])
    path = output / "scores.json"
    return status, json.loads(path.read_text()) if path.is_file() else {}


def without_seconds(scores: dict) -> dict:
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in scores["videos"]]
    return {**scores, "videos": rows}

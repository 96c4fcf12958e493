"""The GPU's benchmark, at nano size on the CPU (`make check`)."""

import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT

pytestmark = pytest.mark.slow


def test_every_section_runs_on_a_cpu(tmp_path):
    command = [ROOT / "tests/benchmarks/gpu.sh", "--cpu", "--output", tmp_path / "gpu.json"]
    environment = {**os.environ, "PYTHON": sys.executable}
    done = subprocess.run(
        list(map(str, command)), env=environment, capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert list(found) == [
        *("machine", "reference", "passes", "graphs", "crops", "videos", "score_frames"),
        *("training", "loader"),
    ]
    assert all(row["met"] for row in found["reference"])
    assert {row["mode"] for row in found["passes"]} == {"exact", "fast"}
    for section, rate in (
        ("passes", "network/s"),
        ("crops", "crops/s"),
        ("videos", "frames/s"),
        ("score_frames", "frames/s"),
        ("training", "images/s"),
        ("loader", "images/s"),
    ):
        assert all(row[rate] > 0 for row in found[section])
        assert f"## {section}" in done.stdout

"""The GPU's benchmark, at nano size on the CPU (`make check`)."""

import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT

from benchmarks.gpu_sections import SECTIONS

pytestmark = pytest.mark.slow
RATES = {
    **{"passes": "network/s", "crops": "crops/s"},
    **{"pipeline": "frames/s", "training": "images/s"},
}


def run(output, seconds: int) -> tuple[int, dict, str]:
    command = [ROOT / "benchmarks/gpu.sh", "--cpu", "--seconds", seconds, "--output", output]
    done = subprocess.run(
        list(map(str, command)),
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
    )
    return done.returncode, json.loads(output.read_text())["sections"], done.stdout + done.stderr


def test_it_is_cut_goes_on_and_runs_every_section(tmp_path):
    output = tmp_path / "gpu.json"
    status, cut, _ = run(output, 25)
    assert status == 1 and not all(section["done"] for section in cut.values())
    known = [row for section in cut.values() for row in section["rows"]]
    status, found, printed = run(output, 1200)
    assert status == 0, printed
    assert list(found) == list(SECTIONS) and all(section["done"] for section in found.values())
    rows = [row for section in found.values() for row in section["rows"]]
    assert known and all(row in rows for row in known)
    assert all(row["met"] for row in found["reference"]["rows"])
    for section, rate in RATES.items():
        assert found[section]["rows"] and all(row[rate] > 0 for row in found[section]["rows"])
        assert f"## {section}" in printed
    assert "| passes/s, exact | 110 | not measured | |" in printed

"""Kills and full disks lose nothing: `make check` makes a few, kills.py and disks.py many."""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from disks import fill
from kills import kill
from scripts import SCRIPTS

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_killed_script_goes_on_to_the_same_results(script):
    outcomes = kill(script, 2)
    assert outcomes["lost"] == 0 and outcomes["same"] > 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make small file systems")
@pytest.mark.parametrize("script", ["inference", "preprocess", "training"])
def test_a_full_disk_is_one_line_and_goes_on_with_room(script):
    assert fill(script, 3) == {}

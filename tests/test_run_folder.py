"""The run's folder: newest whole checkpoint, other settings, a full disk, random states."""

import json
import random
import resource

import numpy as np
import pytest
import torch

from human_anomaly.configs.defaults import get_config
from human_anomaly.models.training import run_folder
from human_anomaly.models.training.history import keep_metrics
from human_anomaly.models.training.random_states import random_states, set_random_states
from human_anomaly.utils import UsageError


def test_newest_first_by_number(tmp_path):
    for name in ("ckpt4.pth", "ckpt29.pth", "ckpt9.pth", "last.pth", "ckptx.pth", ".last.pth.part"):
        (tmp_path / name).touch()
    names = [path.name for path in run_folder.checkpoints(tmp_path)]
    assert names == ["last.pth", "ckpt29.pth", "ckpt9.pth", "ckpt4.pth"]


def test_half_written_files_are_passed_over(tmp_path):
    run_folder.save(tmp_path / "ckpt4.pth", {"epoch": 4, "model": {"w": torch.ones(3)}})
    run_folder.save(tmp_path / "last.pth", {"epoch": 6, "model": {"w": torch.ones(3)}})
    assert run_folder.newest_whole(tmp_path)[1]["epoch"] == 6
    whole = (tmp_path / "last.pth").read_bytes()
    for cut in (0, 10, len(whole) // 2, len(whole) - 1):
        (tmp_path / "last.pth").write_bytes(whole[:cut])
        path, content = run_folder.newest_whole(tmp_path)
        assert path.name == "ckpt4.pth" and content["epoch"] == 4
    (tmp_path / ".last.pth.12.part").write_bytes(whole)
    run_folder.prepare(tmp_path, get_config(), overwrite=True)
    assert not list(tmp_path.glob(".*"))
    (tmp_path / "ckpt4.pth").write_bytes(b"PK")
    assert run_folder.newest_whole(tmp_path) is None


def test_disk_full_leaves_the_old_checkpoint(tmp_path):
    """A limit on file size stops the write as a full disk does."""
    path = tmp_path / "last.pth"
    run_folder.save(path, {"epoch": 1})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(UsageError, match=r"last\.pth: cannot save .* untouched"):
            run_folder.save(path, {"epoch": 2, "model": torch.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert run_folder.read_checkpoint(path) == {"epoch": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["last.pth"]


def test_other_settings_are_a_conflict(tmp_path):
    config = get_config(None, flags={"SEED": 3})
    assert run_folder.find_conflict(tmp_path / "none", config) == ""
    (tmp_path / "config.yaml").write_text(config.dump())
    other = get_config(None, flags={"SEED": 4, "PRINT_FREQ": 1})
    assert run_folder.find_conflict(tmp_path, other) == ""  # no checkpoint, nothing to lose
    (tmp_path / "last.pth").touch()
    assert run_folder.find_conflict(tmp_path, config) == ""
    message = run_folder.find_conflict(tmp_path, other)
    assert "SEED 3, now 4" in message and "PRINT_FREQ" not in message
    (tmp_path / "config.yaml").unlink()  # say, a released checkpoint put there
    assert "no config.yaml" in run_folder.find_conflict(tmp_path, config)


def test_clear_deletes_the_run_and_nothing_else(tmp_path):
    own = ("ckpt4.pth", "ckpt4.calibrated.pth", "best.pth", "best.calibrated.pth", "last.pth")
    for name in (*own, "config.yaml", "metrics.jsonl", "notes.txt", "ckpt.pth", "hand.pth"):
        (tmp_path / name).touch()
    (tmp_path / "report").mkdir()
    run_folder.clear(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ckpt.pth", "hand.pth", "notes.txt"]


def test_random_states_survive_the_file(tmp_path):
    cpu = torch.device("cpu")
    random.gauss(0, 1), np.random.randn()  # each leaves a second number in waiting
    run_folder.save(tmp_path / "last.pth", {"states": random_states(cpu)})

    def draw():
        return random.gauss(0, 1), random.random(), *np.random.randn(3), *torch.rand(3).tolist()

    expected = draw()
    draw()
    states = run_folder.read_checkpoint(tmp_path / "last.pth")["states"]
    set_random_states(states, cpu)
    assert draw() == expected


def test_metrics_of_epochs_to_come_are_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    keep_metrics(path, 1)
    assert not path.exists()
    rows = [{"epoch": 0, "loss": 1.0}, {"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.4}]
    path.write_text("\n".join(map(json.dumps, rows)) + '\n{"epoch": 2, "lo')
    keep_metrics(path, 2)
    assert [json.loads(line) for line in path.read_text().splitlines()] == rows[:2]

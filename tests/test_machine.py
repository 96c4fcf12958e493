"""What the environment says of a process: odd numbers, and a container's share of the cores."""

import os

import pytest
import torch

from human_anomaly import main_finetune
from human_anomaly.configs import machine
from human_anomaly.models.device import share_cores
from human_anomaly.utils import UsageError

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "OMP_NUM_THREADS")
SLURM = ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_STEP_NUM_TASKS", "SLURM_STEP_TASKS_PER_NODE")


@pytest.fixture
def bare(tmp_path, monkeypatch):
    """64 cores, no cgroups but those in the returned folder, no process but this one."""
    for name in (*NAMES, *SLURM, "PYTHON_CPU_COUNT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(64))
    monkeypatch.setattr(machine, "CGROUPS", tmp_path)
    monkeypatch.setattr(machine, "OWN_CGROUPS", tmp_path / "self")
    return tmp_path


def v1(group: str, quota: int) -> dict[str, str]:
    return {f"{group}/cpu.cfs_quota_us": f"{quota}\n", f"{group}/cpu.cfs_period_us": "100000\n"}


# The process's groups, the files of the cgroups, and the cores.
QUOTAS = [
    ("0::/\n", {"cpu.max": "50000 100000\n"}, 1),
    ("0::/\n", {"cpu.max": "400000 100000\n"}, 4),
    ("0::/\n", {"cpu.max": "250000 100000\n"}, 3),
    ("0::/\n", {"cpu.max": "max 100000\n"}, 64),
    ("0::/\n", {"cpu.max": "9000000 100000\n"}, 64),
    ("0::/\n", {"cpu.max": "odd\n"}, 64),
    # The group above has less.
    ("0::/pod/app\n", {"pod/app/cpu.max": "800000 100000", "pod/cpu.max": "300000 100000"}, 3),
    ("4:cpu,cpuacct:/\n3:memory:/\n", v1("cpu", 150000), 2),
    ("4:cpu,cpuacct:/\n", v1("cpu", -1), 64),
    # Docker names the group by its place on the host, and shows it as the top one.
    ("4:cpu,cpuacct:/docker/1f\n0::/docker/1f\n", v1("cpu", 200000), 2),
    ("4:cpu:/user/me\n", v1("cpu", -1) | v1("cpu/user/me", 500000), 5),
    ("4:memory:/a\n", v1("cpu", 200000), 64),  # not a group for cores
    ("", {}, 64),
]


@pytest.mark.parametrize(("own", "files", "cores"), QUOTAS)
def test_a_containers_quota_is_honoured(bare, own, files, cores):
    (bare / "self").write_text(own)
    for name, text in files.items():
        (bare / name).parent.mkdir(parents=True, exist_ok=True)
        (bare / name).write_text(text)
    assert machine.cores_per_process() == cores
    assert share_cores(torch.device("cpu")) == (min(cores, 16), 1)


def test_a_machine_without_cgroups_has_all_its_cores(bare):
    assert machine.cores_per_process() == 64


def test_processes_share_what_the_quota_allows(bare, monkeypatch):
    (bare / "self").write_text("0::/\n")
    (bare / "cpu.max").write_text("400000 100000\n")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert machine.cores_per_process() == 2
    monkeypatch.setenv("PYTHON_CPU_COUNT", "6")
    assert machine.cores_per_process() == 3
    monkeypatch.setenv("PYTHON_CPU_COUNT", "default")  # as Python 3.13 understands it
    assert machine.cores_per_process() == 2


# The variables, what is asked, and the number.
NUMBERS = [
    ({}, "world_size", 1),
    ({"WORLD_SIZE": "", "RANK": ""}, "world_size", 1),
    ({"WORLD_SIZE": " 2 "}, "world_size", 2),
    ({"WORLD_SIZE": "", "SLURM_STEP_NUM_TASKS": "3"}, "world_size", 3),
    ({"RANK": ""}, "rank", 0),
    ({"RANK": "0", "SLURM_PROCID": "5"}, "rank", 0),
    ({"SLURM_PROCID": "5"}, "rank", 5),
    ({"LOCAL_RANK": ""}, "local_rank", 0),
    ({"SLURM_STEP_TASKS_PER_NODE": "2(x3),1"}, "processes_here", 2),
    ({"SLURM_STEP_TASKS_PER_NODE": "4,2"}, "processes_here", 4),
]


@pytest.mark.parametrize(("environment", "function", "number"), NUMBERS)
def test_odd_numbers_in_the_environment(bare, monkeypatch, environment, function, number):
    for name, text in environment.items():
        monkeypatch.setenv(name, text)
    assert getattr(machine, function)() == number


@pytest.mark.parametrize(
    ("name", "text", "function", "least"),
    [
        ("WORLD_SIZE", "two", "world_size", 1),
        ("WORLD_SIZE", "0", "world_size", 1),
        ("RANK", "-1", "rank", 0),
        ("LOCAL_RANK", "1.5", "local_rank", 0),
        ("PYTHON_CPU_COUNT", "many", "cores_per_process", 0),
    ],
)
def test_what_is_no_number_is_named(bare, monkeypatch, name, text, function, least):
    monkeypatch.setenv(name, text)
    expected = f"^{name}: expected a whole number from {least} on, got '{text}'$"
    with pytest.raises(UsageError, match=expected):
        getattr(machine, function)()


@pytest.mark.parametrize(("text", "threads"), [("", 2), ("0", 2), ("4,2", 4), ("3", 3), (None, 2)])
def test_training_takes_any_number_of_threads(bare, monkeypatch, text, threads):
    monkeypatch.setenv("PYTHON_CPU_COUNT", "2")
    if text is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", text)
    before = torch.get_num_threads()
    try:
        with pytest.raises(UsageError, match="--train-path: missing"):
            main_finetune.main(["--output", "out"])
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)

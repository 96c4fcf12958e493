"""A process's number, and how many CPU cores it may use, by what its environment says."""

import math
import os
import re
from contextlib import suppress
from pathlib import Path

CGROUPS, OWN_CGROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def number_in(*names: str, least: int = 0) -> int:
    """Return the number in the first environment variable of `names` that is set, else `least`.

    Of a list, as OpenMP and Slurm write it, the first number counts. Raises UsageError for other
    text, and for a number below `least`.
    """
    for name in names:
        text = os.environ.get(name, "").strip()
        if text and text != "default":  # as PYTHON_CPU_COUNT may say
            from human_anomaly.utils import UsageError  # which imports this module

            digits = re.match(r"[0-9]{1,9}(?=$|[,(])", text)
            if digits is None or int(digits[0]) < least:
                raise UsageError(f"{name}: expected a whole number from {least} on, got {text!r}")
            return int(digits[0])
    return least


def rank() -> int:
    """Return this process's number among all of torchrun's or srun's processes (0 if alone)."""
    return number_in("RANK", "SLURM_PROCID")


def world_size() -> int:
    """Return how many processes torchrun or srun started (1 if alone)."""
    return number_in("WORLD_SIZE", "SLURM_STEP_NUM_TASKS", least=1)


def local_rank() -> int:
    """Return this process's number among those on this machine."""
    return number_in("LOCAL_RANK", "SLURM_LOCALID")


def processes_here() -> int:
    """Return how many of the processes run on this machine."""
    return number_in("LOCAL_WORLD_SIZE", "SLURM_STEP_TASKS_PER_NODE", least=1)


def cores_per_process() -> int:
    """Return how many CPU cores each process on this machine may use.

    The processes share as many as PYTHON_CPU_COUNT says, else as CPU affinity and a container's
    quota allow.
    """
    affinity = getattr(os, "sched_getaffinity", None)  # Linux alone has it
    allowed = min(len(affinity(0)) if affinity else os.cpu_count() or 1, _quota())
    cores = number_in("PYTHON_CPU_COUNT") or math.ceil(allowed)
    return max(1, cores // processes_here())


def _quota() -> float:
    """Return the CPU quota of this process's cgroups in cores, infinity if there is none.

    The groups above a group limit it, too. Inside a container, its own group may be the top one.
    """
    quotas = [math.inf]
    with suppress(OSError):  # not Linux
        for line in OWN_CGROUPS.read_text().splitlines():
            _, kinds, name = line.split(":", 2)  # "4:cpu,cpuacct:/docker/1f", version 2 "0::/"
            if kinds and "cpu" not in kinds.split(","):
                continue
            top = CGROUPS / "cpu" if kinds else CGROUPS
            group = top / name.strip("/")
            groups = [group, *group.parents]
            quotas += map(_quota_of, groups[: groups.index(top) + 1])
    return min(quotas)


def _quota_of(group: Path) -> float:
    for files in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        with suppress(OSError, ValueError):  # the other version's, or "max"
            quota, period = map(int, " ".join((group / f).read_text() for f in files).split())
            if quota > 0 and period > 0:
                return quota / period
    return math.inf

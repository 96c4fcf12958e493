"""Ray's drivers for tests, each run in a process of its own: Ray may end it without a word."""

import logging
import os
import signal
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from human_anomaly.data.runs import on_ray
from human_anomaly.data.runs.jobs import JobFolder
from human_anomaly.data.runs.on_ray import ray_actors
from human_anomaly.data.video import Source
from human_anomaly.utils import UsageError

SOURCES = [Source(Path(name), name) for name in ("light", "heavy", "odd", "other")]


def in_a_process(function: Callable, *args):
    """Return what `function` returns, or raise its error, BrokenProcessPool if the process ends."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def items_of_which_one_kills(address: str, jobs: JobFolder):
    """Return the actors, and what became of each of SOURCES."""

    def make():
        def work(source: Source) -> str:
            if source.stem == "heavy":
                os.kill(os.getpid(), signal.SIGKILL)
            if source.stem == "odd":
                raise ValueError("two\nlines")
            return source.stem.upper()

        return work

    with ray_actors(address, device="auto", cores=1) as actors:
        done = actors.map(make, SOURCES, jobs)
        return actors, {source.stem: found for source, *found in done}


def actors_that_cannot_start(address: str, jobs: JobFolder) -> list[str]:
    """Return the errors of actors that refuse and of ones that die."""

    def refuse():
        raise UsageError("hand.pth: no such file")

    def die():
        os.kill(os.getpid(), signal.SIGKILL)

    errors = []
    with ray_actors(address, device="cpu", cores=1) as actors:
        for make in (refuse, die):
            try:
                list(actors.map(make, SOURCES, jobs))
            except UsageError as error:
                errors.append(str(error))
    return errors


def a_job_that_waits(address: str, jobs: JobFolder) -> tuple[list, list[str]]:
    """Return the errors and the log of a job while another one holds all cores until a line."""
    import ray

    class Holder:
        def holds(self) -> bool:
            return True

    class LetGo(logging.Handler):
        def emit(self, record) -> None:
            lines.append(record.getMessage())
            ray.kill(holder)

    lines: list[str] = []
    on_ray.SILENT_SECONDS = 1
    on_ray.logger.addHandler(LetGo())
    with ray_actors(address, device="cpu", cores=2) as actors:
        holder = ray.remote(num_cpus=2)(Holder).remote()
        assert ray.get(holder.holds.remote())
        found = actors.map(lambda: str, SOURCES[:1], jobs)
        return [error for _, _, error in found], lines


def reach(addresses: list[str], environment: dict[str, str], own_search: bool) -> list[str]:
    """Return why clusters cannot be reached; without `own_search` Ray sees no processes here."""
    from ray._private import services

    os.environ |= environment
    if not own_search:
        services.find_gcs_addresses = lambda: set()
    errors = []
    for address in addresses:
        try:
            with ray_actors(address, device="cpu", cores=1):
                errors.append("reached")
        except UsageError as error:
            errors.append(str(error))
    return errors

"""Work for many machines: the items of a run in Ray Data's actors.

Ray brings the scheduling, the retries and the machines; what is done with an item is the caller's.
"""

import logging
import os
import pickle
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar
from urllib.parse import urlsplit

from utils import UsageError, cores_per_process

logger = logging.getLogger(__name__)

LOCAL = "local"  # the address of a cluster that is started for this run alone
SILENT_SECONDS = 300  # without a result for so long, the log says what the cluster is busy with
BLOCKS_PER_ACTOR = 50  # small blocks, so that no actor is idle at the end
MOST_PER_BLOCK = 16

T = TypeVar("T")


def _actor(make: Callable[[], Callable]) -> type:
    """Return the class of an actor that calls `make()` once, and what it gives with each item."""

    class Actor:
        def __init__(self):
            self.worker = make()

        def __call__(self, batch: dict) -> dict:
            return {"result": [pickle.dumps(self.result(item)) for item in batch["item"]]}

        def result(self, item: bytes) -> tuple:
            try:
                return self.worker(pickle.loads(item)), None
            except Exception as error:  # Ray drops a block that raises, with all its items
                return None, f"{type(error).__name__}: {error}"

    return Actor


@contextmanager
def cluster(address: str) -> Iterator:
    """Join the Ray cluster at `address`, or start a local one; yield the module `ray`.

    Raises UsageError where Ray is not installed or the cluster cannot be reached.
    """
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise UsageError("--ray: Ray is not installed; pip install '.[ray]'") from error
    if address not in (LOCAL, "auto"):
        _refuse_unreachable(address)
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # what concerns a user is said here
    options = {"num_cpus": cores_per_process()} if address == LOCAL else {"address": address}
    try:
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
    except (ConnectionError, ValueError, RuntimeError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"--ray: cannot reach a cluster at {address}: {reason}") from error
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        yield ray
    finally:
        ray.shutdown()


def _refuse_unreachable(address: str) -> None:
    """Raise UsageError where nobody listens: Ray itself takes ten minutes to say so."""
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
        socket.create_connection((parts.hostname, parts.port or 6379), timeout=10).close()
    except (OSError, ValueError) as error:
        raise UsageError(f"--ray: cannot reach a cluster at {address}: {error}") from error


def uses_gpu(ray, device: str) -> bool:
    """Return whether actors compute on GPUs: where `device` asks for it, or auto and there are."""
    return device.startswith("cuda") or (device == "auto" and ray.cluster_resources().get("GPU", 0))


def count_actors(ray, *, cores: int, gpu: bool) -> int:
    """Return how many actors the cluster has room for: one per GPU, or per so many `cores`.

    Raises UsageError where not even one fits.
    """
    found = ray.cluster_resources()
    if gpu:
        if found.get("GPU", 0) < 1:
            raise UsageError("--device: cuda was asked for, but the Ray cluster has no GPU")
        return int(found["GPU"])
    cpus = int(found.get("CPU", 0))
    if cpus < cores:
        raise UsageError(f"--actor-cores: {cores}, but the Ray cluster has {cpus} cores in all")
    return cpus // cores


def map_items(
    ray,
    make: Callable[[], Callable[[T], object]],
    items: Sequence[T],
    *,
    actors: int,
    cores: int,
    gpu: bool,
) -> Iterator[tuple[object, str | None]]:
    """Yield (result, error) of each item as it is done, in any order.

    Each of up to `actors` actors calls `make` once, then the worker it returned with every item.
    An item whose actor dies is tried again, in the actor that replaces it.
    """
    per_block = min(max(len(items) // (actors * BLOCKS_PER_ACTOR), 1), MOST_PER_BLOCK)
    rows = ray.data.from_items(
        [{"item": pickle.dumps(item)} for item in items],
        override_num_blocks=-(-len(items) // per_block),
    )
    # Actors that reserve every core leave none for Ray Data's own tasks: it would wait for ever.
    reserved = {"num_gpus": 1, "num_cpus": 1} if gpu else {"num_cpus": 0.9 * cores}
    results = rows.map_batches(
        _actor(make),
        batch_size=None,
        batch_format="numpy",
        compute=ray.data.ActorPoolStrategy(
            min_size=1, max_size=actors, initial_size=actors, max_tasks_in_flight_per_actor=1
        ),
        **reserved,
    )
    watch = _Silence(ray, reserved)
    try:
        for row in results.iter_rows():
            watch.restart()
            yield pickle.loads(row["result"])
    finally:
        watch.stop()


class _Silence:
    """Says what the cluster is busy with where no result has come for a while."""

    def __init__(self, ray, reserved: dict):
        self.ray, self.reserved, self._timer = ray, reserved, None
        self.restart()

    def restart(self) -> None:
        self.stop()
        self._timer = threading.Timer(SILENT_SECONDS, self._tell)
        self._timer.daemon = True
        self._timer.start()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _tell(self) -> None:
        free = {k: v for k, v in self.ray.available_resources().items() if k in ("CPU", "GPU")}
        logger.warning(
            f"no result for {SILENT_SECONDS} s; an actor asks for {self.reserved}, free in the "
            f"cluster: {free or 'nothing'} (long videos, or other jobs that hold its resources)"
        )
        self.restart()

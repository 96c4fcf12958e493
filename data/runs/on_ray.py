"""Work for many machines: a Ray cluster's actors apply a function to the items of a run.

Ray brings the machines, the scheduling and the retries; the caller brings the function.
"""

import logging
import os
import pickle
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import urlsplit

from human_anomaly.configs.machine import cores_per_process, number_in
from human_anomaly.configs.places import ROOT, is_clone
from human_anomaly.data.runs.jobs import JobFolder
from human_anomaly.data.video import VideoError
from human_anomaly.utils import UsageError, message_of

logger = logging.getLogger(__name__)

LOCAL = "local"  # the address of a cluster that is started for this run alone
SILENT_SECONDS = 300  # without a result, until a warning says what is free
# A client of gRPC begins with this: a fixed text, then a frame of kind 4, its settings, here none.
# The server's answer begins with its own settings.
HTTP2_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
BLOCKS_PER_ACTOR, MOST_PER_BLOCK = 50, 16  # small blocks, so that no actor is idle at the end

T = TypeVar("T")


class _Worker:
    """What an actor runs. It never raises, because Ray would drop the block's items."""

    def __init__(self, make: Callable[[], Callable], jobs: JobFolder, place: str):
        import ray

        self.jobs, self.cannot_start = jobs, None
        try:
            os.chdir(place)
            with jobs.tried(f"actor.{ray.get_runtime_context().get_actor_id()}"):
                self.work = make()
        except Exception as error:
            self.cannot_start = _in_a_line(error)

    def __call__(self, row: dict) -> dict:
        item, result, error = row["item"], None, None
        try:
            if self.cannot_start is None:
                with self.jobs.tried(item.stem):
                    result = self.work(item)
        except Exception as raised:
            error = _in_a_line(raised)
        # Pickled, because Ray would turn an item's fields into a table.
        return {"done": pickle.dumps((item, result, error, self.cannot_start))}


def _in_a_line(error: Exception) -> str:
    is_known = isinstance(error, (VideoError, UsageError))
    text = message_of(error)
    return text if is_known else f"{type(error).__name__}: {text}"


def be_the_only_process() -> None:
    """Forget srun's other processes: with `ray symmetric-run`, one of them runs the script.

    Raises UsageError under torchrun, where each process would do the whole work.
    """
    if number_in("WORLD_SIZE", least=1) > 1:
        raise UsageError("--ray: start one process, without torchrun: Ray starts the others")
    for name in ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_STEP_NUM_TASKS"):
        os.environ.pop(name, None)


@dataclass(frozen=True)
class Actors:
    """As many actors as a cluster has room for, each with `cores` and, on cuda, a GPU."""

    count: int
    cores: int
    device: str

    def map(
        self, make: Callable[[], Callable[[T], object]], items: Sequence[T], jobs: JobFolder
    ) -> Iterator[tuple[T, object, str | None]]:
        """Yield (item, result, error) as items are done, in any order.

        Each actor calls `make` once, in this process's folder, and then the function that `make`
        returned with one item after the other. If an actor dies, its item is tried again, as often
        as `jobs` allows. Raises UsageError if an actor cannot start, ConnectionError if Ray gives
        up.
        """
        import ray

        # Actors that reserve every core leave none for Ray Data's own tasks: it would wait forever.
        asked = {"num_cpus": 0.9 * self.cores, "num_gpus": int(self.device == "cuda")}
        per_block = min(max(len(items) // (self.count * BLOCKS_PER_ACTOR), 1), MOST_PER_BLOCK)
        rows = ray.data.from_items(
            [{"item": item} for item in items], override_num_blocks=-(-len(items) // per_block)
        )
        pool = {"min_size": 1, "max_size": self.count, "initial_size": self.count}
        rows = rows.map(
            _Worker,
            fn_constructor_args=(make, jobs, os.getcwd()),
            compute=ray.data.ActorPoolStrategy(**pool, max_tasks_in_flight_per_actor=1),
            **asked,
        )
        try:
            with _silence_explained(asked) as news:
                for row in rows.iter_rows():
                    news.set()
                    *done, cannot_start = pickle.loads(row["done"])
                    if cannot_start is not None:
                        raise UsageError(f"--ray: an actor cannot start: {cannot_start}")
                    yield tuple(done)
        except ray.exceptions.RayError as error:
            reason = f"{type(error).__name__}: {str(error).splitlines()[0]}"
            raise ConnectionError(f"--ray: the cluster ended the job ({reason})") from error


@contextmanager
def _silence_explained(asked: dict) -> Iterator[threading.Event]:
    """Yield an event to set at each result; log what the cluster has free if none comes."""
    import ray

    news, ended = threading.Event(), threading.Event()

    def watch() -> None:
        while not ended.wait(SILENT_SECONDS):
            if not news.is_set():
                free = {k: v for k, v in ray.available_resources().items() if k in ("CPU", "GPU")}
                logger.warning(
                    f"no result for {SILENT_SECONDS} s: an actor needs {asked}, the cluster has "
                    f"{free or 'nothing'} free (long videos, or other jobs that hold the rest)"
                )
            news.clear()

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield news
    finally:
        ended.set()


@contextmanager
def ray_actors(address: str, *, device: str, cores: int | None = None) -> Iterator[Actors]:
    """Join the Ray cluster at `address`, or start a local one; yield the actors it has room for.

    `device` is auto, cpu or cuda. With GPUs there is an actor per GPU, each with `cores` (default:
    its share of the machine's cores); without, an actor per `cores` (default: 1). Raises UsageError
    if Ray is not installed, the cluster cannot be reached, or not even one actor fits.
    """
    try:
        import ray
        import ray.data
    except ImportError as error:
        wanted = "pip install 'ray[data]>=2.60,<2.61'"
        raise UsageError(f"--ray: Ray is not installed; run {wanted}") from error
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # our own lines tell the user enough
    local = {"num_cpus": cores_per_process(), "include_dashboard": False}
    options = local if address == LOCAL else {}
    options |= {"log_to_driver": False, "logging_level": logging.ERROR}
    with _last_word():
        try:
            if address != LOCAL:
                _knock(address)
            ray.init(address, runtime_env=_environment(), **options)
        except Exception as error:  # Ray names no kinds for this
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise UsageError(f"--ray: cannot reach a cluster at {address}: {reason}") from error
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = False
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
        try:
            machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            yield _choose(machines, device, cores)
        finally:
            ray.shutdown()


@contextmanager
def _last_word() -> Iterator[None]:
    """Let a helper process print an error if Ray ends this process, which it does silently."""
    text = "error: --ray: Ray ended the run, perhaps because it lost its cluster"
    text += "; run the same command to resume"
    words = ["sh", "-c", 'read -r _ || echo "$0" >&2', text]
    with subprocess.Popen(words, stdin=subprocess.PIPE, start_new_session=True) as speaker:
        try:
            yield
        finally:
            speaker.communicate(b"\n")


def _knock(address: str) -> None:
    """Raise OSError or ValueError unless a server of gRPC answers at the address of a cluster.

    Ray itself would wait ten minutes for an answer. For `auto` it takes RAY_ADDRESS, else a cluster
    on this machine, else the one that its file of the current cluster names, which may be gone.
    """
    from ray._private.services import canonicalize_bootstrap_address

    place = (os.environ.get("RAY_ADDRESS") if address == "auto" else None) or address
    if place == "auto":
        place = canonicalize_bootstrap_address(place)
    if place == LOCAL:
        return
    parts = urlsplit(place if "://" in place else f"//{place}")
    try:
        with socket.create_connection((parts.hostname, parts.port or 6379), timeout=10) as line:
            if os.environ.get("RAY_USE_TLS", "0") == "0":
                line.sendall(HTTP2_HELLO)
                if line.recv(9)[3:4] != b"\4":
                    raise ConnectionError("what listens there is no Ray cluster")
    except OSError as error:
        where = f"{parts.netloc}: " if address == "auto" else ""
        raise ConnectionError(f"{where}{error}") from error


def _environment() -> dict:
    """Return the environment in which actors can import this package; {} if it is installed."""
    if not is_clone():
        return {}
    folders = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"env_vars": {"PYTHONPATH": os.pathsep.join(folders)}}


def _choose(machines: Sequence[dict[str, float]], device: str, cores: int | None) -> Actors:
    """Return the actors that fit into the machines, which are given by their resources."""
    kind = device.split(":")[0]
    if kind not in ("auto", "cpu", "cuda"):
        raise UsageError(f"--device: with --ray, expected auto, cpu or cuda, got {device}")
    room = [(int(found.get("CPU", 0)), int(found.get("GPU", 0))) for found in machines]
    with_gpus = [(cpus, gpus) for cpus, gpus in room if gpus]
    if kind == "cuda" and not with_gpus:
        raise UsageError("--device: cuda was asked for, but the Ray cluster has no GPU")
    if kind != "cpu" and with_gpus:
        device, room = "cuda", with_gpus
        cores = cores or max(1, min(cpus // gpus for cpus, gpus in room))
        count = sum(min(gpus, cpus // cores) for cpus, gpus in room)
    else:
        device, cores = "cpu", cores or 1
        count = sum(cpus // cores for cpus, _ in room)
    if not count:
        most = max((cpus for cpus, _ in room), default=0)
        raise UsageError(f"--actor-cores: {cores}, but the Ray cluster's machines have {most}")
    return Actors(count, cores, device)

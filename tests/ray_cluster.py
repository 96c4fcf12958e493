"""A Ray cluster on this machine, held by processes of its own, for tests and benchmarks."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Cluster:
    address: str
    session: int  # of all its processes

    def processes(self, name: bytes = b"") -> list[int]:
        """Return those whose command begins with `name`."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):  # ended meanwhile
                number = int(path.parent.name)
                if os.getsid(number) == self.session and path.read_bytes().startswith(name):
                    found.append(number)
        return found

    def kill_an_actor(self) -> None:
        os.kill(wait_for(lambda: self.processes(b"ray::MapWorker"))[0], signal.SIGKILL)

    def kill_the_head(self) -> None:
        """Kill what every process of the cluster, and every driver, needs."""
        (name,) = (p for p in self.processes() if b"/gcs_server" in command_of(p))
        os.kill(name, signal.SIGKILL)


@contextlib.contextmanager
def start_cluster(cores: int) -> Iterator[Cluster]:
    """Yield a cluster that has so many cores and no GPU, whatever the machine has."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = ["--node-ip-address=127.0.0.1", f"--port={port}", "--include-dashboard=false"]
    size = [f"--num-cpus={cores}", "--num-gpus=0", f"--object-store-memory={100 << 20}"]
    held = subprocess.Popen(
        [Path(sys.executable).parent / "ray", "start", "--head", "--block", *place, *size],
        env=os.environ
        | {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
        # On a busy machine Ray takes its own node for dead after a minute, and ends the cluster.
        | {"RAY_health_check_failure_threshold": "100"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    started = Cluster(f"127.0.0.1:{port}", held.pid)
    try:
        wait_for(lambda: can_connect(port))
        yield started
    finally:
        for number in started.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        held.wait()


def command_of(process: int) -> bytes:
    with contextlib.suppress(OSError):  # ended meanwhile
        return Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")[0]
    return b""


def can_connect(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def wait_for(condition, seconds: float = 100):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return found

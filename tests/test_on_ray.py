"""The same run in a Ray cluster's actors: the same files, whatever dies, and one line if it cannot.

All tests share a cluster of two cores, which a process of its own holds.
"""

import contextlib
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import pytest
from conftest import ROOT

import inference
import preprocess
from data import on_ray
from data.jobs import JobFolder
from data.on_ray import Actors, ray_actors
from utils import UsageError, be_the_only_process

ray = pytest.importorskip("ray")

VIDEOS = ROOT / "demo" / "videos"
BROKEN = 5
DETECTOR = [
    *("--detector-config", str(ROOT / "configs/demo/yolo_world_demo.py")),
    *("--detector-weights", str(ROOT / "demo/weights/detector.pth")),
]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The address of a cluster of two cores, without GPUs."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = ["--node-ip-address=127.0.0.1", f"--port={port}", "--include-dashboard=false"]
    size = ["--num-cpus=2", "--num-gpus=0", f"--object-store-memory={100 << 20}"]
    held = subprocess.Popen(
        [Path(sys.executable).parent / "ray", "start", "--head", "--block", *place, *size],
        env=os.environ | {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    wait_for(lambda: can_connect(port))
    yield f"127.0.0.1:{port}"
    held.terminate()
    held.wait(20)


def can_connect(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def wait_for(condition, seconds: float = 50):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return found


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    """Return a folder with 40 inputs: 33 images, two folders of eight, and five broken files."""
    folder = tmp_path_factory.mktemp("inputs")
    for name, alone in (("normal_1", 17), ("hand_fused", 16)):
        reader = cv2.VideoCapture(str(VIDEOS / f"{name}.mp4"))
        (folder / name).mkdir()
        for i in range(alone + 8):
            path = folder / f"{name}_{i}.png" if i < alone else folder / name / f"{i}.png"
            cv2.imwrite(str(path), reader.read()[1])
        reader.release()
    for i in range(BROKEN):
        (folder / f"broken_{i}.mp4").write_text("no video" * (i % 2))
    return folder


def words(script: str, inputs: Path, output: Path, *flags: str) -> list[str]:
    paths = [str(path) for path in sorted(inputs.iterdir())]
    own = ["--video", *paths] if script == "inference" else ["--input", *paths, *DETECTOR]
    return [*own, "--output", str(output), "--device", "cpu", *flags]


def run(script: str, inputs: Path, output: Path, *flags: str) -> dict[str, bytes]:
    """Run a script here to its end; return its files, without what depends on time."""
    main = {"inference": inference.main, "preprocess": preprocess.main}[script]
    assert main(words(script, inputs, output, *flags)) == 1  # some inputs fail
    return files(output)


def files(output: Path) -> dict[str, bytes]:
    found = {
        str(path.relative_to(output)): path.read_bytes()
        for path in output.rglob("*")
        if path.is_file() and ".state" not in path.parts
    }
    if scores := json.loads(found.pop("scores.json", b"null")):
        for row in scores["videos"]:
            del row["seconds"]
        found["scores.json"] = json.dumps(scores).encode()
    return found


@pytest.fixture(scope="module")
def scored(inputs, tmp_path_factory) -> dict[str, bytes]:
    """What one process makes of the inputs."""
    return run("inference", inputs, tmp_path_factory.mktemp("one") / "out")


@pytest.fixture(scope="module")
def cropped(inputs, tmp_path_factory) -> dict[str, bytes]:
    return run("preprocess", inputs, tmp_path_factory.mktemp("one") / "out")


def actors_of(pid: int) -> list[int]:
    """Return the processes of Ray's actors in the session that the process leads."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # ended meanwhile
            number = int(path.parent.name)
            if path.read_bytes().startswith(b"ray::MapWorker") and os.getsid(number) == pid:
                found.append(number)
    return found


def test_scored_in_actors(inputs, scored, address, tmp_path, monkeypatch):
    """35 rows and 5 failures to the byte; srun's numbers of its step count for nothing."""
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    monkeypatch.setenv("SLURM_PROCID", "1")
    assert run("inference", inputs, tmp_path / "out", "--ray", address) == scored
    scores = json.loads(scored["scores.json"])
    assert (len(scores["videos"]), len(scores["failed"])) == (35, BROKEN)
    assert not list((tmp_path / "out/.state").glob("tries.*"))


def test_cropped_in_actors_of_which_one_is_killed(inputs, cropped, address, tmp_path):
    output, killed = tmp_path / "out", []

    def kill() -> None:
        wait_for(lambda: list(output.glob(".state/item.*.json")))
        [port] = [word for word in address.split(":")[1:]]
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                if f"--port={port}".encode() in path.read_bytes():
                    killed.extend(actors_of(os.getsid(int(path.parent.name)))[:1])
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    assert run("preprocess", inputs, output, "--ray", address) == cropped
    killer.join()
    assert killed and len(cropped) > 35
    assert len(cropped["failed.jsonl"].splitlines()) == BROKEN

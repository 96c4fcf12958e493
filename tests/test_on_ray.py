"""The same run in a Ray cluster's actors: the same files, whatever dies, and one line if it cannot.

All tests share a cluster of two cores. It and Ray's drivers are in processes of their own.
"""

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import ROOT
from local_server import local_server
from ray_cluster import Cluster, start_cluster, wait_for
from ray_drivers import (
    a_job_that_waits,
    actors_that_cannot_start,
    in_a_process,
    items_of_which_one_kills,
    reach,
)

from human_anomaly import inference, preprocess
from human_anomaly.data.runs import on_ray
from human_anomaly.data.runs.jobs import JobFolder
from human_anomaly.data.runs.on_ray import Actors
from human_anomaly.utils import UsageError, read_jsonl

VIDEOS = ROOT / "demo" / "videos"
BROKEN, SINGLE, BLANK = 5, 6, 27
DETECTOR = [
    *("--detector-config", str(ROOT / "configs/demo/yolo_world_demo.py")),
    *("--detector-weights", str(ROOT / "demo/weights/detector.pth")),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    pytest.importorskip("ray")
    with start_cluster(cores=2) as started:
        yield started


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    """Return a folder with 40 inputs: folders of images, images with people and without, no videos.

    Two are of three frames, the other good ones of one.
    """
    folder = tmp_path_factory.mktemp("inputs")
    for name in ("normal_1", "hand_fused"):
        reader = cv2.VideoCapture(str(VIDEOS / f"{name}.mp4"))
        (folder / name).mkdir()
        for i in range(3 + SINGLE // 2):
            path = folder / name / f"{i}.png" if i < 3 else folder / f"{name}_{i}.png"
            cv2.imwrite(str(path), reader.read()[1])
        reader.release()
    for i in range(BLANK):
        cv2.imwrite(str(folder / f"blank_{i}.png"), np.full((64, 64, 3), 9 * i, np.uint8))
    for i in range(BROKEN):
        (folder / f"broken_{i}.mp4").write_text("no video" * (i % 2))
    return folder


def words(script: str, inputs: Path, output: Path, *flags: str) -> list[str]:
    paths = [str(path) for path in sorted(inputs.iterdir())]
    own = ["--video", *paths] if script == "inference" else ["--input", *paths, *DETECTOR]
    return [*own, "--output", str(output), "--device", "cpu", *flags]


def run(script: str, inputs: Path, output: Path, *flags: str) -> dict[str, bytes]:
    """Run a script to its end in another process; return its files, without what is a time."""
    command = [sys.executable, ROOT / f"{script}.py", *words(script, inputs, output, *flags)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr[-2000:]  # some inputs fail
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


def run_and_kill(cluster: Cluster, script: str, inputs: Path, output: Path) -> dict[str, bytes]:
    """Run a script in the cluster and kill an actor after the first input; return its files."""

    def kill() -> None:
        wait_for(lambda: list(output.glob(".state/item.*.json")))
        cluster.kill_an_actor()
        killed.set()

    killed = threading.Event()
    threading.Thread(target=kill, daemon=True).start()
    found = run(script, inputs, output, "--ray", cluster.address)
    assert killed.is_set()
    return found


def test_scored_in_actors_of_which_one_is_killed(inputs, scored, cluster, tmp_path, monkeypatch):
    """35 rows and 5 failures to the byte; srun's numbers of its step count for nothing."""
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    monkeypatch.setenv("SLURM_PROCID", "1")
    assert run_and_kill(cluster, "inference", inputs, tmp_path / "out") == scored
    scores = json.loads(scored["scores.json"])
    assert (len(scores["videos"]), len(scores["failed"])) == (35, BROKEN)
    assert not list((tmp_path / "out/.state").glob("tries.*"))


@pytest.mark.slow
def test_cropped_in_actors_of_which_one_is_killed(inputs, cropped, cluster, tmp_path):
    output = tmp_path / "out"
    assert run_and_kill(cluster, "preprocess", inputs, output) == cropped
    assert len(read_jsonl(output / "failed.jsonl")) == BROKEN
    assert len(read_jsonl(output / "hand.jsonl")) > 5


@pytest.mark.slow
@pytest.mark.parametrize("script", ["inference", "preprocess"])
def test_a_driver_that_is_killed_goes_on_where_it_was(script, inputs, request, tmp_path):
    """In a local cluster, which dies with its driver."""
    pytest.importorskip("ray")
    output = tmp_path / "out"
    command = [sys.executable, ROOT / f"{script}.py", *words(script, inputs, output, "--ray")]
    options = {"cwd": ROOT, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    driver = subprocess.Popen(command, start_new_session=True, **options)
    wait_for(lambda: len(list(output.glob(".state/item.*.json"))) > 3)
    driver.kill()
    driver.wait()
    finished = {path: path.stat().st_mtime_ns for path in output.glob(".state/item.*.json")}
    assert subprocess.run(command, **options).returncode == 1  # some inputs fail
    expected = request.getfixturevalue({"inference": "scored", "preprocess": "cropped"}[script])
    assert files(output) == expected
    kept = {p: t for p, t in finished.items() if "error" not in json.loads(p.read_text())["row"]}
    assert kept and {p: p.stat().st_mtime_ns for p in kept} == kept  # not scored again


LAST_WORD = "error: --ray: Ray ended the run, perhaps because it lost its cluster; "
LAST_WORD += "run the same command to resume\n"


@pytest.mark.parametrize(("end", "said"), [("os._exit(1)", LAST_WORD), ("sys.exit(1)", "")])
def test_a_process_that_ray_ends_has_a_last_word(end, said):
    code = "import os, sys; from human_anomaly.data.runs.on_ray import _last_word\n"
    code += f"with _last_word():\n    {end}"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, said)


@pytest.mark.slow
def test_a_run_whose_cluster_is_gone_goes_on_where_it_was(inputs, scored, tmp_path):
    """Ray gives up after a minute, here after two seconds, and ends the process by itself."""
    pytest.importorskip("ray")
    output = tmp_path / "out"
    with start_cluster(cores=2) as lost:
        flags = words("inference", inputs, output, "--ray", lost.address)
        driver = subprocess.Popen(
            [sys.executable, ROOT / "inference.py", *flags],
            cwd=ROOT,
            env=os.environ | {"RAY_gcs_rpc_server_reconnect_timeout_s": "2"},
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_for(lambda: len(list(output.glob(".state/item.*.json"))) > 3)
        lost.kill_the_head()
        said = driver.communicate()[1]
    assert (driver.returncode, said.endswith(LAST_WORD)) == (1, True)
    assert "Traceback" not in said
    finished = {path: path.stat().st_mtime_ns for path in output.glob(".state/item.*.json")}
    assert run("inference", inputs, output) == scored
    kept = {p: t for p, t in finished.items() if "error" not in json.loads(p.read_text())["row"]}
    assert kept and {p: p.stat().st_mtime_ns for p in kept} == kept  # not scored again


@pytest.fixture
def jobs(tmp_path) -> JobFolder:
    (tmp_path / ".state").mkdir()
    return JobFolder(tmp_path, {})


def test_an_item_that_kills_its_actors_fails_alone(cluster, jobs):
    """SIGKILL is how a machine without memory ends a process."""
    actors, done = in_a_process(items_of_which_one_kills, cluster.address, jobs)
    assert actors == Actors(2, 1, "cpu")
    assert done == {
        "light": ["LIGHT", None],
        "heavy": [None, "its process died 3 times; out of memory?"],
        "odd": [None, "ValueError: two lines"],
        "other": ["OTHER", None],
    }


@pytest.mark.slow
def test_actors_that_cannot_start_are_one_line(cluster, jobs):
    errors = in_a_process(actors_that_cannot_start, cluster.address, jobs)
    assert errors == [
        "--ray: an actor cannot start: hand.pth: no such file",
        "--ray: an actor cannot start: its process died 3 times; out of memory?",
    ]


def test_a_job_without_progress_says_why(cluster, jobs):
    """Another job holds all cores, until the line is there."""
    errors, lines = in_a_process(a_job_that_waits, cluster.address, jobs)
    assert errors == [None]
    expected = "no result for 1 s: an actor needs {'num_cpus': 1.8, 'num_gpus': 0}, the cluster has"
    assert lines[0].startswith(expected)


# The machines' cores and GPUs, --device, --actor-cores, what is taken.
ROOM = [
    ([(8, 0)], "auto", None, Actors(8, 1, "cpu")),
    ([(8, 0), (4, 0)], "cpu", 3, Actors(3, 3, "cpu")),  # no actor spans two machines
    ([(8, 2)], "cpu", 4, Actors(2, 4, "cpu")),
    ([(8, 2), (4, 0)], "auto", None, Actors(2, 4, "cuda")),
    ([(9, 2), (8, 4)], "cuda:0", None, Actors(6, 2, "cuda")),
    ([(8, 8)], "cuda", 2, Actors(4, 2, "cuda")),  # cores are what is short
    ([(2, 0)], "cuda", 1, "--device: cuda was asked for, but the Ray cluster has no GPU"),
    ([(2, 0)], "mps", 1, "--device: with --ray, expected auto, cpu or cuda, got mps"),
    ([(2, 0)] * 2, "auto", 3, "--actor-cores: 3, but the Ray cluster's machines have 2"),
]


@pytest.mark.parametrize(("machines", "device", "cores", "expected"), ROOM)
def test_what_a_cluster_has_room_for(machines, device, cores, expected):
    found = [{"CPU": cpus} | ({"GPU": gpus} if gpus else {}) for cpus, gpus in machines]
    if isinstance(expected, Actors):
        assert on_ray._choose(found, device, cores) == expected
    else:
        with pytest.raises(UsageError, match=f"^{expected}$"):
            on_ray._choose(found, device, cores)


@pytest.mark.parametrize("main", [inference.main, preprocess.main])
def test_ray_absent_or_under_torchrun(main, tmp_path, monkeypatch):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((64, 64, 3), np.uint8))
    script = "inference" if main is inference.main else "preprocess"
    flags = words(script, tmp_path, tmp_path / "out", "--ray")
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"--ray: Ray is not installed; run pip install 'ray"):
        main(flags)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="--ray: start one process, without torchrun"):
        main(flags)


def test_a_cluster_that_cannot_be_reached_is_one_line(tmp_path):
    """Also by `auto`, which takes an address that Ray was told or wrote down earlier."""
    pytest.importorskip("ray")
    addresses = ["127.0.0.1:1", "127.0.0.1:port", "ray://127.0.0.1:1"]
    with local_server({}) as other:  # an address that Ray wrote down may be another's by now
        addresses.append(other.url.removeprefix("http://"))
        errors = in_a_process(reach, addresses, {}, True)
    for address, error in zip(addresses, errors, strict=True):
        assert error.startswith(f"--ray: cannot reach a cluster at {address}: ")
    assert errors[-1].endswith(": what listens there is no Ray cluster")
    (tmp_path / "ray").mkdir()
    stale, nothing = {"RAY_TMPDIR": str(tmp_path)}, {"RAY_TMPDIR": str(tmp_path / "none")}
    (tmp_path / "ray/ray_current_cluster").write_text("127.0.0.1:1\n")
    for environment, why in (
        ({"RAY_ADDRESS": "127.0.0.1:1"}, r"127\.0\.0\.1:1: .*refused"),
        (stale, r".*:1: .*refused"),
        (nothing, "Could not find any running Ray instance"),
    ):
        (error,) = in_a_process(reach, ["auto"], environment, False)
        assert re.match(f"--ray: cannot reach a cluster at auto: {why}", error)

"""The same run in a Ray cluster's actors: the same files, whatever dies."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import pytest
from conftest import ROOT

from data.on_ray import cluster
from utils import UsageError

pytest.importorskip("ray")

VIDEOS = ROOT / "demo" / "videos"


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    """Six short image folders in one folder each, and two files that are no videos."""
    folder = tmp_path_factory.mktemp("inputs")
    for name in ("normal_1", "hand_fused"):
        reader = cv2.VideoCapture(str(VIDEOS / f"{name}.mp4"))
        frames = [reader.read()[1] for _ in range(12)]
        reader.release()
        for part in range(3):
            (folder / f"{name}_{part}").mkdir()
            for i, frame in enumerate(frames[part::3]):
                cv2.imwrite(str(folder / f"{name}_{part}" / f"{i}.png"), frame)
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("hello")
    return folder


def command(inputs: Path, output: Path, *flags: str) -> list[str]:
    videos = [str(path) for path in sorted(inputs.iterdir())]
    words = ["--video", *videos, "--output", str(output), "--device", "cpu", *flags]
    return [sys.executable, str(ROOT / "inference.py"), *words]


def score(inputs: Path, output: Path, *flags: str) -> dict[str, bytes]:
    """Run the command to its end; return the result files without their seconds."""
    done = subprocess.run(command(inputs, output, *flags), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr  # two inputs fail
    return results(output)


def results(output: Path) -> dict[str, bytes]:
    found = {path.name: path.read_bytes() for path in output.glob("*.frames.jsonl")}
    scores = json.loads((output / "scores.json").read_text())
    for row in scores["videos"]:
        del row["seconds"]
    return found | {"scores.json": json.dumps(scores).encode()}


@pytest.fixture(scope="module")
def expected(inputs, tmp_path_factory) -> dict[str, bytes]:
    """What one process makes of the inputs."""
    return score(inputs, tmp_path_factory.mktemp("one") / "out")


def test_actors_give_the_files_of_one_process(inputs, expected, tmp_path):
    assert score(inputs, tmp_path / "out", "--ray") == expected
    failed = json.loads(expected["scores.json"])["failed"]
    assert [Path(row["video_path"]).name for row in failed] == ["empty.mp4", "text.mp4"]


def test_a_video_shared_in_stretches_has_the_same_rows(inputs, expected, tmp_path):
    assert score(inputs, tmp_path / "out", "--ray", "--split-frames", "2") == expected
    assert not list((tmp_path / "out" / ".state").glob("stretch.*"))


def actors_of(driver: int) -> list[int]:
    """Return the processes of Ray's actors that work for the driver's cluster."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes().startswith(b"ray::MapWorker"):
                session = os.getsid(int(path.parent.name))
                found += [int(path.parent.name)] if session == os.getsid(driver) else []
        except OSError:  # ended meanwhile
            continue
    return found


def begun(output: Path) -> list[Path]:
    return list((output / ".state").glob("tries.*"))


def wait_for(condition, seconds: float = 50):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return found


def start(inputs: Path, output: Path) -> subprocess.Popen:
    return subprocess.Popen(
        command(inputs, output, "--ray"),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_an_actor_that_is_killed_is_replaced(inputs, expected, tmp_path):
    driver = start(inputs, tmp_path / "out")
    wait_for(lambda: begun(tmp_path / "out"))
    os.kill(wait_for(lambda: actors_of(driver.pid))[0], signal.SIGKILL)
    _, errors = driver.communicate(timeout=55)
    assert driver.returncode == 1, errors
    assert results(tmp_path / "out") == expected


def test_a_driver_that_is_killed_goes_on_where_it_was(inputs, expected, tmp_path):
    output = tmp_path / "out"
    driver = start(inputs, output)
    wait_for(lambda: list((output / ".state").glob("item.*_*.json")))
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    finished = {p: p.stat().st_mtime_ns for p in output.glob("*.frames.jsonl")}
    assert finished
    assert score(inputs, output, "--ray") == expected
    assert {p: p.stat().st_mtime_ns for p in finished} == finished  # not scored again


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.0.0.1:port"])
def test_a_cluster_that_cannot_be_reached_is_one_line(address):
    expected = f"--ray: cannot reach a cluster at {address}"
    with pytest.raises(UsageError, match=expected), cluster(address):
        pass


def test_ray_absent_names_the_extra(inputs, tmp_path):
    program = (
        "import sys; sys.modules['ray'] = None; import inference; from utils import run_main\n"
        "run_main(lambda: inference.main(sys.argv[1:]))"
    )
    words = command(inputs, tmp_path / "out", "--ray")[2:]
    done = subprocess.run(
        [sys.executable, "-c", program, *words], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "error: --ray: Ray is not installed; pip install '.[ray]'" in done.stderr


def test_more_cores_than_there_are(inputs, tmp_path):
    done = subprocess.run(
        command(inputs, tmp_path / "out", "--ray", "--actor-cores", "999"),
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and "error: --actor-cores: 999, but the Ray" in done.stderr

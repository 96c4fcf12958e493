"""preprocess.py in several processes, and killed: the output is that of one unbroken process."""

import os
import random
import resource
import shutil
import signal
import time
from pathlib import Path

import pytest
from preprocess_runs import (
    flags,
    rows_of,
    start,
    start_together,
    tree,
    use_fake_detector,
    write_video,
)

from human_anomaly import preprocess
from human_anomaly.data.cropping.crop_lists import source_of
from human_anomaly.data.runs.jobs import my_items
from human_anomaly.data.sources import find_sources


@pytest.fixture(scope="module")
def whole(videos, weights, tmp_path_factory) -> dict[str, bytes]:
    """Return the output of one unbroken process."""
    output = tmp_path_factory.mktemp("whole") / "crops"
    with pytest.MonkeyPatch.context() as patch:
        use_fake_detector(patch)
        assert preprocess.main(flags(videos, output, weights)) == 0
    return tree(output)


def test_three_processes_give_the_output_of_one(videos, weights, whole, tmp_path):
    output = tmp_path / "crops"
    processes = start_together(flags(videos, output, weights), 3)
    assert [(p.communicate()[1], p.returncode)[1] for p in processes] == [0, 0, 0]
    assert tree(output) == whole


def test_the_longest_videos_are_assigned_first(videos, monkeypatch):
    sources = find_sources([videos]).sources
    frames = {source: int(source.path.stem[1:]) * 2 + 3 for source in sources}
    monkeypatch.setenv("WORLD_SIZE", "3")
    shares = []
    for rank in "012":
        monkeypatch.setenv("RANK", rank)
        shares.append(sorted(source.path.stem for source in my_items(frames)))
    # 13, 11 and 9 frames first, then the shorter ones where least is to do: 16 frames each.
    assert shares == [["v0", "v5"], ["v1", "v4"], ["v2", "v3"]]


def test_of_several_processes_one_tells_what_failed(videos, weights, tmp_path):
    """Status 0 of the others keeps torchrun from stopping the first before it has merged."""
    bad = tmp_path / "bad.mp4"
    bad.write_text("no video")
    output = tmp_path / "crops"
    processes = start_together(flags([videos, bad], output, weights), 2)
    assert [(p.communicate()[1], p.returncode)[1] for p in processes] == [1, 0]
    assert [Path(r["video_path"]).name for r in rows_of(output / "failed.jsonl")] == ["bad.mp4"]
    assert (output / "boxes.jsonl").exists()
    refused = start_together(flags(videos, output, weights, "--frame-stride", "2"), 2)
    said, status = zip(*[(p.communicate()[1], p.returncode) for p in refused], strict=True)
    assert status == (2, 0)
    assert "frame_stride differ" in said[0] and "Traceback" not in "".join(said)


def test_a_process_that_died_leaves_what_a_rerun_completes(videos, weights, whole, tmp_path):
    output = tmp_path / "crops"
    first, second = start_together(flags(videos, output, weights), 2, pause=0.1)
    deadline = time.monotonic() + 30
    while not list(output.glob(".state/item.*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(second.pid, signal.SIGKILL)
    second.communicate()
    first.communicate()  # torchrun would stop it; left alone, it finds that the other is gone
    assert first.returncode != 0
    assert not (output / "boxes.jsonl").exists()
    again = start(flags(videos, output, weights))
    assert (again.communicate()[1], again.returncode)[1] == 0
    assert tree(output) == whole


@pytest.mark.slow
def test_killed_five_times_at_random_it_ends_with_the_same_output(videos, weights, whole, tmp_path):
    output, draw = tmp_path / "crops", random.Random(0)
    arguments = flags(videos, output, weights)
    state = output / ".state"
    for items in range(5):
        process = start(arguments, pause=0.1)
        deadline = time.monotonic() + 60
        while len(list(state.glob("item.*.json"))) < items and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(draw.uniform(0, 0.3))
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL, "it came to its end"
        assert len(list(state.glob("item.*.json"))) >= items
    finished = {path.name.split(".")[1] for path in state.glob("item.*.json")}
    stamps = {
        path: path.stat().st_mtime_ns
        for path in output.glob("*/*.jpg")
        if source_of(path.name) in finished
    }
    process = start(arguments)
    assert process.communicate()[0] is None
    assert process.returncode == 0
    assert tree(output) == whole
    # What was finished is not written again.
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps


def test_a_full_disk_loses_nothing(weights, tmp_path):
    write_video(tmp_path / "in/a.mp4", 4, 1)
    write_video(tmp_path / "in/b.mp4", 4, 2, size=(640, 480))  # its crops are larger
    arguments = flags(tmp_path / "in", tmp_path / "crops", weights, "--format", "png")
    limit = (20_000, 20_000)
    process = start(arguments, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit))
    error = process.communicate()[1]
    assert process.returncode == 1, error
    assert "cannot write the crops of 'b'" in error
    assert "Make room and run the same command again" in error
    assert "Traceback" not in error
    state = tmp_path / "crops/.state"
    assert (state / "item.a.json").exists()
    assert not (state / "item.b.json").exists()
    for folder in ("crops", "fresh"):
        again = start(flags(tmp_path / "in", tmp_path / folder, weights, "--format", "png"))
        assert (again.communicate()[1], again.returncode)[1] == 0
    assert tree(tmp_path / "crops") == tree(tmp_path / "fresh")


def test_what_a_killed_run_of_other_settings_left_is_deleted(videos, crop, weights, tmp_path):
    output = tmp_path / "crops"
    process = start(flags(videos / "sub", output, weights), pause=0.05)
    deadline = time.monotonic() + 30
    while not list(output.glob("*/*_f000002_*.jpg")) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    (output / "hand/unsure").mkdir()
    kept = output / "hand/unsure/sub__v1_f000000_p0_0.jpg"  # as if a person had put it there
    kept.write_bytes(b"crop")
    assert crop(videos / "v2.mp4", output, "--frame-stride", "3", "--overwrite") == 0
    assert kept.read_bytes() == b"crop"
    shutil.rmtree(kept.parent)
    crop(videos / "v2.mp4", tmp_path / "fresh", "--frame-stride", "3")
    assert tree(output) == tree(tmp_path / "fresh")

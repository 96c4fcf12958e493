"""inference.py as users call it, with the embedded weights."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import ROOT
from filelock import FileLock
from inference_runs import VIDEOS, run, without_seconds

from human_anomaly.data.runs.jobs import JobFolder
from human_anomaly.models.checkpoint import CheckpointError
from human_anomaly.utils import UsageError, write_json


@pytest.fixture(scope="module")
def scored(short, tmp_path_factory):
    output = tmp_path_factory.mktemp("scored")
    return output, *run(output, "--video", short / "normal_1", short / "hand_fused")


def test_the_result_files_say_what_design_promises(scored):
    output, status, scores = scored
    assert status == 0 and scores["version"] == 1 and scores["failed"] == []
    assert [v["frames"] for v in scores["videos"]] == [3, 5]
    keys = (
        "video_path video_results ci95 score_frame_mean score_clean_frames score_soft frames "
        "score_people tracks frames_expected people abnormal_people abnormal_by_part "
        "skipped_crops warnings seconds versions"
    )
    assert set(keys.split()) <= set(scores["videos"][0])
    assert scores["settings"]["decoder"] == 2 and scores["skipped"] == []
    row = scores["videos"][0]
    assert set(row["versions"]) == {"torch", "av", "opencv", "pillow"}
    lines = (output / "normal_1.frames.jsonl").read_text().splitlines()
    frames = [json.loads(line) for line in lines]
    people = [p for f in frames for p in f["people"]]
    assert [f["frame"] for f in frames] == [0, 1, 2] and frames[1]["time"] == pytest.approx(1 / 25)
    assert len(people) == row["people"] > 0
    assert row["tracks"] == len({p["id"] for p in people}) == len(frames[0]["people"])
    assert row["video_results"] == 1 - sum(p["abnormal"] for p in people) / len(people)
    part = people[0]["parts"][0]
    assert people[0]["bbox"] == part["bbox"]
    assert part["part"] == "human" and 0 <= part["p_abnormal"] <= 1
    x1, y1, x2, y2 = part["square"]
    assert 0 <= x1 < x2 <= 1280 and 0 <= y1 < y2 <= 720 and abs((x2 - x1) - (y2 - y1)) <= 1


def test_running_again_scores_nothing_again(scored, short):
    output, _, before = scored
    stamp = (output / "normal_1.frames.jsonl").stat().st_mtime_ns
    status, after = run(output, "--video", short / "normal_1", short / "hand_fused")
    assert (status, after) == (0, before)
    assert (output / "normal_1.frames.jsonl").stat().st_mtime_ns == stamp


def test_other_settings_into_the_same_folder_are_refused(scored, short):
    with pytest.raises(UsageError, match=r"--output: .*frame_stride differ"):
        run(scored[0], "--video", short / "normal_1", "--frame-stride", 2)


def test_results_of_the_decoder_before_are_refused_and_their_batches_dropped(short, tmp_path):
    output = tmp_path / "out"
    run(output, "--video", short / "normal_1")
    settings = json.loads((output / ".state/settings.json").read_text())
    del settings["decoder"]  # as scored through OpenCV
    write_json(output / ".state/settings.json", settings)
    with pytest.raises(UsageError, match=r"holds results of other settings \(decoder differ\)"):
        run(output, "--video", short / "normal_1")
    before, now = (JobFolder(output, s) for s in (settings, {**settings, "decoder": 2}))
    assert before.digest != now.digest  # the first line of kept batches, which must be this run's


def test_what_is_no_video_is_listed_and_counted(short, tmp_path, capsys):
    folder = tmp_path / "in"
    shutil.copytree(short / "normal_1", folder / "shots")
    (folder / "notes.txt").write_text("x")
    (folder / ".cache").mkdir()
    (folder / "gone.mp4").symlink_to(tmp_path / "nothing")
    status, scores = run(tmp_path / "out", "--video", folder)
    assert status == 1 and [row["frames"] for row in scores["videos"]] == [3]
    assert scores["failed"] == [
        {"video_path": str(folder / "gone.mp4"), "error": "the link leads nowhere"}
    ]
    assert sorted(row["path"] for row in scores["skipped"]) == [
        str(folder / ".cache"),
        str(folder / "notes.txt"),
    ]
    line = "skipped below the inputs, listed in scores.json: 1 hidden, 1 neither video nor picture"
    assert line in capsys.readouterr().out


def torchrun(output: Path, *flags, processes: int = 2) -> subprocess.CompletedProcess:
    """Run inference.py in several processes, each on one thread."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    command += [str(processes), "inference.py", "--device", "cpu", "--output", str(output)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, *map(str, flags)], cwd=ROOT, env=environment, capture_output=True, text=True
    )


def test_two_processes_give_what_one_gives(scored, short, tmp_path):
    videos = ("--video", short / "normal_1", short / "hand_fused", tmp_path / "gone.mp4")
    (tmp_path / "empty.mp4").touch()
    done = torchrun(tmp_path / "out", *videos, tmp_path / "empty.mp4", "--annotate")
    assert "error: " not in done.stderr
    scores = json.loads((tmp_path / "out" / "scores.json").read_text())
    failed = {Path(row["video_path"]).name: row["error"] for row in scores["failed"]}
    assert failed == {
        "gone.mp4": "no such file or folder",
        "empty.mp4": "the file is empty (0 bytes)",
    }
    assert without_seconds(scores | {"failed": []}) == without_seconds(scored[2])
    for stem in ("normal_1", "hand_fused"):
        name = f"{stem}.frames.jsonl"
        assert (tmp_path / "out" / name).read_bytes() == (scored[0] / name).read_bytes()
        assert (tmp_path / "out" / f"{stem}.annotated.webm").is_file()
    assert done.stdout.count("results in") == 1  # process 0 alone says so


def test_wrong_use_of_several_processes_is_said_once(scored, short):
    done = torchrun(scored[0], "--video", short / "normal_1", "--frame-stride", "2")
    assert done.returncode != 0
    assert done.stderr.count("error: --output") == 1 and "frame_stride" in done.stderr


def test_a_second_run_into_the_folder_is_refused(scored, short):
    output = scored[0]
    with (
        FileLock(output / ".state" / "run.lock"),
        pytest.raises(UsageError, match="another run is writing into"),
    ):
        run(output, "--video", short / "normal_1", short / "hand_fused")


def test_bad_inputs_fail_alone(short, tmp_path):
    (tmp_path / "text.mp4").write_text("hello")
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "tiny").mkdir()
    cv2.imwrite(str(tmp_path / "tiny" / "0.png"), np.full((9, 31), 90, np.uint8))
    names = ("text.mp4", "empty.mp4", "folder", "gone.mp4", "tiny")
    status, scores = run(
        tmp_path / "out", "--video", *(tmp_path / n for n in names), short / "normal_1"
    )
    assert status == 1
    errors = {Path(f["video_path"]).name: f["error"] for f in scores["failed"]}
    assert "not a video" in errors["text.mp4"]
    assert "empty" in errors["empty.mp4"]
    assert "holds no video" in errors["folder"]
    assert "no such file" in errors["gone.mp4"]
    tiny, normal = scores["videos"]
    assert "smaller than 32" in tiny["warnings"][0]
    assert normal["frames"] == 3 and normal["people"] > 0
    assert not list((tmp_path / "out").glob("*.part"))


def test_a_failed_video_is_tried_again(short, tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"")
    assert run(tmp_path / "out", "--video", tmp_path / "a.mp4")[0] == 1
    shutil.copyfile(VIDEOS / "normal_1.mp4", tmp_path / "a.mp4")
    stride = ("--frame-stride", 100)
    assert run(tmp_path / "again", "--video", tmp_path / "a.mp4", *stride)[0] == 0


def test_fewer_parts_need_fewer_classifiers(short, tmp_path):
    _, scores = run(tmp_path, "--video", short / "normal_1", "--parts", "face")
    assert list(scores["settings"]["models"]) == ["face"]
    frames = [json.loads(x) for x in (tmp_path / "normal_1.frames.jsonl").read_text().splitlines()]
    parts = {part["part"] for f in frames for p in f["people"] for part in p["parts"]}
    assert parts <= {"face"}


def test_thresholds_can_be_set(short, tmp_path):
    opts = [x for p in ("HUMAN", "FACE", "HAND") for x in (f"SCORE.THRESHOLDS.{p}", "0")]
    _, scores = run(tmp_path, "--video", short / "normal_1", "--opts", *opts)
    assert scores["videos"][0]["video_results"] == 0


WRONG_USE = [
    (["--frame-stride", "0"], SystemExit, "2"),
    (["--batch-size", "x"], SystemExit, "2"),
    (["--fps", "-1"], SystemExit, "2"),
    (["--parts", "foot"], SystemExit, "2"),
    (["--human_model", "a.pth"], UsageError, "--detector_config, --detector_weights, --face_model"),
    (["--device", "abacus"], UsageError, "--device: expected auto, cpu, cuda or mps"),
]


@pytest.mark.parametrize(("flags", "error", "message"), WRONG_USE)
def test_wrong_use_is_one_line(flags, error, message, short, tmp_path):
    with pytest.raises(error, match=message):
        run(tmp_path, "--video", short / "normal_1", *flags)


def test_a_missing_weight_file_is_named(short, tmp_path):
    models = ["--detector_config", ROOT / "configs/demo/yolo_world_demo.py"]
    models += ["--detector_weights", ROOT / "demo/weights/detector.pth"]
    models += ["--human_model", tmp_path / "gone.pth"]
    with pytest.raises(CheckpointError, match=r"gone\.pth: no such weight file"):
        run(tmp_path, "--video", short / "normal_1", "--parts", "human", *models)

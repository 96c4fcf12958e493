"""inference.py as users call it, with the embedded weights."""

import errno
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

from human_anomaly import inference
from human_anomaly.data.runs.jobs import JobFolder
from human_anomaly.models.checkpoint import CheckpointError
from human_anomaly.models.detector import PartDetector
from human_anomaly.models.scoring.scorer import VideoScorer
from human_anomaly.utils import UsageError, read_jsonl, write_json

VIDEOS = ROOT / "demo" / "videos"


def run(output: Path, *flags) -> tuple[int, dict]:
    """Score into `output`; return the exit status and scores.json."""
    status = inference.main(["--device", "cpu", *map(str, flags), "--output", str(output)])
    path = output / "scores.json"
    return status, json.loads(path.read_text()) if path.is_file() else {}


@pytest.fixture(scope="module")
def short(tmp_path_factory) -> Path:
    """A folder with the first frames of two of the demo's videos, of different length."""
    folder = tmp_path_factory.mktemp("short")
    for name, count in (("normal_1", 3), ("hand_fused", 5)):
        reader = cv2.VideoCapture(str(VIDEOS / f"{name}.mp4"))
        (folder / name).mkdir()
        for i in range(count):
            cv2.imwrite(str(folder / name / f"{i}.png"), reader.read()[1])
        reader.release()
    return folder


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


def without_seconds(scores: dict) -> dict:
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in scores["videos"]]
    return {**scores, "videos": rows}


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


@pytest.fixture
def same_name(short, tmp_path) -> Path:
    """A folder of another model's video with the name of one that is scored already."""
    shutil.copytree(short / "hand_fused", tmp_path / "other" / "normal_1")
    return tmp_path / "other" / "normal_1"


@pytest.fixture
def one_scored(short, tmp_path) -> Path:
    assert run(tmp_path / "one", "--video", short / "normal_1")[0] == 0
    return tmp_path / "one"


def test_results_of_other_inputs_are_not_replaced(one_scored, short, same_name):
    before = (one_scored / "scores.json").read_bytes()
    with pytest.raises(UsageError, match="other inputs") as error:
        run(one_scored, "--video", same_name)
    assert str(short / "normal_1") in str(error.value) and str(same_name) in str(error.value)
    assert (one_scored / "scores.json").read_bytes() == before
    status, scores = run(one_scored, "--video", short / "normal_1", short / "hand_fused")
    assert status == 0 and len(scores["videos"]) == 2  # more inputs replace nothing


def test_other_inputs_can_be_added(one_scored, short, same_name):
    first = (one_scored / "normal_1.frames.jsonl").read_bytes()
    status, scores = run(one_scored, "--video", same_name, "--add")
    assert status == 0
    rows = {row["video_path"]: row for row in scores["videos"]}
    assert set(rows) == {str(short / "normal_1"), str(same_name)}
    files = [row["frames_file"] for row in scores["videos"]]
    assert len(set(files)) == 2 and files[0] == "normal_1.frames.jsonl"
    assert (one_scored / files[0]).read_bytes() == first
    counts = [len(read_jsonl(one_scored / row["frames_file"])) for row in scores["videos"]]
    assert counts == [3, 5] == [row["frames"] for row in scores["videos"]]
    stamp = (one_scored / files[1]).stat().st_mtime_ns
    status, again = run(one_scored, "--video", same_name, "--add")  # known again by its path
    assert again == scores and (one_scored / files[1]).stat().st_mtime_ns == stamp


def test_overwriting_deletes_the_results_of_others(one_scored, short, same_name):
    status, scores = run(one_scored, "--video", short / "hand_fused", "--overwrite")
    assert status == 0 and len(scores["videos"]) == 1
    assert not (one_scored / "normal_1.frames.jsonl").exists()


def test_a_start_that_fails_pins_no_settings(short, tmp_path):
    opts = ("--opts", "MODEL.VIT.DEPTH", "4")  # not the shape of the weights
    with pytest.raises(CheckpointError):
        run(tmp_path / "out", "--video", short / "normal_1", *opts)
    assert not (tmp_path / "out").exists()
    assert run(tmp_path / "out", "--video", short / "normal_1")[0] == 0


DEFAULT_FOLDERS = [
    (["clips"], "results/clips"),
    (["clips/"], "results/clips"),
    (["clips/a.mp4"], "results/a"),
    (["clips/*.mp4"], "results/clips"),
    (["clips/a.mp4", "b.mp4"], "results/a_and_1_more"),
]


@pytest.mark.parametrize(("inputs", "folder"), DEFAULT_FOLDERS)
def test_results_go_to_a_folder_named_like_the_input(inputs, folder, tmp_path, monkeypatch):
    (tmp_path / "clips").mkdir()
    monkeypatch.chdir(tmp_path)
    assert inference.default_output(inputs) == Path(folder)


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


def test_a_run_killed_in_a_video_leaves_no_half_result(short, tmp_path):
    output = tmp_path / "out"
    run(output, "--video", short / "normal_1")
    (output / "scores.json").unlink()
    state = output / ".state" / "item.normal_1.json"
    before = json.loads(state.read_text())
    state.unlink()  # as if killed before the video was finished
    write_json(output / ".normal_1.frames.jsonl.1.part", {})
    status, scores = run(output, "--video", short / "normal_1")
    assert status == 0
    assert scores["videos"][0]["people"] == before["row"]["people"]
    assert not list(output.glob(".*.part"))


@pytest.mark.parametrize("flags", [[], ["--annotate"]])
def test_a_run_killed_in_a_video_goes_on_where_it_was(flags, short, tmp_path, monkeypatch):
    """The frames of whole batches are not computed again, and the results are the same."""
    detect, calls = PartDetector.detect, []

    def counted(self, frames, *run):
        if len(calls) == stop:
            raise KeyboardInterrupt
        calls.append(len(frames))
        return detect(self, frames, *run)

    monkeypatch.setattr(PartDetector, "detect", counted)
    words = ["--video", short / "hand_fused", "--batch-size", "1", *flags]
    monkeypatch.setattr("human_anomaly.models.scoring.scorer.share_cores", lambda *_: (1, 1))
    stop = None
    _, whole = run(tmp_path / "whole", *words)
    calls.clear()
    stop, output = 4, tmp_path / "cut"
    with pytest.raises(KeyboardInterrupt):
        run(output, *words)
    part = output / ".state" / "part.hand_fused.jsonl"
    kept = len(part.read_text().splitlines()) - 1
    assert 0 < kept <= 4
    with part.open("a") as file:
        file.write('{"rows": [')  # what a kill may cut off
    stop = None
    calls.clear()
    status, scores = run(output, *words)
    assert status == 0 and len(calls) == 5 - kept
    rows, expected = (f / "hand_fused.frames.jsonl" for f in (output, tmp_path / "whole"))
    assert rows.read_text() == expected.read_text()
    assert without_seconds(scores) == without_seconds(whole)
    assert (output / "hand_fused.annotated.webm").exists() == bool(flags)
    assert not part.exists()


def test_a_video_that_vanishes_fails_alone(short, tmp_path, monkeypatch):
    shutil.copytree(short, tmp_path / "videos")
    score = VideoScorer.score

    def vanishing(self, source, **options):
        if source.stem == "normal_1":
            shutil.rmtree(tmp_path / "videos" / "hand_fused")
        return score(self, source, **options)

    monkeypatch.setattr(VideoScorer, "score", vanishing)
    videos = (tmp_path / "videos" / name for name in ("normal_1", "hand_fused"))
    status, scores = run(tmp_path / "out", "--video", *videos)
    assert status == 1 and len(scores["videos"]) == 1
    assert "No such file" in scores["failed"][0]["error"]


def test_a_full_disk_is_one_line_and_a_rerun_continues(short, tmp_path, monkeypatch, capsys):
    words = ("--video", short / "normal_1", short / "hand_fused")
    finish = JobFolder.finish

    def full(self, source, row, files):
        if source.stem == "hand_fused":
            raise OSError(errno.ENOSPC, "No space left on device", "results")
        finish(self, source, row, files)

    with monkeypatch.context() as patch:
        patch.setattr(JobFolder, "finish", full)
        assert run(tmp_path / "out", *words) == (1, {})
    assert "results: No space left on device; what is finished is kept" in capsys.readouterr().err
    assert run(tmp_path / "out", *words)[0] == 0

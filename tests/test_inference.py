"""inference.py as users call it, with the embedded weights."""

import fcntl
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import ROOT

import inference
from models.checkpoint import CheckpointError
from models.detector import PartDetector
from utils import UsageError, read_jsonl, write_json

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
        "frames_expected people abnormal_people abnormal_by_part skipped_crops warnings seconds"
    )
    assert set(keys.split()) <= set(scores["videos"][0])
    row = scores["videos"][0]
    lines = (output / "normal_1.frames.jsonl").read_text().splitlines()
    frames = [json.loads(line) for line in lines]
    people = [p for f in frames for p in f["people"]]
    assert [f["frame"] for f in frames] == [0, 1, 2] and frames[1]["time"] == pytest.approx(1 / 25)
    assert len(people) == row["people"] > 0
    assert row["video_results"] == 1 - sum(p["abnormal"] for p in people) / len(people)
    part = people[0]["parts"][0]
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


def test_two_processes_give_what_one_gives(scored, short, tmp_path, monkeypatch):
    videos = ("--video", short / "normal_1", short / "hand_fused")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    (tmp_path / ".state").mkdir()
    with (tmp_path / ".state" / "lock.normal_1").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # the other process works on it
        status, scores = run(tmp_path, *videos)
    assert (status, scores) == (0, {})
    assert (tmp_path / "hand_fused.frames.jsonl").exists()
    assert not (tmp_path / "normal_1.frames.jsonl").exists()
    monkeypatch.setenv("RANK", "0")
    status, scores = run(tmp_path, *videos)
    expected = json.loads(json.dumps(scored[2]))
    for row in (*scores["videos"], *expected["videos"]):
        del row["seconds"]
    assert status == 0 and scores == expected
    for stem in ("normal_1", "hand_fused"):
        name = f"{stem}.frames.jsonl"
        assert (tmp_path / name).read_bytes() == (scored[0] / name).read_bytes()


@pytest.fixture
def small_pieces(monkeypatch):
    """Two processes share even the shortest video, a batch of one frame each."""
    monkeypatch.setattr("models.sharing.BATCHES_PER_PIECE", 1)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")


@pytest.mark.parametrize("flags", [[], ["--annotate", "--report"]])
def test_processes_share_a_video_in_pieces(flags, short, tmp_path, small_pieces, monkeypatch):
    words = ("--video", short / "hand_fused", "--batch-size", "1", *flags)
    (tmp_path / ".state").mkdir()
    with (tmp_path / ".state" / "piece.2.hand_fused").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # the other process works on the third frame
        assert run(tmp_path, *words) == (0, {})
    rows = [r for p in (tmp_path / ".state/part.hand_fused").iterdir() for r in read_jsonl(p)]
    assert sorted(row["number"] for row in rows if "number" in row) == [0, 1, 3, 4]
    assert [row["total"] for row in rows if "total" in row] == [5]
    assert not (tmp_path / "hand_fused.frames.jsonl").exists()
    monkeypatch.setenv("RANK", "0")
    status, scores = run(tmp_path, *words)
    assert status == 0 and not list((tmp_path / ".state").glob("part.*"))
    monkeypatch.setenv("WORLD_SIZE", "1")
    _, expected = run(tmp_path / "one", *words)
    for row in (*scores["videos"], *expected["videos"]):
        del row["seconds"]
    assert scores == expected
    one, two = (f / "hand_fused.frames.jsonl" for f in (tmp_path / "one", tmp_path))
    assert one.read_bytes() == two.read_bytes()
    assert (tmp_path / "hand_fused.annotated.webm").exists() == bool(flags)
    assert (tmp_path / "report" / "index.html").exists() == bool(flags)


def test_a_shared_video_that_breaks_off_says_so(short, tmp_path, small_pieces):
    path = tmp_path / "cut.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 24, (640, 360))
    frame = cv2.resize(cv2.imread(str(short / "normal_1" / "0.png")), (640, 360))
    for _ in range(20):
        writer.write(frame)
    writer.release()
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.6)])
    data = path.read_bytes()
    (tmp_path / "none.avi").write_bytes(data[: data.index(b"movi") + 4])
    videos = ("--video", path, tmp_path / "none.avi", "--frame-stride", "2")
    status, scores = run(tmp_path / "out", *videos)
    assert status == 1
    (cut,), (none,) = scores["videos"], scores["failed"]
    assert 0 < cut["frames"] < cut["frames_expected"] == 10
    assert cut["people"] > 0 and "truncated" in cut["warnings"][0]
    assert "no frame could be decoded" in none["error"] or "not a video" in none["error"]


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
    opts = [x for p in ("HUMAN", "FACE", "HAND") for x in (f"SCORE.THRESHOLDS.{p}", "-1")]
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
    gone = str(tmp_path / "gone.pth")
    with pytest.raises(CheckpointError, match=r"gone\.pth: no such weight file"):
        run(
            tmp_path, "--video", short / "normal_1", "--parts", "human",
            "--detector_config", ROOT / "configs/demo/yolo_world_demo.py",
            "--detector_weights", ROOT / "demo/weights/detector.pth", "--human_model", gone,
        )  # fmt: skip


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

    def counted(self, frames):
        if len(calls) == stop:
            raise KeyboardInterrupt
        calls.append(len(frames))
        return detect(self, frames)

    monkeypatch.setattr(PartDetector, "detect", counted)
    words = ["--video", short / "hand_fused", "--batch-size", "1", *flags]
    monkeypatch.setattr("models.scoring_run.share_cores", lambda _device: (1, 1))
    stop = None
    _, whole = run(tmp_path / "whole", *words)
    calls.clear()
    stop, output = 4, tmp_path / "cut"
    with pytest.raises(KeyboardInterrupt):
        run(output, *words)
    (part,) = (output / ".state" / "part.hand_fused").iterdir()
    kept = len(part.read_text().splitlines()) - 1
    assert 0 < kept <= 4
    stop = None
    calls.clear()
    status, scores = run(output, *words)
    assert status == 0 and len(calls) == 5 - kept
    rows, expected = (f / "hand_fused.frames.jsonl" for f in (output, tmp_path / "whole"))
    assert rows.read_text() == expected.read_text()
    first, other = scores["videos"][0], whole["videos"][0]
    assert {**first, "seconds": 0} == {**other, "seconds": 0}
    assert (output / "hand_fused.annotated.webm").exists() == bool(flags)
    assert not list((output / ".state").glob("part.*"))

"""From videos to crops: the same squares as at scoring; what is refused, and what is kept."""

import json
import os
import shutil
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import RELEASE_YAML, detector_config, golden
from PIL import Image
from preprocess_runs import flags, rows_of, tree, write_video

from human_anomaly import preprocess
from human_anomaly.configs.defaults import PARTS, get_config
from human_anomaly.data.crops import cut
from human_anomaly.data.runs.jobs import JobFolder
from human_anomaly.data.sources import Source, find_sources
from human_anomaly.data.transforms import build_eval_transform
from human_anomaly.data.video import FrameReader
from human_anomaly.tools import label
from human_anomaly.utils import UsageError


def test_rows_files_and_lists_agree(videos, crop, tmp_path):
    output = tmp_path / "crops"
    assert crop(videos, output, "--format", "png", "--label", "0") == 0
    rows = rows_of(output / "boxes.jsonl")
    keys = ["source", "frame", "time", "person", "part", "box", "score", "square", "file", "label"]
    assert {tuple(row) for row in rows} == {tuple(keys)}
    assert rows == sorted(rows, key=lambda r: (r["source"], r["frame"], r["person"]))
    assert {row["source"] for row in rows} == {"v0", "v2", "v4", "sub__v1", "sub__v3", "sub__v5"}
    sources = find_sources([videos]).sources
    frames = {
        (source.stem, frame.index): frame.image
        for source in sources
        for frame in FrameReader(source)
    }
    listed: dict[str, dict] = {}
    for row in rows:
        x1, y1, x2, y2 = row["square"]
        image = frames[row["source"], row["frame"]][y1:y2, x1:x2]
        assert np.array_equal(cv2.imread(str(output / row["file"])), image)
        listed.setdefault(row["file"], row)
    on_disk = {f"{part}/{path.name}" for part in PARTS for path in (output / part).iterdir()}
    assert on_disk == set(listed)
    for part in PARTS:
        expected = sorted(
            [file.split("/")[1], 0, row["score"]]
            for file, row in listed.items()
            if row["part"] == part
        )
        assert rows_of(output / f"{part}.jsonl") == expected
    assert json.loads((output / "dataset.json").read_text()) == {"abnormal_label": 1}


def test_one_box_found_twice_is_one_crop(videos, crop, tmp_path):
    crop(videos, tmp_path / "crops")
    rows = rows_of(tmp_path / "crops/boxes.jsonl")
    places = {(r["source"], r["frame"], r["part"], *r["square"]) for r in rows}
    files = Counter(row["file"] for row in rows)
    assert len(rows) > len(places)  # the padding text finds the first person again
    assert len(files) == len(places)
    names = {row["file"] for row in rows if row["part"] == "human"}
    assert all("_p0." in name or "_p1." in name for name in names)
    assert any(name.endswith("_p0_1.jpg") for name in files)


def test_stride_min_size_and_format(videos, crop, tmp_path):
    crop(videos, tmp_path / "all", "--min-size", "0")
    crop(videos, tmp_path / "some", "--frame-stride", "3", "--min-size", "20")
    every = [row for row in rows_of(tmp_path / "all/boxes.jsonl") if row["frame"] % 3 == 0]
    some = rows_of(tmp_path / "some/boxes.jsonl")
    assert [row | {"file": 0} for row in some] == [row | {"file": 0} for row in every]
    small = [min(np.subtract(r["square"][2:], r["square"][:2])) < 20 for r in some]
    assert 0 < sum(small) < len(some)
    assert [row["file"] is None for row in some] == small
    written = list((tmp_path / "some").glob("*/*.jpg"))
    assert len(written) == len({row["file"] for row in some} - {None})
    assert min(min(cv2.imread(str(path)).shape[:2]) for path in written) >= 20


def test_a_folder_of_images_is_one_video(crop, tmp_path):
    for i in range(4):
        image = np.random.default_rng(i).integers(0, 256, (60, 80, 3), dtype=np.uint8)
        (tmp_path / "shots").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / f"shots/{i}.png"), image)
    assert crop(tmp_path / "shots", tmp_path / "crops", "--fps", "2") == 0
    rows = rows_of(tmp_path / "crops/boxes.jsonl")
    assert {row["source"] for row in rows} == {"shots"}
    assert all(row["time"] == row["frame"] / 2 for row in rows)


def test_a_second_run_into_the_folder_is_refused(videos, crop, tmp_path):
    output = tmp_path / "crops"
    with (
        JobFolder(output, {}).open(),
        pytest.raises(UsageError, match="another run is writing into"),
    ):
        crop(videos, output, "--overwrite")


def test_unreadable_inputs_are_named_and_the_rest_goes_on(videos, crop, tmp_path):
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "empty.mp4").touch()
    (bad / "text.mp4").write_text("no video")
    odd = bad / os.fsdecode(b"\xff.mp4")
    shutil.copy(videos / "v0.mp4", odd)
    inputs = [videos, bad, tmp_path / "gone.mp4"]
    output = tmp_path / "crops"
    assert crop(inputs, output) == 1
    failed = {Path(r["video_path"]).name: r["error"] for r in rows_of(output / "failed.jsonl")}
    assert failed["empty.mp4"] == "the file is empty (0 bytes)"
    assert "not a video" in failed["text.mp4"]
    assert "not UTF-8" in failed["\\xff.mp4"]
    assert "no such file" in failed["gone.mp4"]
    assert len(failed) == 4
    crop(videos, tmp_path / "good")
    expected = (tmp_path / "good/boxes.jsonl").read_bytes()
    assert (output / "boxes.jsonl").read_bytes() == expected
    for name in ("empty.mp4", "text.mp4"):
        write_video(bad / name, 3, 99)
    odd.unlink()
    assert crop([videos, bad], output) == 0
    assert not (output / "failed.jsonl").exists()
    assert {"empty", "text"} < {row["source"] for row in rows_of(output / "boxes.jsonl")}


def test_what_is_damaged_is_made_again_and_what_a_person_deleted_is_not(videos, crop, tmp_path):
    output = tmp_path / "crops"
    crop(videos, output)
    whole = tree(output)
    crops = sorted((output / "human").iterdir())
    crops[0].write_bytes(crops[0].read_bytes()[:-1])
    crops[-1].write_bytes(b"")
    (output / ".state/boxes.v4.jsonl").write_text("")
    (output / "boxes.jsonl").write_text("{}")
    (output / "face.jsonl").unlink()
    assert crop(videos, output) == 0
    assert tree(output) == whole
    crops[0].unlink()
    assert crop(videos, output) == 0
    assert not crops[0].exists()


def test_a_damaged_list_of_unfinished_videos_is_one_less(videos, crop, tmp_path):
    output = tmp_path / "crops"
    crop(videos, output)
    for content in ("5", "[[]]", "{"):
        (output / ".state/unfinished.json").write_text(content)
        (output / ".state/merged").write_text(content)
        assert crop(videos, output) == 0
    merged = json.loads((output / ".state/merged").read_text())
    for boxes in ({}, {"boxes": 5}, {"boxes": []}, {"boxes": None}):
        (output / ".state/merged").write_text(json.dumps({"stamp": merged["stamp"]} | boxes))
        assert crop(videos, output) == 0


def test_other_settings_need_another_folder(videos, crop, tmp_path):
    output = tmp_path / "crops"
    crop(videos, output)
    before = tree(output)
    with pytest.raises(
        UsageError, match=r"holds crops made with other settings \(frame_stride differ"
    ):
        crop(videos, output, "--frame-stride", "2")
    assert tree(output) == before
    assert crop(videos / "v2.mp4", output, "--frame-stride", "2", "--overwrite") == 0
    crop(videos / "v2.mp4", tmp_path / "fresh", "--frame-stride", "2")
    assert tree(output) == tree(tmp_path / "fresh")  # nothing of the others is left


def test_other_weights_are_other_settings(videos, crop, weights, tmp_path):
    crop(videos / "v0.mp4", tmp_path / "crops")
    (tmp_path / weights.name).write_bytes(b"WEIGHTS")
    with pytest.raises(UsageError, match="detector_weights differ"):
        preprocess.main(flags(videos / "v0.mp4", tmp_path / "crops", tmp_path / weights.name))


def test_sorted_crops_are_never_overwritten(videos, crop, tmp_path):
    output = tmp_path / "crops"
    crop(videos, output)
    row = next(r for r in rows_of(output / "boxes.jsonl") if r["part"] == "hand")
    (output / "hand/normal").mkdir()
    sorted_crop = output / "hand/normal" / Path(row["file"]).name
    (output / row["file"]).rename(sorted_crop)
    with pytest.raises(UsageError, match="sorted by hand; move those folders away first"):
        crop(videos, output, "--frame-stride", "2", "--overwrite")
    assert sorted_crop.exists()


def test_another_video_of_the_same_name_is_refused(videos, crop, tmp_path):
    output = tmp_path / "crops"
    crop(videos / "v0.mp4", output)
    write_video(tmp_path / "other/v0.mp4", 8, 77)
    with pytest.raises(UsageError, match="crops of 'v0' made from another file"):
        crop(tmp_path / "other/v0.mp4", output)
    assert crop(tmp_path / "other/v0.mp4", output, "--overwrite") == 0
    crop(tmp_path / "other/v0.mp4", tmp_path / "fresh")
    assert tree(output) == tree(tmp_path / "fresh")


def test_real_and_generated_videos_in_one_folder(videos, crop, tmp_path):
    output = tmp_path / "crops"
    crop(videos / "v4.mp4", output, "--label", "0")
    crop(videos / "sub", output)
    labels = {(r["source"], r["label"]) for r in rows_of(output / "boxes.jsonl")}
    assert labels == {("v4", 0), ("v1", None), ("v3", None), ("v5", None)}
    with pytest.raises(UsageError, match="crops of 'v4' made with --label 0, now None"):
        crop(videos / "v4.mp4", output)


def test_labels_outlive_a_rerun_and_more_videos(videos, crop, tmp_path):
    output = tmp_path / "crops"
    crop(videos / "v4.mp4", output)
    names = [path.name for path in sorted((output / "hand").iterdir())][:2]
    for name, word in zip(names, ("normal", "abnormal"), strict=True):
        (output / "hand" / word).mkdir()
        (output / "hand" / name).rename(output / "hand" / word / name)
    label.main([str(output)])
    labelled = (output / "hand.jsonl").read_bytes()
    assert [row[1] for row in rows_of(output / "hand.jsonl")] == [0, 1]
    crop(videos / "v4.mp4", output)
    assert (output / "hand.jsonl").read_bytes() == labelled  # nothing to add: left as it is
    crop(videos / "sub", output)
    rows = {Path(row[0]).name: row[:2] for row in rows_of(output / "hand.jsonl")}
    assert [rows[name] for name in names] == [
        [f"normal/{names[0]}", 0],
        [f"abnormal/{names[1]}", 1],
    ]
    assert sum(row[1] is None for row in rows.values()) == len(rows) - 2


def test_lists_are_split_by_video(videos, crop, tmp_path):
    output = tmp_path / "crops"
    crop(videos, output, "--train-test-split", "0.4")
    rows = {row["file"]: row["source"] for row in rows_of(output / "boxes.jsonl")}
    sides = [
        {
            rows[f"{part}/{row[0]}"]
            for part in PARTS
            for row in rows_of(output / f"{part}_{side}.jsonl")
        }
        for side in ("train", "test")
    ]
    assert all(sides)
    assert not sides[0] & sides[1]
    for part in PARTS:
        both = [r for s in ("train", "test") for r in rows_of(output / f"{part}_{s}.jsonl")]
        assert sorted(both) == rows_of(output / f"{part}.jsonl")
    crop(videos, output)  # the split is remembered
    assert (output / "hand_test.jsonl").exists()
    crop(videos, output, "--train-test-split", "0")
    assert not (output / "hand_test.jsonl").exists()


def test_names_that_are_not_utf8_are_left_out(crop, tmp_path):
    shots = tmp_path / "in" / "shots"
    shots.mkdir(parents=True)
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    for name in ("0.png", "1.png"):
        cv2.imwrite(str(shots / name), image)
    (shots / "1.png").rename(shots / os.fsdecode(b"\xff.png"))
    shutil.copytree(shots, tmp_path / "in" / os.fsdecode(b"\xfe"))
    folders = sorted((tmp_path / "in").iterdir())
    assert crop(folders, tmp_path / "crops") == 1
    failed = [r["video_path"] for r in rows_of(tmp_path / "crops/failed.jsonl")]
    assert set(failed) == {f"{shots}/\\xff.png", f"{shots.parent}/\\xfe"}
    assert {r["source"] for r in rows_of(tmp_path / "crops/boxes.jsonl")} == {"shots"}


def test_the_next_command_is_printed(videos, crop, tmp_path, capsys):
    output = tmp_path / "my crops"
    crop(videos / "v2.mp4", output)
    assert f"python -m tools.label '{output}' --page" in capsys.readouterr().err
    crop(videos / "v2.mp4", tmp_path / "real", "--label", "0")
    assert "data.label" not in capsys.readouterr().err  # nothing is left to be labelled


def test_a_split_without_test_videos_warns(videos, crop, tmp_path, capsys):
    crop(videos / "v4.mp4", tmp_path / "crops", "--train-test-split", "0.0001")
    said = capsys.readouterr().err
    assert "hand_test.jsonl is empty: --train-test-split 0.0001" in said
    assert "none of the 1 that have such crops fell to this list" in said


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--frame-stride", "0"], "--frame-stride: expected at least 1, got 0"),
        (["--fps", "0"], "--fps: expected a number between 0 and 1000"),
        (["--train-test-split", "1"], "--train-test-split: expected a share below 1"),
        (["--label", "2"], "--label: invalid choice: 2"),
    ],
)
def test_wrong_flags(more, message, crop, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        crop(tmp_path, tmp_path / "crops", *more)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_missing_inputs_and_weights(crop, videos, tmp_path):
    with pytest.raises(UsageError, match=r"--input: .*gone.mp4.*: no such file or folder"):
        crop(tmp_path / "gone.mp4", tmp_path / "crops")
    with pytest.raises(UsageError, match=r"--detector-weights: no such file: .*none.pth"):
        preprocess.main(flags(videos, tmp_path / "crops", tmp_path / "none.pth"))
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="--output"):
        crop(videos, tmp_path / "file")


@pytest.fixture(scope="module")
def golden_crops(clip, golden_weights, tmp_path_factory) -> Path:
    """Return the real clip's crops as PNG, with the golden detector of size S."""
    output = tmp_path_factory.mktemp("golden") / "crops"
    detector = golden_weights("pipeline_clip.expected.json") / "detector.pth"
    arguments = flags(clip, output, detector, "--format", "png", "--device", "cpu")
    arguments[arguments.index("s.py")] = str(detector_config("s"))
    assert preprocess.main(arguments) == 0
    return output


def test_the_real_clip_gives_the_golden_squares(golden_crops):
    from test_goldens import _near_whole

    expected, loose = Counter(), set()
    for frame in golden("pipeline_clip.expected.json")["frames"]:
        for person in frame["persons"]:
            for part in person["parts"]:
                key = (frame["frame"], part["part"], *part["square"])
                expected[key] += 1
                if _near_whole(part):
                    loose.add(key)
    found = Counter(
        (row["frame"], row["part"], *row["square"]) for row in rows_of(golden_crops / "boxes.jsonl")
    )
    assert found.total() == expected.total() == 69
    assert set(expected - found) <= loose


def test_crops_are_the_pixels_that_scoring_judges(golden_crops, golden_weights, clip):
    from human_anomaly.models.detector import PartDetector
    from human_anomaly.models.scoring.scorer import VideoScorer

    class Spy(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.seen: list[torch.Tensor] = []

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.seen += list(x)
            return torch.zeros(len(x))

    weights = golden_weights("pipeline_clip.expected.json") / "detector.pth"
    detector = PartDetector(detector_config("s"), weights)
    spies = {part: Spy() for part in PARTS}
    result = VideoScorer(detector, spies, get_config(RELEASE_YAML), stride=4).score(clip)
    rows = [row for row in rows_of(golden_crops / "boxes.jsonl") if row["frame"] % 4 == 0]
    scored = [
        (frame["frame"], number, part["part"], part["square"])
        for frame in result.frames
        for number, person in enumerate(frame["people"])
        for part in person["parts"]
    ]
    assert [(r["frame"], r["person"], r["part"], r["square"]) for r in rows] == scored
    frames = {frame.index: frame.image for frame in FrameReader(Source(clip, "clip"))}
    transform = build_eval_transform()
    for file, row in {row["file"]: row for row in rows}.items():
        crop = cv2.imread(str(golden_crops / file))
        assert np.array_equal(crop, cut(frames[row["frame"]], row["square"]))
        judged = transform(Image.fromarray(crop))  # the release feeds BGR
        difference = min((judged - x).abs().max().item() for x in spies[row["part"]].seen)
        assert difference < 1e-3, file

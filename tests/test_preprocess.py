"""From videos to crops: the same squares as at scoring; what is refused, and what is kept."""

import json
import os
import shutil
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from preprocess_runs import flags, rows_of, tree, write_video

from human_anomaly import preprocess
from human_anomaly.configs.defaults import PARTS
from human_anomaly.data.runs.jobs import JobFolder
from human_anomaly.data.sources import find_sources
from human_anomaly.data.video import FrameReader
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

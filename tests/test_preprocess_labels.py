"""preprocess.py's labels and lists for training."""

from pathlib import Path

import pytest
from preprocess_runs import rows_of

from human_anomaly.configs.defaults import PARTS
from human_anomaly.tools import label
from human_anomaly.utils import UsageError


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


def test_a_split_without_test_videos_warns(videos, crop, tmp_path, capsys):
    crop(videos / "v4.mp4", tmp_path / "crops", "--train-test-split", "0.0001")
    said = capsys.readouterr().err
    assert "hand_test.jsonl is empty: --train-test-split 0.0001" in said
    assert "none of the 1 with such crops is in this list" in said

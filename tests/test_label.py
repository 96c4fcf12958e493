"""Labels by sorted folders, by CSV and by the label page."""

import os
from pathlib import Path

import numpy as np
import pytest
from label_runs import NAMES, sort_into
from PIL import Image
from preprocess_runs import rows_of

from human_anomaly.data.cropping.crop_lists import choose_tested
from human_anomaly.data.dataset import read_manifest
from human_anomaly.tools import label
from human_anomaly.utils import UsageError, write_json, write_jsonl


@pytest.fixture
def folder(crop_folder: Path) -> Path:
    return crop_folder


def test_sorted_folders_become_the_training_list(folder: Path, capsys):
    sort_into(folder, "normal", 0, 5)
    sort_into(folder, "Abnormal", 3)
    sort_into(folder, "unsure", 7)
    assert label.main([str(folder)]) == 0
    assert rows_of(folder / "hand.jsonl") == [
        [f"normal/{NAMES[0]}", 0, 0.0],
        [f"Abnormal/{NAMES[3]}", 1, 3 / 8],
        [f"normal/{NAMES[5]}", 0, 5 / 8],
    ]
    said = capsys.readouterr().err
    left = f"hand: 2 normal, 1 abnormal, 5 unlabelled (left out, the first is {NAMES[1]})"
    assert left in said
    assert "face: 0 normal, 0 abnormal, 8 unlabelled" in said
    manifest = read_manifest(folder / "hand.jsonl")
    assert manifest.abnormal_label == 1
    assert manifest.targets.tolist() == [0, 1, 0]
    assert all(manifest.image_path(i).is_file() for i in range(3))


def test_sorting_again_changes_the_list(folder: Path):
    sort_into(folder, "normal", 0, 1)
    label.main([str(folder)])
    (folder / "hand/abnormal").mkdir()
    (folder / "hand/normal" / NAMES[0]).rename(folder / "hand/abnormal" / NAMES[0])
    (folder / "hand/normal" / NAMES[1]).rename(folder / "hand" / NAMES[1])
    assert label.main([str(folder)]) == 0
    assert rows_of(folder / "hand.jsonl") == [[f"abnormal/{NAMES[0]}", 1, 0.0]]


def test_contact_sheet_shows_each_group(folder: Path):
    sort_into(folder, "abnormal", 7)  # its tone is 210, no other crop's is above 180
    label.main([str(folder)])
    sheet = np.asarray(Image.open(folder / "overview_hand.jpg").convert("L")).astype(int)
    found = [any(abs(sheet - tone).ravel() <= 1) for tone in (0, 60, 120, 210)]
    assert found == [True] * 4
    assert np.argwhere(abs(sheet - 210) <= 1)[:, 0].mean() < np.argwhere(sheet < 5)[:, 0].mean()


@pytest.mark.parametrize(
    "text",
    [
        "file,label\nhand/{0},normal\nhand/{1},1\nhand/{2},\n",
        "\ufefffile;label\r\nhand/{0};Normal\r\nhand\\{1};abnormal\r\n",  # a spreadsheet's
        "label\tpart\tfile\n0\thand\t{0}\n1\thand\t{1}\n",
        "hand/{0},0\nhand/{1},1\n",  # no header
    ],
)
def test_csv_in_each_form(folder: Path, text: str):
    (folder / "labels.csv").write_text(text.format(*NAMES), encoding="utf-8")
    assert label.main([str(folder)]) == 0
    assert rows_of(folder / "hand.jsonl") == [[NAMES[0], 0, 0.0], [NAMES[1], 1, 0.125]]
    assert rows_of(folder / "face.jsonl") == []


def test_csv_of_one_part_and_elsewhere(folder: Path, tmp_path_factory):
    (folder / "face.csv").write_text(f"{NAMES[2]},abnormal\n")
    other = tmp_path_factory.mktemp("other") / "mine.csv"
    other.write_text(f"file,label\nhand/{NAMES[4]},normal\n")
    assert label.main([str(folder), "--csv", str(other)]) == 0
    assert rows_of(folder / "face.jsonl") == [[NAMES[2], 1, 0.25]]
    assert rows_of(folder / "hand.jsonl") == [[NAMES[4], 0, 0.5]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\nhand/no.jpg,1\n", r"labels.csv:2: no such crop: hand/no.jpg; nothing was"),
        ("file,label\nfoot/{0},1\nhand/x.jpg,0\n", r"labels.csv:2: .* is in face and hand"),
        ("file,label\nhand/{0},2\n", r"labels.csv:2: label is '2', expected 0, 1, normal"),
        ("file,label\nhand/a,1\nhand/b,1\n", r"no such crop: hand/a \(and 1 more such lines\)"),
        ("file,label\nhand/{0}\n", r"labels.csv:2: expected file,label; got hand/a_f000000"),
    ],
)
def test_wrong_csv_writes_nothing(folder: Path, text: str, message: str):
    sort_into(folder, "normal", 0)
    label.main([str(folder)])
    before = (folder / "hand.jsonl").read_bytes()
    sort_into(folder, "normal", 1)
    (folder / "labels.csv").write_text(text.format(*NAMES))
    with pytest.raises(UsageError, match=message):
        label.main([str(folder)])
    assert (folder / "hand.jsonl").read_bytes() == before


def test_contradictions_are_named_and_left_out(folder: Path, capsys):
    sort_into(folder, "normal", 0, 1, 2)
    (folder / "hand/abnormal").mkdir()
    (folder / "hand/abnormal" / NAMES[1]).write_bytes(
        (folder / "hand/normal" / NAMES[1]).read_bytes()
    )
    (folder / "labels.csv").write_text(f"file,label\nhand/{NAMES[2]},1\nhand/{NAMES[0]},0\n")
    assert label.main([str(folder)]) == 1
    assert rows_of(folder / "hand.jsonl") == [[f"normal/{NAMES[0]}", 0, 0.0]]
    said = capsys.readouterr().err
    assert f"hand/{NAMES[1]} is abnormal in hand/abnormal/{NAMES[1]}, normal in" in said
    assert f"hand/{NAMES[2]} is normal in hand/normal/{NAMES[2]}, abnormal in labels.csv:2" in said


def test_copied_instead_of_moved_counts_once(folder: Path):
    (folder / "hand/normal").mkdir()
    (folder / "hand/normal" / NAMES[0]).write_bytes((folder / "hand" / NAMES[0]).read_bytes())
    label.main([str(folder)])
    assert rows_of(folder / "hand.jsonl") == [[f"normal/{NAMES[0]}", 0, 0.0]]


def test_unknown_file_in_a_sorted_folder_is_an_error(folder: Path):
    sort_into(folder, "normal", 0)
    (folder / "hand/normal" / NAMES[0]).rename(folder / "hand/normal/renamed.jpg")
    with pytest.raises(UsageError, match=r"hand/normal/renamed.jpg: not a crop of .*boxes.jsonl"):
        label.main([str(folder)])
    assert not (folder / "hand.jsonl").exists()


def test_deleted_crops_are_left_out(folder: Path):
    sort_into(folder, "normal", 0, 1)
    (folder / "labels.csv").write_text(f"file,label\nhand/{NAMES[1]},0\n")
    (folder / "hand/normal" / NAMES[1]).unlink()
    assert label.main([str(folder)]) == 0
    assert rows_of(folder / "hand.jsonl") == [[f"normal/{NAMES[0]}", 0, 0.0]]


def test_the_videos_label_gives_way_to_a_persons(folder: Path):
    boxes = rows_of(folder / "boxes.jsonl")
    for row in boxes:
        row["label"] = 0 if row["source"] == "a" else None
    write_jsonl(folder / "boxes.jsonl", boxes)
    sort_into(folder, "abnormal", 1)
    label.main([str(folder)])
    rows = rows_of(folder / "hand.jsonl")
    assert [row[:2] for row in rows] == [
        [NAMES[0], 0],
        [f"abnormal/{NAMES[1]}", 1],
        [NAMES[2], 0],
        [NAMES[3], 0],
    ]


def test_lists_are_split_by_video(folder: Path):
    share = 0.5
    expected = {source: source in choose_tested([set("ab")], share) for source in "ab"}
    write_json(folder / "preprocess.json", {"train_test_split": share})
    sort_into(folder, "normal", 0, 2, 5, 6)
    label.main([str(folder)])
    for name, wanted in (("train", False), ("test", True)):
        sources = {row[0].split("/")[1][0] for row in rows_of(folder / f"hand_{name}.jsonl")}
        assert sources == {source for source, test in expected.items() if test == wanted}


def test_a_folder_without_boxes_takes_every_image(tmp_path: Path):
    for i, word in enumerate(("normal", "abnormal")):
        (tmp_path / "hand" / word).mkdir(parents=True)
        Image.new("RGB", (9, 9)).save(tmp_path / "hand" / word / f"{i}.png")
    (tmp_path / "hand/normal/Thumbs.db").write_bytes(b"x")
    (tmp_path / "human.jsonl").write_text("kept\n")
    assert label.main([str(tmp_path)]) == 0
    assert rows_of(tmp_path / "hand.jsonl") == [
        ["normal/0.png", 0, None],
        ["abnormal/1.png", 1, None],
    ]
    assert (tmp_path / "human.jsonl").read_text() == "kept\n"  # no folder of that part


def test_template_lists_what_is_unlabelled(folder: Path):
    sort_into(folder, "normal", 0)
    assert label.main([str(folder), "--template"]) == 0
    lines = (folder / "labels.csv").read_text().splitlines()
    assert lines[0] == "file,label"
    assert lines[1] == f"face/{NAMES[0]},"
    assert len(lines) == 16
    assert not (folder / "hand.jsonl").exists()
    with pytest.raises(UsageError, match="exists already"):
        label.main([str(folder), "--template"])
    filled = [line + "abnormal" if "hand" in line else line for line in lines]
    (folder / "labels.csv").write_text("\n".join(filled))
    assert label.main([str(folder)]) == 0
    assert [row[1] for row in rows_of(folder / "hand.jsonl")] == [0] + [1] * 7


def test_a_name_that_is_not_utf8(folder: Path):
    sort_into(folder, "normal", 0)
    (folder / "hand/normal" / NAMES[0]).rename(folder / "hand/normal" / os.fsdecode(b"\xff.jpg"))
    with pytest.raises(UsageError, match=r"hand/normal/\\xff.jpg: the name is not UTF-8"):
        label.main([str(folder)])


def test_wrong_folder_and_broken_boxes(tmp_path: Path, folder: Path):
    with pytest.raises(UsageError, match="expected one of human/, face/, hand/ in it"):
        label.main([str(tmp_path / "none")])
    (folder / "boxes.jsonl").write_text('{"file": "hand/a.jpg"}\n')
    with pytest.raises(UsageError, match=r"boxes.jsonl: not written by preprocess.py"):
        label.main([str(folder)])


def test_a_split_without_test_videos_warns(folder: Path, capsys):
    write_json(folder / "preprocess.json", {"train_test_split": 1e-9})
    sort_into(folder, "normal", 0, 1)
    label.main([str(folder)])
    said = capsys.readouterr().err
    assert "hand_test.jsonl is empty" in said and "none of the 1 with such" in said
    assert "hand_train.jsonl: all 2 crops have label 0, and training needs both" in said
    assert "face_test.jsonl" not in said  # nothing is labelled there yet

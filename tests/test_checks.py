"""What is said about the crops before training: broken images, both labels, the sheets."""

import json

import numpy as np
import pytest
from drawn_crops import write_crops
from PIL import Image

from human_anomaly.data.checks import (
    check_images,
    check_labels,
    check_rows,
    contradictions,
    draw_labels,
    draw_tiles,
    warn_of_shared_images,
)
from human_anomaly.data.dataset import PUBLIC_DATA_SET, read_manifest
from human_anomaly.utils import UsageError


def test_unreadable_images_are_found_by_line(tmp_path):
    manifest = read_manifest(write_crops(tmp_path, "hand_train", 8, size=40))
    assert check_rows(manifest, range(8), workers=2, quiet=True) == ([], [])
    (tmp_path / "all_images" / manifest.names[2]).unlink()
    cut = tmp_path / "all_images" / manifest.names[5]
    cut.write_bytes(cut.read_bytes()[:-300])
    found, _ = check_rows(manifest, range(8), workers=2, quiet=True)
    assert [line for line, _ in found] == [3, 6]
    assert "no such image" in found[0][1] and "cannot read image" in found[1][1]
    # A process checks its share only.
    assert [n for n, _ in check_rows(manifest, range(1, 8, 2), workers=1)[0]] == [6]


def test_exif_rotation_of_crops_is_told_once_with_a_count(tmp_path, caplog):
    manifest = read_manifest(write_crops(tmp_path, "hand_train", 8, size=40))
    for index in (2, 5):
        path = manifest.image_path(index)
        exif = Image.Exif()
        exif[274] = 6
        Image.open(path).save(path, exif=exif)
    check_images(manifest)
    assert [record.message for record in caplog.records] == [
        f"{manifest.path}: EXIF rotation of 2 images is not applied, as in the original (first: "
        f"{manifest.names[2]})"
    ]


def test_shared_and_contradictory_images(tmp_path, caplog):
    train = write_crops(tmp_path, "hand_train", 4, size=16)
    test = write_crops(tmp_path, "hand_test", 2, size=16)
    test.write_text(test.read_text() + '["hand_train_0001.png", 1]\n["hand_train_0001.png", 0]\n')
    one, two = read_manifest(train), read_manifest(test)
    warn_of_shared_images(one, read_manifest(write_crops(tmp_path, "hand_val", 2)))
    assert not caplog.text
    warn_of_shared_images(one, two)
    assert "1 images are in both" in caplog.text and "(first: hand_train_0001.png)" in caplog.text
    assert contradictions(two) == ["hand_train_0001.png"]
    assert contradictions(one) == []


def test_lists_that_differ_in_what_is_abnormal(tmp_path, caplog):
    """A guess is refused; where both lists are known to differ, a warning says so."""
    train = write_crops(tmp_path / PUBLIC_DATA_SET, "hand_train", 2, abnormal_label=0)
    val = write_crops(tmp_path / "mine", "hand_val", 2)
    with pytest.raises(UsageError) as caught:
        check_labels(read_manifest(train), read_manifest(val))
    assert str(caught.value) == (
        "--abnormal-label: expected 0 or 1, because the lists differ: in "
        f"{train} label 0 is abnormal (the path holds {PUBLIC_DATA_SET}); "
        f"in {val} label 1 is abnormal (the default)"
    )
    check_labels(*(read_manifest(path, abnormal_label="0") for path in (train, val)))
    check_labels(read_manifest(val), read_manifest(val))
    assert not caplog.text
    (tmp_path / "mine/dataset.json").write_text(json.dumps({"abnormal_label": 1}))
    check_labels(read_manifest(train), read_manifest(val))
    assert "the lists differ: in" in caplog.text and "(by " in caplog.text


def test_label_sheet_puts_abnormal_below(tmp_path):
    """Normal crops are black, abnormal ones white; the label that means abnormal is 0 here."""
    (tmp_path / "all_images").mkdir()
    rows = []
    for i in range(20):
        Image.new("RGB", (20, 20), "white" if i % 2 else "black").save(
            tmp_path / "all_images" / f"{i}.png"
        )
        rows.append(f'["{i}.png", {1 - i % 2}]')
    path = tmp_path / "hand_train.jsonl"
    path.write_text("\n".join(rows))
    sheet = np.asarray(draw_labels(read_manifest(path, abnormal_label="0"), size=64))
    middle = sheet.shape[0] // 2
    above, below = sheet[36:middle], sheet[middle + 36 :]
    assert (above == 0).all(2).mean() > 0.5  # eight black squares on white paper
    assert (below == 0).all(2).mean() < 0.1


def test_tiles_keep_their_shape():
    sheet = draw_tiles([(Image.new("RGB", (40, 10), "red"), "wide\ntwo lines")] * 3, columns=2)
    assert sheet.width == 2 * 168 and sheet.height == 2 * (160 + 32 + 8)
    red = (np.asarray(sheet) == (255, 0, 0)).all(2)
    assert red.sum() == 3 * 160 * 40

"""Labelled crops: what a JSONL may hold, which label is abnormal, and the order of training."""

import json
import random

import numpy as np
import pytest
import torch
from drawn_crops import write_crops
from PIL import Image

from human_anomaly.configs.defaults import get_config
from human_anomaly.data.dataset import (
    CropDataset,
    EpochBatches,
    find_abnormal_label,
    find_image_root,
    read_image,
    read_manifest,
    seeded,
)
from human_anomaly.data.transforms import EvalTransform, build_train_transform
from human_anomaly.utils import UsageError

GOOD = ['["a.jpg", 0, 0.9]', '["b.jpg", 1, 0.8]']


def write(folder, lines, name="hand_train.jsonl"):
    path = folder / name
    path.write_text("".join(line + "\n" for line in lines))
    return path


BAD_LINES = [
    ('["c.jpg", 1, 0.5', r":3: not JSON"),  # broken off
    ('["c.jpg", 2, 0.5]', r":3: label: expected 0, 1 or null, got 2"),
    ('["c.jpg", "1", 0.5]', r':3: label: expected 0, 1 or null, got "1"'),
    ('["c.jpg", true, 0.5]', r":3: label: expected 0, 1 or null, got true"),
    ('["c.jpg", null, 0.5]', r":3: label is null: .* not labelled"),
    ('["c.jpg"]', r":3: expected \[\"name.jpg\", label, score\]"),
    ('{"name": "c.jpg"}', r":3: expected \[\"name.jpg\", label, score\]"),
    ("[1, 1, 0.5]", r":3: expected \[\"name.jpg\", label, score\]"),
    ('["", 1, 0.5]', r":3: expected \[\"name.jpg\", label, score\]"),
]


@pytest.mark.parametrize("line, message", BAD_LINES)
def test_bad_line_is_named(tmp_path, line, message):
    path = write(tmp_path, [*GOOD, line])
    with pytest.raises(UsageError, match=str(path) + message):
        read_manifest(path)


@pytest.mark.parametrize(
    "lines, message",
    [
        ([], "empty"),
        (["", "  "], "empty"),
        (GOOD[:1] * 3, "all 3 lines have label 0, expected both"),
    ],
)
def test_unusable_file(tmp_path, lines, message):
    with pytest.raises(UsageError, match=message):
        read_manifest(write(tmp_path, lines))


def test_more_bad_lines_are_counted(tmp_path):
    path = write(tmp_path, [*GOOD, *['["c.jpg", 7, 0]'] * 4])
    with pytest.raises(UsageError, match=r":3: .*and 3 more lines"):
        read_manifest(path)


def test_missing_file_and_not_text(tmp_path):
    with pytest.raises(UsageError, match=r"none\.jsonl: cannot read"):
        read_manifest(tmp_path / "none.jsonl")
    (tmp_path / "binary.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match=r"binary\.jsonl: cannot read"):
        read_manifest(tmp_path / "binary.jsonl")


def test_line_numbers_survive_blank_lines(tmp_path):
    manifest = read_manifest(write(tmp_path, ["", GOOD[0], "", GOOD[1]]))
    assert manifest.lines == (2, 4)
    assert manifest.place(1) == f"{manifest.path}:4"
    assert manifest.part == "hand"


def test_image_root(tmp_path):
    path = tmp_path / "face_train.jsonl"
    assert find_image_root(path, "face") == tmp_path
    (tmp_path / "face").mkdir()
    assert find_image_root(path, "face") == tmp_path / "face"
    assert find_image_root(path, "") == tmp_path
    (tmp_path / "all_images").mkdir()
    assert find_image_root(path, "face") == tmp_path / "all_images"
    with pytest.raises(UsageError, match="--image-root: no such folder"):
        read_manifest(write(tmp_path, GOOD), image_root=str(tmp_path / "none"))


def test_abnormal_label(tmp_path):
    """A set value, the data set's own word, the public data set's name, the default: in turn."""
    plain = tmp_path / "mine" / "face_train.jsonl"
    public = tmp_path / "VBench-2.0_human_anomaly" / "dataset" / "face_train.jsonl"
    for path in (plain, public):
        path.parent.mkdir(parents=True)
    assert find_abnormal_label(plain)[0] == 1
    assert find_abnormal_label(public) == (0, "the path holds VBench-2.0_human_anomaly")
    assert find_abnormal_label(public, "1") == (1, "as set")
    (public.parent.parent / "dataset.json").write_text('{"abnormal_label": 1}')
    assert find_abnormal_label(public)[0] == 1
    (plain.parent / "dataset.json").write_text('{"abnormal_label": 0}')
    assert find_abnormal_label(plain)[0] == 0
    (plain.parent / "dataset.json").write_text('{"abnormal_label": 5}')
    with pytest.raises(UsageError, match=r"dataset\.json: abnormal_label: expected 0 or 1, got 5"):
        find_abnormal_label(plain)
    (plain.parent / "dataset.json").write_text("[]")
    with pytest.raises(UsageError, match=r"dataset\.json: expected"):
        find_abnormal_label(plain)


def test_targets_follow_the_abnormal_label(tmp_path):
    path = write(tmp_path, [*GOOD, '["c.jpg", 1]'])
    assert read_manifest(path).targets.tolist() == [0, 1, 1]
    assert read_manifest(path, abnormal_label="0").targets.tolist() == [1, 0, 0]
    assert read_manifest(path, abnormal_label="0").labels.tolist() == [0, 1, 1]


def train_transform(size, **changed):
    """Return the transform of the default settings, some `changed`."""
    aug = get_config().AUG
    settings = {
        "interpolation": "bicubic",
        "auto_augment": aug.AUTO_AUGMENT,
        "color_jitter": aug.COLOR_JITTER,
        "min_crop": aug.MIN_CROP,
    }
    return build_train_transform(size=size, **(settings | changed))


def test_crop_depends_on_seed_epoch_and_index_alone(tmp_path):
    manifest = read_manifest(write_crops(tmp_path, "hand_train", 4, size=40))
    dataset = CropDataset(manifest, train_transform(32), seed=3)
    image, target, index = dataset[5, 1]
    assert image.shape == (32, 32, 3) and image.dtype == torch.uint8
    assert (target, index) == (1, 1)
    random.seed(9), np.random.seed(9), torch.manual_seed(9)
    assert torch.equal(dataset[5, 1][0], image)
    assert not torch.equal(dataset[6, 1][0], image)
    other = CropDataset(manifest, train_transform(32), seed=4)
    assert not torch.equal(other[5, 1][0], image)


def test_seeded_puts_the_random_numbers_back():
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = random.random(), np.random.rand(), torch.rand(1).item()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    with seeded(7, 8):
        random.random(), np.random.rand(), torch.rand(1)
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == expected


def test_no_augmentation_is_the_evaluation_crop():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 40, 3), np.uint8))
    plain = train_transform(32, auto_augment="none", color_jitter=0, min_crop=0)
    from human_anomaly.data.transforms import normalize

    expected = EvalTransform(size=32)(image)
    torch.testing.assert_close(normalize(plain(image)[None])[0], expected, atol=1e-5, rtol=0)


def test_strongest_posterize_is_black_not_an_error():
    """Magnitude 10 asks for zero bits, which Pillow 13 refuses."""
    transform = train_transform(16, auto_augment="rand-m10-n15-inc1", min_crop=1.0)
    image = Image.new("RGB", (20, 20), (200, 100, 50))
    with seeded(0):
        outputs = [transform(image) for _ in range(60)]
    assert {tuple(output.shape) for output in outputs} == {(16, 16, 3)}


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda path: path.unlink(), "no such image"),
        (lambda path: path.write_bytes(b""), "cannot read image"),
        (lambda path: path.write_bytes(b"<html>" * 50), "cannot read image"),
        (lambda path: path.write_bytes(path.read_bytes()[:-200]), "cannot read image"),
    ],
)
def test_broken_image_names_its_line(tmp_path, make, message):
    path = write_crops(tmp_path, "hand_train", 4, size=40)
    make(tmp_path / "all_images" / "hand_train_0002.png")
    dataset = CropDataset(read_manifest(path), EvalTransform(size=32))
    with pytest.raises(UsageError, match=rf"{path}:3: {message}"):
        dataset[2]


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "I;16", "1"])
def test_other_kinds_of_images_become_rgb(tmp_path, mode):
    path = write_crops(tmp_path, "hand_train", 2, size=40)
    file = tmp_path / "all_images" / "hand_train_0000.png"
    image = Image.new(mode, (30, 20))
    image.save(file, "TIFF" if mode in ("CMYK", "I;16") else "PNG")
    dataset = CropDataset(read_manifest(path), EvalTransform(size=16))
    assert dataset[0][0].shape == (3, 16, 16)


def batches_of(world, **settings):
    settings = {"batch_size": 4 // world, "epochs": range(2), "seed": 1, **settings}
    return [list(EpochBatches(27, rank=r, world=world, **settings)) for r in range(world)]


def test_each_epoch_sees_each_crop_at_most_once():
    (batches,) = batches_of(1)
    assert len(batches) == 12 and {len(b) for b in batches} == {4}
    first, second = batches[:6], batches[6:]
    for epoch, part in enumerate((first, second)):
        rows = [key for batch in part for key in batch]
        assert {e for e, _ in rows} == {epoch}
        assert len({i for _, i in rows}) == 24
    assert [i for b in first for _, i in b] != [i for b in second for _, i in b]


def test_two_processes_share_the_batches_of_one():
    (one,), two = batches_of(1), batches_of(2)
    assert [a + b for a, b in zip(*two, strict=True)] == one


def test_accumulated_batches_add_up_to_the_same_step():
    (one,) = batches_of(1)
    (halves,) = batches_of(1, batch_size=2, accumulation=2)
    assert [a + b for a, b in zip(halves[::2], halves[1::2], strict=True)] == one


def test_a_resumed_run_sees_the_epochs_that_are_left():
    (whole,), (rest,) = batches_of(1), batches_of(1, epochs=range(1, 2))
    assert rest == whole[6:]


def test_rows_of_the_public_data_set_read_as_they_are(tmp_path):
    rows = [["0001_0.jpg", 0, 0.91], ["a b/Ä.jpg", 1, 0.5]]
    path = write(tmp_path, [json.dumps(row) for row in rows])
    assert read_manifest(path).names == ("0001_0.jpg", "a b/Ä.jpg")


def test_a_large_jpeg_is_decoded_at_the_smallest_scale_asked_for(tmp_path):
    path = tmp_path / "large.jpg"
    gradient = np.linspace(0, 255, 600).astype(np.uint8)
    Image.fromarray(np.repeat(np.tile(gradient, (640, 1))[..., None], 3, 2)).save(path, quality=95)
    assert read_image(path, "x").size == (600, 640)
    small = read_image(path, "x", 200)
    assert small.size == (300, 320) and small.mode == "RGB"
    whole = np.asarray(read_image(path, "x").resize((300, 320), Image.Resampling.BOX), int)
    assert np.abs(np.asarray(small, int) - whole).max() <= 4
    assert read_image(path, "x", 301).size == (600, 640)
    Image.open(path).save(tmp_path / "large.png")
    assert read_image(tmp_path / "large.png", "x", 200).size == (600, 640)

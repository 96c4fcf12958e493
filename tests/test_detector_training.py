"""The detector trains on fixed prompts, resumes, and scores without a text tower afterwards."""

import cv2
import numpy as np
import pytest
import torch
from conftest import ROOT

from human_anomaly.demo.detector_data import (
    CROP,
    FRAME,
    DrawnParts,
    Sample,
    ShapeBatches,
    move_boxes,
    place,
    samples_of,
)
from human_anomaly.demo.detector_training import build_runner, fixed_embeddings, prompt_table, train
from human_anomaly.models.detector import PartDetector
from human_anomaly.models.yolo_world.build import read_config
from human_anomaly.utils import UsageError

DEMO = ROOT / "configs/demo/yolo_world_demo.py"


def tiny_config(epochs: int = 2):
    config = read_config(DEMO)
    config.max_epochs, config.batch_size, config.warmup_iters = epochs, 4, 2
    return config


class Squares(torch.utils.data.Dataset):
    """Bright squares on black: in frames called people, in crops called hands."""

    def __len__(self) -> int:
        return 8

    def shape(self, index: int) -> tuple[int, int]:
        return 64, 64

    def __getitem__(self, item) -> dict:
        index = item[0] if isinstance(item, tuple) else item
        image = torch.zeros(3, 64, 64, dtype=torch.uint8)
        x = 8 + 4 * index
        image[:, 16:40, x : x + 20] = 255
        kind, label = ((FRAME, 0.0), (CROP, 1.0))[index % 2]
        return {
            "inputs": image,
            "boxes_labels": torch.tensor([[label, x, 16.0, x + 20, 40.0]]),
            "kind": kind,
        }


def test_prompt_sets_are_filled_up_with_their_last_text():
    texts = ["human", "face", "hand", " "]
    sets = {"frame": ["human", " "], "crop": ["face", "hand", " "]}
    assert prompt_table(texts, sets) == {"frame": [0, 3, 3], "crop": [1, 2, 3]}


def test_fixed_embeddings_are_orthonormal_and_the_same_again():
    found = fixed_embeddings(4, 64, seed=3)
    torch.testing.assert_close(found @ found.T, torch.eye(4), atol=2e-3, rtol=0)
    assert torch.equal(found, fixed_embeddings(4, 64, seed=3))
    assert torch.equal(found, found.half().float())


def test_a_prompt_set_filled_up_gives_the_same_scores(tmp_path):
    wrapper = build_runner(tiny_config(), Squares(), tmp_path, workers=0).model.eval()
    model = wrapper.detector
    text = wrapper.embeddings
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        short = model.raw(image, text[[0, 3]][None])
        filled = model.raw(image, text[[0, 3, 3]][None])
    for a, b in zip(short[0], filled[0], strict=True):
        torch.testing.assert_close(a, b[:, :2])
    for a, b in zip(short[1], filled[1], strict=True):
        torch.testing.assert_close(a, b)


def test_the_loss_scores_each_sample_against_its_own_prompts(tmp_path):
    """A text of no sample's set gets no gradient, and the label counts within the set."""
    runner = build_runner(tiny_config(), Squares(), tmp_path, workers=0)
    model = runner.model
    data = model.data_preprocessor(next(iter(runner.train_dataloader)), True)
    samples = data["data_samples"]
    samples["prompts"] = torch.tensor([[0, 3, 3]] * 4)
    samples["bboxes_labels"][:, 1] = 0
    embeddings = model.embeddings.requires_grad_(True)
    sum(model(data["inputs"], samples).values()).backward()
    used = embeddings.grad.abs().sum(1) > 0
    assert used.tolist() == [True, False, False, True]
    assert data["inputs"].max() == 1.0 and data["inputs"].dtype == torch.float32


class Interrupted(Squares):
    """Breaks off after its first 20 pictures: in the third epoch."""

    given = 0

    def __getitem__(self, item) -> dict:
        self.given += 1
        if self.given > 20:
            raise KeyboardInterrupt
        return super().__getitem__(item)


def test_training_lowers_the_loss_and_resumes(tmp_path):
    """An interrupted run goes on after its last whole epoch, its optimiser and schedule too."""
    config = tiny_config(60)
    config.batch_size = 8  # all pictures a step: with fewer the loss jumps, and so would the test
    with pytest.raises(KeyboardInterrupt):
        train(config, Interrupted(), tmp_path, workers=0)
    runner = build_runner(config, Squares(), tmp_path, workers=0)
    losses = []
    step = runner.model.train_step
    runner.model.train_step = lambda *a, **k: losses.append(step(*a, **k)) or losses[-1]
    runner.train()
    assert len(losses) == 58  # two epochs were done before
    total = [float(row["loss"]) for row in losses]
    assert np.median(total[-10:]) < 0.5 * np.median(total[2:12])
    assert runner.optim_wrapper.get_lr()["lr"][-1] == pytest.approx(0.01 * 1.5e-3, rel=0.1)
    last = torch.load(tmp_path / "epoch_60.pth", weights_only=True)
    assert "message_hub" not in last and last["meta"]["iter"] == 60


def test_a_run_of_other_settings_is_refused(tmp_path):
    train(tiny_config(1), Squares(), tmp_path, workers=0)
    with pytest.raises(UsageError, match="other settings"):
        train(tiny_config(2), Squares(), tmp_path, workers=0)


def test_what_was_trained_is_scored_without_a_text_tower(tmp_path):
    content = train(tiny_config(1), Squares(), tmp_path / "run", workers=0)
    assert content["vocabulary"]["texts"] == ["human", "face", "hand", " "]
    torch.save(content, tmp_path / "detector.pth")
    detector = PartDetector(DEMO, tmp_path / "detector.pth", score_thr=0.0)
    frame = np.full((90, 160, 3), 90, np.uint8)
    found = detector.predictor([frame], detector.people_texts)[0]
    assert found.labels.max() <= 1
    model = build_runner(tiny_config(1), Squares(), tmp_path / "run", workers=0).model
    expected = torch.stack([model.embeddings[i] for i in (0, 3)])
    torch.testing.assert_close(detector.people_texts[0], expected)


def test_samples_of_a_frame_are_the_frame_and_each_person():
    frame = np.zeros((720, 1280, 3), np.uint8)
    people = [
        {"human": [100, 100, 300, 700], "face": [[180, 120, 220, 170]], "hand": []},
        {"human": [600, 50, 800, 600], "face": [], "hand": [[610, 300, 650, 340]]},
    ]
    whole, first, second = samples_of(frame, people)
    assert (whole.kind, first.kind, second.kind) == (FRAME, CROP, CROP)
    scale = 400 / 1280
    np.testing.assert_allclose(whole.boxes, np.array([p["human"] for p in people]) * scale)
    assert first.labels.tolist() == second.labels.tolist() == [0, 1]  # face, hand
    left, top = 100 - 16, 100 - 48  # the margin; below, the frame ends first
    assert cv2.imdecode(first.jpeg, 1).shape[0] == 400
    scale = 400 / (720 - top)
    np.testing.assert_allclose(
        first.boxes[0], np.array([180 - left, 120 - top, 220 - left, 170 - top]) * scale, rtol=1e-4
    )


@pytest.mark.parametrize(("flip", "x"), [(False, (70, 80)), (True, (20, 30))])
def test_boxes_follow_the_picture(flip, x):
    """A window of 100 x 50 on a square of 100: boxes move with it, mirrored or not."""
    affine = place(np.array([10, 20, 110, 70]), (100, 100), flip=flip)
    boxes = np.array([[80, 30, 90, 40], [200, 30, 210, 40], [105, 20, 125, 30]], np.float32)
    moved, keep = move_boxes(boxes, affine, np.array([0, 25, 100, 75]))
    assert keep.tolist() == [True, False, False]  # the last lies outside for the most part
    np.testing.assert_allclose(moved[0], [x[0], 35, x[1], 45], atol=1e-3)


def still_crop() -> DrawnParts:
    """A person's crop of 100 x 200, of which 40 x 50 are a red hand."""
    image = np.zeros((200, 100, 3), np.uint8)
    image[50:100, 20:60] = (0, 0, 255)
    jpeg = cv2.imencode(".png", image)[1]
    window = np.array([0, 0, 100, 200], np.float32)
    boxes = np.array([[20, 50, 60, 100]], np.float32)
    data = DrawnParts.__new__(DrawnParts)
    data.size, data.augment = 320, False
    data.samples = [Sample(CROP, jpeg, boxes, np.array([1.0], np.float32), window)]
    return data


def test_a_sample_is_drawn_as_scoring_would_see_it():
    """Without variation a crop is letterboxed: grey around the window, boxes on the object."""
    item = still_crop()[0]
    assert item["boxes_labels"].tolist() == [[1.0, 112.0, 80.0, 176.0, 160.0]]
    assert item["inputs"][:, 100, 100].tolist() == [0, 0, 0]
    assert item["inputs"][:, 120, 140].tolist() == [0, 0, 255]
    assert item["inputs"][:, 10, 10].tolist() == [114] * 3


def test_a_sample_is_padded_to_its_own_aspect():
    data = still_crop()
    assert data.shape(0) == (160, 320)
    item = data[0, data.shape(0)]
    assert item["inputs"].shape == (3, 320, 160)
    assert item["boxes_labels"].tolist() == [[1.0, 32.0, 80.0, 96.0, 160.0]]
    assert item["inputs"][:, 120, 60].tolist() == [0, 0, 255]


class Shapes:
    """41 samples of two shapes."""

    def __len__(self) -> int:
        return 41

    def shape(self, index: int) -> tuple[int, int]:
        return (320, 192) if index % 3 else (160, 320)


def test_batches_are_of_one_shape():
    batches = ShapeBatches(Shapes(), 4)
    assert len(list(batches)) == len(batches) == 10
    assert all(isinstance(i, int) for batch in batches for i in batch)
    batches.to_aspect = True
    for _ in range(5):
        found = list(batches)
        assert len(found) == len(batches) and {len(batch) for batch in found} == {4}
        items = [i if isinstance(i, tuple) else (i, None) for batch in found for i in batch]
        assert len({index for index, _ in items}) == 40  # each once, one left out
        assert all(shape in (None, Shapes().shape(i)) for i, shape in items)
        shapes = [{i[1] if isinstance(i, tuple) else None for i in batch} for batch in found]
        assert all(len(shape) == 1 for shape in shapes)
        assert 3 <= sum(shape != {None} for shape in shapes) <= 5


def test_the_last_epochs_pad_to_aspect_and_keep_the_norms(tmp_path):
    config = tiny_config(2)
    data = Squares()
    runner = build_runner(config, data, tmp_path, workers=0)
    seen = []

    def note(*args, **kwargs):
        norms = [m for m in runner.model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        to_aspect = runner.train_dataloader.batch_sampler.to_aspect
        seen.append((runner.epoch, to_aspect, {norm.training for norm in norms}))
        return step(*args, **kwargs)

    step, runner.model.train_step = runner.model.train_step, note
    runner.train()
    assert seen == [(0, False, {True})] * 2 + [(1, True, {False})] * 2

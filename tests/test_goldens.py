"""The reference values: whoever changes a model runs these before and after."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import RELEASE_YAML, YAML, detector_config, golden
from PIL import Image
from seeded_weights import scene_frame, seeded_tensor, wave_image
from torchvision.ops import box_iou

from human_anomaly.configs.defaults import PARTS, get_config
from human_anomaly.data.crops import square_box
from human_anomaly.data.transforms import EvalTransform
from human_anomaly.data.video import Source
from human_anomaly.models.checkpoint import compare
from human_anomaly.models.classifier import (
    AnomalyClassifier,
    convert_finetuned,
    load_classifier,
    load_pretrained,
    shape_of,
)


def _seeded_state(manifest: str, prefix: str) -> dict:
    from make_checkpoints import relative_position_index

    return {
        name: relative_position_index()
        if name.endswith("relative_position_index")
        else seeded_tensor(f"{prefix}/{name}", tuple(shape))
        for name, shape in golden(manifest).items()
    }


def _input(size: str, seed: str) -> torch.Tensor:
    height, width = map(int, size.split("x"))
    image = wave_image(height, width, int(seed.removeprefix("seed")))
    return EvalTransform()(Image.fromarray(image))


@pytest.mark.parametrize("size", ["s", "m", "l", "x", "xl"])
def test_the_official_detector_names_are_accepted(size):
    from human_anomaly.models.yolo_world.build import (
        build_model,
        read_config,
        register,
        split_state,
    )
    from human_anomaly.models.yolo_world.text import build_text_tower, convert_text_tower

    register()
    with torch.device("meta"):
        model, tower = build_model(read_config(detector_config(size))), build_text_tower()
        state = {
            k: torch.empty(shape) for k, shape in golden(f"yolo_world_v2_{size}.keys.json").items()
        }
    rest, text = split_state(state)
    compare(rest, model.state_dict(), size)
    compare(convert_text_tower(text), tower.state_dict(), size)


def test_the_released_classifier_names_are_accepted():
    shapes = golden("simmim_finetune_vitb.keys.json")
    state = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    parameters = [v for k, v in state.items() if not k.endswith("relative_position_index")]
    assert sum(v.numel() for v in parameters) == 85_763_522
    with torch.device("meta"):
        model = AnomalyClassifier(**shape_of(get_config(YAML)))
    compare(convert_finetuned(state), model.state_dict(), "released")


@pytest.fixture(scope="module")
def human_state():
    return _seeded_state("simmim_finetune_vitb.keys.json", "human")


def test_eval_transform_statistics():
    for name, expected in golden("simmim_vitb.expected.json")["input_stats"].items():
        x = _input(*name.split("/"))
        np.testing.assert_allclose(x.mean((1, 2)), expected["mean"], atol=1e-5)
        np.testing.assert_allclose(x.std((1, 2)), expected["std"], atol=1e-4)
        np.testing.assert_allclose(x[:, 0, :5], expected["first5"], atol=1e-5)


@pytest.mark.parametrize("part", PARTS)
def test_classifier_logits(part, human_state, tmp_path):
    state = (
        human_state if part == "human" else _seeded_state("simmim_finetune_vitb.keys.json", part)
    )
    torch.save({"model": state, "epoch": 29}, tmp_path / "released.pth")
    model = load_classifier(tmp_path / "released.pth", get_config(RELEASE_YAML), "cpu")
    for name, (abnormal, normal) in golden("simmim_vitb.expected.json")["logits"].items():
        if name.startswith(part + "/"):
            with torch.inference_mode():
                logit = model(_input(*name.split("/")[1:])[None])
            assert logit.shape == (1,)
            assert logit.item() == pytest.approx(abnormal - normal, abs=2e-5)


def test_pretrained_loading(human_state, tmp_path):
    expected = golden("simmim_vitb.expected.json")["pretrained"]
    torch.save(
        {"model": _seeded_state("simmim_pretrain_vitb.keys.json", "pretrain")}, tmp_path / "p"
    )
    model = AnomalyClassifier(**shape_of(get_config(YAML))).eval()
    model.load_state_dict(convert_finetuned(human_state))
    assert load_pretrained(model, tmp_path / "p") == expected["missing"]
    x = _input("224x224", "seed0")[None]
    with torch.inference_mode():
        features = model.forward_head(model.forward_features(x), pre_logits=True)
        logit = model(x).item()
    np.testing.assert_allclose(features[0, :8], expected["features_first8"], atol=2e-5)
    abnormal, normal = expected["logits/224x224/seed0"]
    assert logit == pytest.approx(abnormal - normal, abs=2e-5)


def test_squares():
    for row in golden("square_crop.expected.json"):
        height, width = row["frame_hw"]
        expected = tuple(row["square"]) if isinstance(row["square"], list) else None
        assert square_box(row["bbox"], width, height) == expected, row


def test_raw_outputs_of_size_xl(tmp_path):
    assert_raw_outputs(tmp_path, "cpu")


def assert_raw_outputs(folder: Path, device: str) -> None:
    """Compare size XL's outputs on `device` with the reference; its weights go to `folder`."""
    from conftest import GOLDENS
    from make_checkpoints import detector_state

    from human_anomaly.models.detector import PartDetector

    expected = golden("yolo_world_v2_xl.expected.json")
    state = detector_state("xl", expected["weights"], GOLDENS)
    torch.save({"meta": {}, "state_dict": state}, folder / "xl.pth")
    del state
    detector = PartDetector(detector_config("xl"), folder / "xl.pth", device)
    image, _ = detector.predictor.letterbox(scene_frame(0))
    texts = {"human": detector.people_texts, "face": detector.part_texts}
    for case in expected["cases"]:
        with torch.inference_mode():
            batch = detector.predictor.batch([image])
            outputs = detector.predictor.raw(batch, texts[case["texts"][0]])
        outputs = [[level.cpu() for level in levels] for levels in outputs]
        for level, logits, boxes in zip(case["levels"], *outputs, strict=True):
            std = level["logit_std"]
            assert list(logits.shape) == level["shape"]
            assert logits.mean().item() == pytest.approx(level["logit_mean"], abs=5e-3 * std)
            assert logits.std().item() == pytest.approx(std, abs=5e-3 * std)
            assert boxes.mean().item() == pytest.approx(level["box_mean"], abs=5e-3)
            assert boxes.std().item() == pytest.approx(level["box_std"], abs=5e-3)
            for point in level["at"]:
                y, x0 = point["yx"]
                np.testing.assert_allclose(logits[0, :, y, x0], point["logits"], atol=5e-3 * std)
                np.testing.assert_allclose(boxes[0, :, y, x0], point["ltrb"], atol=5e-2)


def _take_best(candidates: list, box, box_of):
    boxes = torch.tensor([box_of(candidate) for candidate in candidates])
    return candidates.pop(int(box_iou(boxes, torch.tensor([box])).argmax()))


def near_whole(part: dict) -> bool:
    """Whether rounding may fall either way: an end of the square within 0.01 px of a pixel."""
    x1, y1, x2, y2 = part["bbox"]
    half = max(x2 - x1, y2 - y1) / 2
    ends = [
        *part["bbox"],
        *((c + s * half) for c in ((x1 + x2) / 2, (y1 + y2) / 2) for s in (-1, 1)),
    ]
    return any(abs(v - round(v)) < 0.01 for v in ends)


def assert_same_verdicts(result, expected: dict) -> None:
    """Compare a VideoResult with a pipeline's expected values, as goldens/README.md says."""
    summary = result.summary
    assert summary["video_results"] == expected["video_score_pooled"]
    assert summary["score_frame_mean"] == pytest.approx(expected["video_score_mean_of_frames"])
    assert summary["score_clean_frames"] == expected["video_score_clean_frames"]
    for row, frame in zip(result.frames, expected["frames"], strict=True):
        people = list(row["people"])
        assert len(people) == len(frame["persons"])
        assert row["score"] == pytest.approx(frame["frame_score"])
        for person in frame["persons"]:
            box = person["parts"][0]["bbox"]
            ours = _take_best(people, box, lambda p: p["parts"][0]["bbox"])
            assert ours["abnormal"] == person["abnormal"]
            parts = list(ours["parts"])
            assert len(parts) == len(person["parts"])
            for part in person["parts"]:
                same = [p for p in parts if p["part"] == part["part"]]
                match = _take_best(same, part["bbox"], lambda p: p["bbox"])
                parts.remove(match)
                np.testing.assert_allclose(match["bbox"], part["bbox"], atol=0.5)
                if not near_whole(part):
                    assert match["square"] == part["square"]
                    assert match["p_abnormal"] == pytest.approx(part["p_abnormal"], abs=2e-3)


def golden_scorer(folder, config, device="cpu"):
    from human_anomaly.models.detector import PartDetector
    from human_anomaly.models.scoring.scorer import VideoScorer

    detector = PartDetector(detector_config("s"), folder / "detector.pth", device)
    classifiers = {p: load_classifier(folder / f"{p}.pth", config, device) for p in PARTS}
    return VideoScorer(detector, classifiers, config)


def assert_scene(weights: Path, folder: Path, channels: str, device: str) -> None:
    """Score the drawn scene on `device`; its frames go to `folder`."""
    config = get_config(YAML, ["TEST.CHANNELS", channels])
    for i in range(4):
        cv2.imwrite(str(folder / f"{i}.png"), scene_frame(i))
    source = Source(folder, "scene", tuple(sorted(folder.glob("*.png"))))
    expected = golden(f"pipeline_scene.{channels}.expected.json")
    assert_same_verdicts(golden_scorer(weights, config, device).score(source), expected)

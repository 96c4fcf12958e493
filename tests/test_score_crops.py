"""Crops judged by classifiers, for the label page."""

import json

import numpy as np
import pytest
import torch
from conftest import ROOT
from drawn_crops import draw_crop
from PIL import Image

from human_anomaly.configs.defaults import get_config
from human_anomaly.data.transforms import EvalTransform
from human_anomaly.models.classifier import load_classifier
from human_anomaly.tools import label
from human_anomaly.utils import UsageError

CFG = ROOT / "configs/demo/demo.yaml"
HAND, FACE = (ROOT / f"demo/weights/{part}.pth" for part in ("hand", "face"))


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for part in ("hand", "face"):
        (tmp_path / part / "normal").mkdir(parents=True)
        for i in range(3):
            draw_crop(rng, i == 1, 60 + 9 * i).save(tmp_path / part / f"a_f00000{i}_p0_0.png")
    (tmp_path / "hand/a_f000002_p0_0.png").rename(tmp_path / "hand/normal/a_f000002_p0_0.png")
    return tmp_path


def run(folder, *more) -> dict:
    assert label.main([str(folder), "--cfg", str(CFG), "--device", "cpu", *more]) == 0
    return json.loads((folder / "p_abnormal.json").read_text())


def test_each_crop_has_its_classifiers_p(folder):
    found = run(folder, "--hand-model", str(HAND), "--batch-size", "2")
    config = get_config(CFG)
    classifier = load_classifier(HAND, config, "cpu")
    transform = EvalTransform(size=config.DATA.IMG_SIZE, crop=config.TEST.CROP)
    places = ["a_f000000_p0_0.png", "a_f000001_p0_0.png", "normal/a_f000002_p0_0.png"]
    with torch.inference_mode():
        for place in places:
            x = transform(Image.open(folder / "hand" / place))[None]
            p = classifier(x).sigmoid().item()
            assert found.pop(f"hand/{place.rsplit('/', 1)[-1]}") == pytest.approx(p, abs=1e-3)
    assert found == {}


def test_other_parts_are_kept_and_unreadable_crops_left_out(folder, capsys):
    run(folder, "--hand-model", str(HAND))
    (folder / "hand/a_f000000_p0_0.png").write_bytes(b"no image")
    assert len(run(folder, "--face-model", str(FACE))) == 6
    again = run(folder, "--hand-model", str(HAND))
    assert len(again) == 5 and "hand/a_f000000_p0_0.png" not in again
    assert "cannot read image" in capsys.readouterr().err


def test_colours_may_be_swapped(folder):
    assert run(folder, "--hand-model", str(HAND)) != run(
        folder, "--hand-model", str(HAND), "--opts", "TEST.CHANNELS", "bgr"
    )


def test_the_page_is_written_with_the_new_figures(folder):
    found = run(folder, "--hand-model", str(HAND), "--page")
    page = (folder / "label.html").read_text()
    shown = [f'"p": {p}' in page for p in found.values()]
    assert shown == [True, True, False]  # the third is labelled: it lies in normal/
    assert not (folder / "hand.jsonl").exists()


def test_wrong_use(folder, tmp_path):
    (tmp_path / "none" / "face").mkdir(parents=True)
    with pytest.raises(UsageError, match="--hand-model: no hand crops in"):
        run(tmp_path / "none", "--hand-model", str(HAND))

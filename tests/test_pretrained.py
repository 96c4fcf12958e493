"""Starting from a classifier of ours or a released one, and which settings a checkpoint has."""

import json

import pytest
import torch
from finetune_runs import finetune, same_weights, state

from human_anomaly import main_finetune
from human_anomaly.configs.defaults import get_config
from human_anomaly.models.checkpoint import CheckpointError
from human_anomaly.models.classifier import (
    AnomalyClassifier,
    load_classifier,
    load_pretrained,
    shape_of,
)

STANDING = [word for key in ("BASE_LR", "WARMUP_LR", "MIN_LR") for word in (f"TRAIN.{key}", "0")]


def settings_of(data, *opts):
    return get_config(data / "small.yaml", opts)


def new_model(config):
    torch.manual_seed(5)
    return AnomalyClassifier(**shape_of(config)).eval()


def images(size=16):
    return torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(0))


def two_logits(finished, path, gap):
    """Write ckpt1.pth with the released head: the two rows differ by the one row that it had."""
    content = state(finished / "ckpt1.pth")
    weight, bias = content["model"]["head.weight"], content["model"]["head.bias"]
    rows = (1.5, 0.5) if gap > 0 else (0.5, 1.5)
    content["model"]["head.weight"] = torch.cat([weight * row for row in rows])
    content["model"]["head.bias"] = torch.cat([bias * row for row in rows])
    torch.save({"model": content["model"], "epoch": 29}, path)
    return path


@pytest.mark.parametrize("abnormal_index", [None, 0, 1])
def test_a_classifier_is_taken_over_whole(data, finished, tmp_path, abnormal_index):
    config, path = settings_of(data), finished / "ckpt1.pth"
    expected = load_classifier(path, config, "cpu")
    if abnormal_index is not None:
        path = two_logits(finished, tmp_path / "released.pth", 1 - 2 * abnormal_index)
    model = new_model(config)
    assert load_pretrained(model, path, abnormal_index or 0) == []
    torch.testing.assert_close(model(images()), expected(images()))


def test_another_head_starts_new_and_other_tables_are_interpolated(data, finished):
    config = settings_of(data, "MODEL.HEAD_HIDDEN", "8", "DATA.IMG_SIZE", "32")
    model, drawn = new_model(config), new_model(config).state_dict()
    new = load_pretrained(model, finished / "ckpt1.pth")
    assert new == [f"head.{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias")]
    given, found = state(finished / "ckpt1.pth")["model"], model.state_dict()
    assert all(torch.equal(found[name], drawn[name]) for name in new)
    for name in given.keys() & found.keys():
        if not name.endswith("bias_table"):
            assert torch.equal(found[name], given[name]), name
    table = "blocks.0.attn.relative_position_bias_table"
    assert found[table].shape == drawn[table].shape != given[table].shape
    assert torch.equal(found[table][-3:], given[table][-3:])  # those of the class token


def test_a_classifier_that_lacks_more_than_its_head_is_refused(data, finished, tmp_path):
    content = state(finished / "ckpt1.pth")
    del content["model"]["fc_norm.weight"]
    torch.save(content, tmp_path / "cut.pth")
    with pytest.raises(CheckpointError, match=r"cut\.pth: .* 1 missing \(first: fc_norm\.weight\)"):
        load_pretrained(new_model(settings_of(data)), tmp_path / "cut.pth")


def test_a_run_starts_from_a_classifier(data, finished, tmp_path):
    """With learning rates of 0, the run ends with the weights that it started from."""
    start = finished / "ckpt1.pth"
    run = finetune(data, tmp_path / "run", "--pretrained", str(start), "--opts", *STANDING)
    assert f"loaded {start}; new: nothing" in (run / "log.txt").read_text()
    assert same_weights(run / "last.pth", start)
    wide = ("--opts", "MODEL.HEAD_HIDDEN", "8", *STANDING)
    run = finetune(data, tmp_path / "wide", "--pretrained", str(start), *wide)
    assert "; new: head.0.weight, head.0.bias, head." in (run / "log.txt").read_text()


def test_a_checkpoint_of_ours_has_its_own_settings(data, finished, tmp_path, capsys):
    """Without --cfg the defaults describe ViT-B; the run's config.yaml is used, or named."""
    path, last = finished / "ckpt1.pth", state(finished / "last.pth")["metrics"]
    hint = rf"ckpt1\.pth: other architecture .*trained with: --cfg {finished}/config\.yaml$"
    with pytest.raises(CheckpointError, match=hint):
        load_classifier(path, settings_of(data, "MODEL.VIT.DEPTH", "1"), "cpu")
    capsys.readouterr()
    output = ["--output", str(tmp_path / "eval")]
    assert main_finetune.main(["--eval", *output, "--resume", str(path)]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed.pop("confusion") == last.pop("confusion") and printed == pytest.approx(last)
    assert main_finetune.main(["--eval", "--output", str(finished), "--overwrite"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed.pop("confusion") and printed == pytest.approx(last)

"""A detector without its text tower: smaller, with the same boxes."""

import numpy as np
import pytest
from conftest import detector_config
from seeded_weights import scene_frame

from human_anomaly.models.checkpoint import CheckpointError, read_checkpoint
from human_anomaly.models.detector import PartDetector
from human_anomaly.tools import export_vocabulary
from human_anomaly.utils import UsageError


def test_exporting_the_vocabulary_keeps_every_box(tmp_path, golden_weights, capsys):
    source = golden_weights("pipeline_scene.rgb.expected.json") / "detector.pth"
    target = tmp_path / "small.pth"
    assert export_vocabulary.main([str(source), str(target)]) == 0
    assert "MB" in capsys.readouterr().out
    names = list(read_checkpoint(target)["state_dict"])
    assert not any(name.startswith("backbone.text_model.") for name in names)
    assert source.stat().st_size - target.stat().st_size > 4 * 63e6
    config = detector_config("s")
    both = [PartDetector(config, path, score_thr=0.05) for path in (source, target)]
    for texts in ("people_texts", "part_texts"):
        a, b = (d.predictor([scene_frame(0)], getattr(d, texts))[0] for d in both)
        assert len(a.xyxy) > 0
        np.testing.assert_allclose(a.xyxy, b.xyxy, atol=1e-3)
        np.testing.assert_array_equal(a.labels, b.labels)


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        (["missing.pth", "out.pth"], CheckpointError, "missing.pth: no such weight file"),
        (["missing.pth", "nowhere/out.pth"], UsageError, "OUT: expected a file in a folder"),
        (["missing.pth", "."], UsageError, "OUT: expected a file in a folder"),
    ],
)
def test_export_refuses_in_one_line(tmp_path, monkeypatch, words, error, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=f"^{message}"):
        export_vocabulary.main(words)
    assert not list(tmp_path.iterdir())

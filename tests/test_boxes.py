"""One NMS for a batch gives the boxes that mmyolo finds image by image."""

import copy
import threading

import cv2
import numpy as np
import pytest
import torch

from human_anomaly.configs.defaults import get_config
from human_anomaly.data.video import VideoError
from human_anomaly.demo.paths import CONFIG, DETECTOR_CONFIG, VIDEOS, WEIGHTS
from human_anomaly.models.detector import PartDetector
from human_anomaly.models.on_device import place
from human_anomaly.models.scoring import scorer
from human_anomaly.models.yolo_world import predictor
from human_anomaly.models.yolo_world.boxes import find_boxes


@pytest.mark.parametrize(("score_thr", "at_least"), [(0.1, 1), (1e-6, 100), (1.0, 0)])
def test_boxes_of_a_batch_are_those_of_mmyolo(score_thr, at_least):
    reader = cv2.VideoCapture(str(VIDEOS / "normal_1.mp4"))
    frame = reader.read()[1]
    reader.release()
    images = [frame, frame[:300, 100:257], np.ascontiguousarray(frame[64:0:-1, :200])]
    files = DETECTOR_CONFIG, WEIGHTS / "detector.pth"
    options = predictor.Options(score_thr=score_thr, batch_size=3)
    finder = predictor.Predictor(*files, ("human", " "), options=options)
    prepared = [finder.letterbox(image) for image in images]
    batch, metas = finder.batch([x for x, _ in prepared]), [meta for _, meta in prepared]
    head = copy.copy(finder.model.bbox_head)
    head.num_classes = 2
    with torch.inference_mode():
        outs = finder.raw(batch, finder.embeddings[None])
        expected = head.predict_by_feat(*outs, batch_img_metas=metas, rescale=True)
        found = find_boxes(head, *outs, metas)
    assert len(found) == 3 and len(found[0]) >= at_least
    for one, other in zip(expected, found, strict=True):
        assert len(other) == len(one.bboxes)
        np.testing.assert_allclose(other[:, 4], one.scores.numpy(), atol=1e-6)
        # Boxes of one score may come in another order.
        rows = np.concatenate((one.bboxes, one.scores[:, None], one.labels[:, None]), 1)
        far = np.abs(other[:, None] - rows[None]).max(2)
        if len(rows):
            assert far.min(1).max() < 1e-3
            assert sorted(far.argmin(1)) == list(range(len(rows)))


@pytest.mark.parametrize("on_device", [False, True])
@pytest.mark.parametrize("spoilt", [0, 1])
def test_what_is_no_number_is_an_error_of_the_video(on_device, spoilt):
    """In scores, and in the boxes of scores above the threshold."""
    files = DETECTOR_CONFIG, WEIGHTS / "detector.pth"
    detector = PartDetector(*files, on_device=on_device)
    raw = detector.predictor.raw

    def broken(batch, texts):
        outs = raw(batch, texts)
        outs[0][0][:] = 5.0
        outs[spoilt][0][0, 0, 3, 3] = torch.nan
        return outs

    detector.predictor.raw = broken
    frames = [np.full((180, 320, 3), 90, np.uint8)]
    with pytest.raises(VideoError, match="the detector computes numbers that are not finite"):
        detector.detect(place(frames, torch.device("cpu")) if on_device else frames)


def test_compiled_networks_see_two_batch_sizes(monkeypatch):
    """Each size is compiled anew, which takes a minute; one alone computes much in vain."""
    monkeypatch.setattr(predictor, "_compiled", lambda function: lambda x, _: seen.append(len(x)))
    files = DETECTOR_CONFIG, WEIGHTS / "detector.pth", ["human"]
    for batch_size, expected in ((8, [2, 2, 8, 8]), (2, [1, 2])):
        seen = []
        options = predictor.Options(batch_size=batch_size, compile=True)
        compiled = predictor.Predictor(*files, options=options)
        for count in (1, 2, 3, 8)[: len(expected)]:
            batch = compiled.batch([np.full((320, 320, 3), i, np.uint8) for i in range(count)])
            compiled.raw(batch, compiled.embeddings[None])
            torch.testing.assert_close(batch[:count, 0, 0, 0] * 255, torch.arange(count).float())
        assert seen == expected
        seen.clear()
        compiled.compile_all(compiled.embeddings[None])
        assert seen == sorted(set(expected))


def test_one_thread_compiles_before_any_other_runs_the_network(monkeypatch):
    """Otherwise waiting threads compile again, or fail while torch traces in another one."""
    calls = []

    def compiled(function):
        def run(batch, texts):
            calls.append((threading.current_thread().name, len(batch), texts.shape[1]))
            return function(batch, texts)

        return run

    monkeypatch.setattr(predictor, "_compiled", compiled)
    options = {"batch_size": 4, "compile": True}
    detector = PartDetector(DETECTOR_CONFIG, WEIGHTS / "detector.pth", **options)
    finder = scorer.VideoScorer(detector, {}, get_config(CONFIG), batch_size=4, workers=2, stride=9)
    names, *pairs = zip(*calls, strict=True)
    assert list(zip(*pairs, strict=True)) == [(1, 2), (4, 2), (1, 3), (4, 3)]
    assert len(set(names)) == 1 and names[0].startswith("networks")
    finder.score(VIDEOS / "normal_1.mp4")
    assert len(calls) > 4 and {call[1:] for call in calls[4:]} <= {call[1:] for call in calls[:4]}


def test_the_compiler_is_told_and_not_the_host_program():
    import torch._inductor.config as inductor

    def double(x):
        return x * 2

    before = inductor.freezing
    predictor._compiled(double)
    assert inductor.freezing == before

"""Clips in memory in every format that programs hold them: the same frames, the same scores."""

import numpy as np
import pytest
import torch
from PIL import Image

from human_anomaly.data.clips import as_bytes, to_clips
from human_anomaly.hubconf import human_anatomy

CLIP = np.random.default_rng(0).integers(0, 256, (4, 24, 32, 3), np.uint8)
CLIP[0, :8].flat = np.arange(256)  # each value, at least once
FIRST = np.ascontiguousarray(CLIP.transpose(0, 3, 1, 2))
TENSOR = torch.from_numpy(CLIP)
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
FORMATS = {
    "uint8 THWC": CLIP,
    "uint8 TCHW": FIRST,
    "float16 THWC": (CLIP / 255).astype(np.float16),
    "float32 TCHW": (FIRST / 255).astype(np.float32),
    "float64 THWC": CLIP / 255,
    "not contiguous": np.repeat(CLIP, 2, 2)[:, :, ::2],
    "read only": np.frombuffer(CLIP.tobytes(), np.uint8).reshape(CLIP.shape),
    "images": [Image.fromarray(frame) for frame in CLIP],
    "images with alpha": [Image.fromarray(frame).convert("RGBA") for frame in CLIP],
}
for device in DEVICES:
    FORMATS |= {
        f"{device} uint8 THWC": TENSOR.to(device),
        f"{device} uint8 TCHW": TENSOR.permute(0, 3, 1, 2).to(device),
        f"{device} float16 TCHW": (TENSOR.permute(0, 3, 1, 2) / 255).half().to(device),
        f"{device} float32 THWC": (TENSOR / 255).to(device),
        f"{device} bfloat16 TCHW": (TENSOR.permute(0, 3, 1, 2) / 255).bfloat16().to(device),
        f"{device} with gradient": (TENSOR / 255).to(device).requires_grad_(),
    }


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_gives_the_same_frames(name):
    (clip,), alone = to_clips(FORMATS[name])
    assert alone and np.array_equal(as_bytes(clip), CLIP)


@pytest.mark.parametrize("name", [name for name in FORMATS if "images" not in name])
def test_batches_and_lists(name):
    clip = FORMATS[name]
    stack = torch.stack if isinstance(clip, torch.Tensor) else np.stack
    for batch in (stack([clip, clip]), [clip, clip], (clip, clip)):
        clips, alone = to_clips(batch)
        assert not alone and len(clips) == 2
        assert all(np.array_equal(as_bytes(one), CLIP) for one in clips)


def test_lists_of_images_and_no_clips():
    clips, alone = to_clips([FORMATS["images"], FORMATS["images"][:2]])
    assert not alone and [len(clip) for clip in clips] == [4, 2]
    assert to_clips([]) == ([], False)


def test_the_layout_decides_where_two_could_be_meant():
    odd = np.arange(2 * 3 * 5 * 3, dtype=np.uint8).reshape(2, 3, 5, 3)
    with pytest.raises(ValueError, match="say layout='THWC' or layout='TCHW'"):
        to_clips(odd)
    assert to_clips(odd, "THWC")[0][0].shape == (2, 3, 5, 3)
    (first,), _ = to_clips(odd, "TCHW")
    assert np.array_equal(first, odd.transpose(0, 2, 3, 1))
    with pytest.raises(ValueError, match="must be TCHW with 3 channels"):
        to_clips(CLIP, "TCHW")
    with pytest.raises(ValueError, match="layout: expected THWC or TCHW, got 'CTHW'"):
        to_clips(CLIP, "CTHW")


@pytest.mark.parametrize(
    ("clip", "words"),
    [
        (CLIP[0], r"shape \(T, H, W, 3\) or \(T, 3, H, W\), got \(24, 32, 3\); a picture is"),
        (CLIP[:0], r"got \(0, 24, 32, 3\)"),
        (CLIP[:, :, :0], r"got \(4, 24, 0, 3\)"),
        (CLIP[..., :1], r"RGB, got shape \(4, 24, 32, 1\)"),
        (FIRST.swapaxes(0, 1), r"from \(3, T, H, W\): clip.swapaxes\(0, 1\)"),
        (CLIP.astype(np.int64), r"uint8 or float in 0..1, got int64; for integers in 0..255"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.bool), "got bool"),
        ("a.mp4", "got str"),
        (["a.mp4"], "got str"),
        (None, "got NoneType"),
        ([Image.new("RGB", (8, 8)), Image.new("RGB", (9, 8))], "one size, got"),
        ([[]], "got list"),
    ],
)
def test_wrong_shapes_and_types_say_how_to_convert(clip, words):
    with pytest.raises(ValueError, match=words):
        to_clips(clip)


@pytest.mark.parametrize("make", [lambda x: x, torch.from_numpy])
@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (-1.0, 1.0, r"floats must lie in 0..1, got -1 to 1: \(clip \+ 1\) / 2"),
        (0.0, 255.0, r"got 0 to 255: .* clip / 255"),
        (0.0, float("nan"), "got nan to nan"),
        (0.0, float("inf"), "got 0 to inf"),
    ],
)
def test_floats_outside_of_the_range_say_how_to_convert(make, low, high, words):
    clip = np.full((2, 8, 8, 3), low, np.float32)
    clip[1, 2, 3, 0] = high
    (one,), _ = to_clips(make(clip))
    with pytest.raises(ValueError, match=words):
        as_bytes(one)


@pytest.mark.parametrize("fast", [False, True])
def test_scores_do_not_depend_on_the_format(clip_of_people, fast):
    scorer = human_anatomy("demo", "cpu", fast=fast)
    frames = clip_of_people("hand_fused", 2)
    first = torch.from_numpy(frames.copy()).permute(0, 3, 1, 2)
    expected = scorer.score_frames(frames)
    assert expected.summary["people"] > 0
    formats = [first, (first / 255).half(), (frames / 255).astype(np.float32)]
    formats.append([Image.fromarray(frame) for frame in frames])
    for clip in formats:
        found = scorer.score_frames(clip)
        assert found.frames == expected.frames and found.summary == expected.summary
    several = scorer.score_frames(torch.stack([first, first]))
    assert [one.summary for one in several] == [expected.summary] * 2

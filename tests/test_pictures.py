"""Pictures of any depth and kind: what is scored and what is trained on agree."""

import io

import numpy as np
import pytest
from PIL import Image
from test_sources import animate

from human_anomaly.data.dataset import read_image
from human_anomaly.data.sources import Source, find_sources
from human_anomaly.data.video import FrameReader, VideoError, count_frames
from human_anomaly.utils import UsageError

RAMP = np.add.outer(np.arange(40), np.arange(50)).astype(np.uint16) * 700  # 0..61,600
RGB = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)


def scored(path) -> np.ndarray:
    (frame,) = FrameReader(Source(path, "a", (path,)))
    return frame.image


# What a file holds, and the RGB that is read in it.
KINDS = {
    "grey.png": (Image.fromarray(RGB[..., 0]), np.repeat(RGB[..., :1], 3, 2)),
    "grey16.png": (Image.fromarray(RAMP), np.repeat((RAMP >> 8)[..., None], 3, 2)),
    "grey16.tiff": (Image.fromarray(RAMP), np.repeat((RAMP >> 8)[..., None], 3, 2)),
    "alpha.png": (Image.fromarray(np.dstack([RGB, RGB[..., 0]])), RGB),
    "grey_alpha.png": (
        Image.fromarray(np.dstack([RGB[..., 0], RGB[..., 1]]), "LA"),
        np.repeat(RGB[..., :1], 3, 2),
    ),
    "rgb.bmp": (Image.fromarray(RGB), RGB),
    "palette.png": (
        Image.fromarray(RGB).quantize(16),
        np.asarray(Image.fromarray(RGB).quantize(16).convert("RGB")),
    ),
    "bits.png": (Image.fromarray(RGB[..., 0] > 99), None),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", KINDS)
def test_scoring_and_training_read_the_same(tmp_path, name):
    image, rgb = KINDS[name]
    image.save(tmp_path / name)
    trained = np.asarray(read_image(tmp_path / name, "list:1"))
    assert trained.dtype == np.uint8
    assert np.array_equal(scored(tmp_path / name)[:, :, ::-1], trained)
    if rgb is not None:
        assert np.array_equal(trained, rgb)


def test_sixteen_bit_colour_keeps_its_upper_bits(tmp_path):
    import cv2

    deep = (RGB.astype(np.uint16) << 8) + 77
    for name in ("a.png", "a.tiff"):
        cv2.imwrite(str(tmp_path / name), deep)
        assert np.array_equal(scored(tmp_path / name), RGB)


@pytest.mark.parametrize("mode", ["F", "I"])
def test_what_has_no_known_white_is_one_line(tmp_path, mode):
    Image.fromarray(RAMP.astype({"F": np.float32, "I": np.int32}[mode])).save(tmp_path / "a.tiff")
    with pytest.raises(
        UsageError, match=r"^list:1: cannot read image .*a\.tiff: 32 bits a pixel, expected 8 or 16"
    ):
        read_image(tmp_path / "a.tiff", "list:1")
    with pytest.raises(VideoError, match=r"a\.tiff: 32 bits a pixel"):
        scored(tmp_path / "a.tiff")


def test_scored_pictures_come_upright_and_crops_as_they_are_stored(tmp_path):
    exif = Image.Exif()
    exif[274] = 6  # a phone held upright
    Image.fromarray(RGB).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(scored(tmp_path / "a.png")[:, :, ::-1], np.rot90(RGB, -1))
    assert np.array_equal(np.asarray(read_image(tmp_path / "a.png", "list:1")), RGB)


def test_pictures_of_a_folder_and_their_troubles(tmp_path):
    Image.fromarray(RGB[..., 0]).save(tmp_path / "0.png")
    Image.fromarray(np.full((41, 51, 4), 200, np.uint8)).save(tmp_path / "1.png")
    (tmp_path / "2.png").write_bytes(b"broken")
    Image.fromarray(RGB[:9, :9]).save(tmp_path / "3.png")
    whole = io.BytesIO()
    Image.fromarray(RGB).save(whole, "PNG")
    (tmp_path / "4.png").write_bytes(whole.getvalue()[:1500])
    (source,) = find_sources([tmp_path]).sources
    reader = FrameReader(source, fps=5)
    frames = list(reader)
    assert [f.image.shape for f in frames] == [(40, 50, 3), (41, 51, 3), (9, 9, 3)]
    assert [(f.index, f.time) for f in frames] == [(0, 0.0), (1, 0.2), (3, 0.6)]
    assert [warning[:6] for warning in reader.warnings] == ["2.png:", "4.png:", "1 fram"]
    assert [f.index for f in FrameReader(source, stride=2)] == [0]


@pytest.mark.parametrize("name", ["a.webp", "a.png", "a.apng"])
def test_animated_pictures_are_videos_with_their_times(tmp_path, name):
    options = {"lossless": True} if name == "a.webp" else {"format": "PNG"}
    path = animate(tmp_path / name, 4, duration=[100, 300, 50, 70], **options)
    (source,) = find_sources([path]).sources
    assert count_frames(source) == 4
    frames = list(FrameReader(source))
    assert [round(frame.time, 3) for frame in frames] == [0, 0.1, 0.4, 0.45]
    assert [int(frame.image.mean()) for frame in frames] == [10, 30, 50, 70]
    reader = FrameReader(source, stride=3)
    assert reader.frames_expected == 2
    assert [(f.index, int(f.image.mean())) for f in reader] == [(0, 10), (3, 70)]


def test_pages_of_a_tiff_are_frames(tmp_path):
    (source,) = find_sources([animate(tmp_path / "a.tif", 3)]).sources
    frames = list(FrameReader(source, fps=10))
    assert [(f.index, f.time, int(f.image.mean())) for f in frames] == [
        (0, 0.0, 10),
        (1, 0.1, 30),
        (2, 0.2, 50),
    ]


def test_a_portrait_with_a_second_picture_is_one_picture(tmp_path):
    """Phones store a depth map or a small copy behind a JPEG (MPO)."""
    animate(tmp_path / "a.jpg", 2, format="MPO")
    (frame,) = FrameReader(Source(tmp_path / "a.jpg", "a", (tmp_path / "a.jpg",)))
    assert frame.image.shape == (40, 40, 3)

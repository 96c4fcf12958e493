"""Small videos of every kind, encoded by PyAV."""

from collections.abc import Iterable, Sequence
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
import cv2
import numpy as np

from human_anomaly.data.sources import Source


def grey_steps(count: int, size: tuple[int, int] = (64, 48)) -> list[np.ndarray]:
    """Return frames of `size` (width, height) and brightness 0, 30, 60 .."""
    return [np.full((*size[::-1], 3), 30 * i % 256, np.uint8) for i in range(count)]


def encode(
    path: Path,
    images: Iterable[np.ndarray],
    codec: str = "mpeg4",
    pix_fmt: str = "yuv420p",
    times: Sequence[float] | None = None,
    sound: float = 0.0,
    delay: float = 0.0,
    **options: str,
) -> Path:
    """Write BGR images at 10 a second, or at `times`, with `sound` seconds of silence.

    The picture begins after `delay` seconds. `options` are the codec's.
    """
    images = iter(images)
    first = next(images)
    flags = {"movflags": "faststart"} if path.suffix == ".mp4" else {}
    with av.open(str(path), "w", options=flags) as container:
        picture = container.add_stream(codec, rate=10, options=options)
        picture.height, picture.width = first.shape[:2]
        picture.pix_fmt, picture.codec_context.time_base = pix_fmt, Fraction(1, 1000)
        if path.suffix == ".avi":
            picture.codec_context.time_base = Fraction(1, 10)
        if sound:
            _silence(container, sound)
        for number, image in enumerate(chain([first], images)):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="bgr24")
            seconds = delay + (times[number] if times else number / 10)
            frame.time_base = picture.codec_context.time_base
            frame.pts = round(seconds / frame.time_base)
            container.mux(picture.encode(frame))
        container.mux(picture.encode(None))
    return path


def _silence(container, seconds: float) -> None:
    stream = container.add_stream("mp2" if container.format.name == "avi" else "aac", rate=48000)
    for start in range(0, int(seconds * 48000), 1152):
        quiet = np.zeros((1, 1152), np.int16)
        frame = av.AudioFrame.from_ndarray(quiet, format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 48000, start, Fraction(1, 48000)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def raw(path: Path, frame: av.VideoFrame) -> Path:
    """Write one frame without compression, in its own pixel format."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("rawvideo", rate=10)
        stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, frame.format.name
        container.mux([*stream.encode(frame), *stream.encode(None)])
    return path


def write_video(path: Path, frames: int = 6, size=(64, 48), fourcc="mp4v", fps=10.0) -> Path:
    """Write `frames` grey frames of brightness 0, 30, 60 ..., size (width, height)."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*fourcc), fps, size)
    assert writer.isOpened()
    for i in range(frames):
        writer.write(np.full((size[1], size[0], 3), 30 * i % 256, np.uint8))
    writer.release()
    return path


def source_of(path: Path) -> Source:
    """Return a video file as a source."""
    return Source(path, path.stem)

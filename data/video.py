"""Decodes a video, or pictures as a video, into one stream of frames.

The pixels are those of OpenCV up to 4.12, with which the released weights were made and measured.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from human_anomaly.data.pictures import MAX_PIXELS, PictureError, count_pictures, read_pictures
from human_anomaly.data.sources import Source

MIN_SIDE = 32  # pixels; in smaller frames a detector finds nothing
LEAST_FRAME = 8  # bytes that a frame takes in a file, at least
DECODER_THREADS = 2
MOST_FAILURES = 10  # of reading, one after the other, before a file is given up
# The only formats that are opened: others are texts that name further files, devices, or no videos.
# FFmpeg knows a format by the content, whatever the file is called.
FORMATS = (
    "mov matroska avi mpegts mpeg mpegvideo m4v asf asf_o flv live_flv ogg gif mjpeg mjpeg_2000 "
    "yuv4mpegpipe h261 h263 h264 hevc vvc av1 obu ivf mxf nut rm dv vc1 cavsvideo dnxhd dirac swf "
    "wtv nsv nuv roq gxf bink smk flic film_cpk psxstr png_pipe jpeg_pipe webp_pipe bmp_pipe "
    "tiff_pipe"
)
WITH_INDEX = ("mov", "avi")  # formats that list all packets
# PyAV 17 and newer would start a thread per core.
ONE_THREAD = {"threads": 1} if int(av.__version__.split(".")[0]) >= 17 else {}


class VideoError(Exception):
    """An input that cannot be scored or cropped; the message says why."""


@dataclass(frozen=True)
class Frame:
    """Frame `index` of the source, `time` seconds after the first, as (H, W, 3) uint8 BGR."""

    index: int
    time: float
    image: np.ndarray


def count_frames(source: Source) -> int:
    """Return how many frames the source seems to have, at least 1."""
    try:
        return FrameReader(source).frames_expected or 1
    except VideoError:
        return 1


class ToBGR:
    """Makes BGR arrays of decoded frames; `colours` is the setting VIDEO.COLOURS."""

    def __init__(self, colours: str = "original"):
        self.tagged = colours == "tagged"
        self._convert = VideoReformatter()
        self._bare: av.VideoFrame | None = None

    def __call__(self, frame: av.VideoFrame) -> np.ndarray:
        """Return the frame upright as (H, W, 3) uint8; raises FFmpegError if FFmpeg cannot."""
        bare = self._without_tags(frame)
        matrix = int(frame.colorspace) if self.tagged else "ITU601"
        limits = {"src_color_range": int(frame.color_range)} if self.tagged else {}
        shown = self._convert.reformat(
            bare,
            format="bgr24",
            interpolation="BICUBIC",
            src_colorspace=matrix,
            dst_colorspace="ITU601",
            **limits,
            **ONE_THREAD,
        )
        image = shown.to_ndarray()
        if frame.rotation and frame.rotation % 90 == 0:
            image = np.rot90(image, frame.rotation // 90)
        return image.copy() if shown is bare else np.ascontiguousarray(image)

    def _without_tags(self, frame: av.VideoFrame) -> av.VideoFrame:
        """Return the same pixels in a frame without tags.

        With an interlace flag or side data, swscale would convert them differently.
        """
        if any(plane.line_size < 0 for plane in frame.planes):  # upside down: raw RGB, mostly
            return frame
        bare, kind = self._bare, (frame.width, frame.height, frame.format.name)
        if bare is None or (bare.width, bare.height, bare.format.name) != kind:
            bare = self._bare = av.VideoFrame(*kind)
        for source, target in zip(frame.planes, bare.planes, strict=True):
            rows = source.height
            old = np.frombuffer(source, np.uint8).reshape(rows, -1)
            new = np.frombuffer(target, np.uint8).reshape(rows, -1)
            wide = min(old.shape[1], new.shape[1])
            new[:, :wide] = old[:, :wide]
        return bare


class FrameReader:
    """Streams every `stride`-th frame of a source: iterate once; memory does not grow with length.

    `fps` is the rate of pictures and videos that state none. `frames_expected` is how many frames
    the file promises, after `stride` (None: unknown); once all is read, how many an undamaged file
    would have given. Rotated phone videos come upright, grey and transparent ones as BGR. Raises
    VideoError for a source that cannot be opened or gives no frame; smaller problems are in
    `warnings`.
    """

    def __init__(
        self,
        source: Source,
        *,
        stride: int = 1,
        fps: float = 25.0,
        colours: str = "original",
    ):
        self.source, self.stride, self.fps, self.colours = source, stride, fps, colours
        self.warnings: list[str] = []
        self._damaged = self._read = self._indexed = 0  # packets
        self._end = 0.0  # of what was read, in seconds
        if source.images:
            one = len(source.images) == 1
            count = count_pictures(source.images[0]) if one else len(source.images)
        else:
            self._container, self._stream = _open(source.path)
            rate = float(self._stream.average_rate or self._stream.guessed_rate or 0)
            self.fps = rate if 0 < rate < 1000 else fps
            self._declared_end = _declared_end(self._container, self._stream)
            if self._container.format.name.startswith(WITH_INDEX):
                self._indexed = len(getattr(self._stream, "index_entries", ()))  # from PyAV 17 on
            count = self._declared()
        self.frames_expected = -(-count // stride) if count > 0 else None

    def _declared(self) -> int:
        """Return how many frames the file declares, or seems to hold by its length; 0: unknown."""
        start = float((self._stream.start_time or 0) * self._stream.time_base)
        seconds = self._declared_end - start if self._declared_end else None
        by_length = round(seconds * self.fps) if seconds else 0
        count, most = self._stream.frames, self.source.path.stat().st_size // LEAST_FRAME
        if count > most:
            self.warnings.append(f"it declares {count} frames, which its size cannot hold")
            return 0
        # A cut without re-encoding leaves frames in the file that are not to be shown.
        return min(count or by_length, by_length or count, most)

    def __iter__(self) -> Iterator[Frame]:
        given, small = 0, 0
        frames = self._pictures() if self.source.images else self._video_frames()
        for frame in frames:
            given += 1
            small += min(frame.image.shape[:2]) < MIN_SIDE
            yield frame
        if not given:
            raise VideoError("; ".join(["no frame could be decoded", *self.warnings]))
        if small:
            self.warnings.append(f"{small} frames are smaller than {MIN_SIDE} px")
        if not self.source.images:
            self._note_losses(given)

    def _note_losses(self, given: int) -> None:
        """Warn of damage, of packets that are not where the file says, and of an early end."""
        if self._damaged:
            self.warnings.append(f"{self._damaged} damaged packets; their frames are left out")
        is_mov = self._container.format.name.startswith("mov")
        slack = (2 if is_mov else 0.9) / self.fps  # a cut of mov may end within a frame
        why = ""
        if self._declared_end and self._end < self._declared_end - slack:
            why = f"its picture ends at {self._end:.2f} s, not at {self._declared_end:.2f} s"
        elif self._read < self._indexed:
            why = f"{self._indexed - self._read} packets are missing"
        if why:
            of = f" of {self.frames_expected}" if (self.frames_expected or 0) > given else ""
            said = f"{given}{of} frames could be decoded; the file may be truncated: {why}"
            self.warnings.append(said)
        else:
            self.frames_expected = given + -(-self._damaged // self.stride)

    def _video_frames(self) -> Iterator[Frame]:
        to_bgr, base = ToBGR(self.colours), self._stream.time_base
        first, last = None, -1 / self.fps
        try:
            for index, frame in enumerate(self._decoded()):
                seconds = None if frame.pts is None else float(frame.pts * base)
                first = seconds if first is None else first
                # Raw streams tell no times, and damaged ones tell odd ones.
                known = seconds is not None and seconds - first > last
                last = seconds - first if known else last + 1 / self.fps
                if index % self.stride == 0:
                    yield Frame(index, last, to_bgr(frame))
        except MemoryError as error:
            raise VideoError("too little memory for its frames") from error
        except av.error.FFmpegError as error:  # of `to_bgr`; others are counted where they occur
            raise VideoError(f"cannot convert its pixel format ({error.strerror})") from error
        finally:
            self._container.close()

    def _decoded(self) -> Iterator[av.VideoFrame]:
        """Yield the frames; a damaged packet costs its own, and is counted."""
        for packet in self._packets():
            try:
                frames = self._stream.codec_context.decode(packet)
            except av.error.FFmpegError:
                self._damaged += 1
                continue
            yield from frames

    def _packets(self) -> Iterator[av.Packet | None]:
        """Yield the packets, then None, for which the decoder returns the frames it holds back."""
        failures, held = 0, None
        while failures < MOST_FAILURES:
            try:
                for packet in self._container.demux(self._stream):
                    if not packet.size:  # a repeated frame, which a decoder takes for the end
                        continue
                    failures = 0
                    if held is not None:
                        yield held
                    held = packet
                    self._note_end(packet)
                break
            except av.error.FFmpegError:
                failures += 1
        self._damaged += failures
        if held is not None and held.is_corrupt:  # cut off: its error would cost frames before it
            self._damaged += 1
        elif held is not None:
            yield held
        yield None

    def _note_end(self, packet: av.Packet) -> None:
        self._read += 1
        shown = packet.dts if packet.pts is None else packet.pts
        if shown is not None:
            end = float(shown * self._stream.time_base)
            lasts = float(packet.duration * self._stream.time_base) if packet.duration else 0
            self._end = max(self._end, end + (lasts or 1 / self.fps))

    def _pictures(self) -> Iterator[Frame]:
        """Yield a file's pictures at their own times, or a folder's pictures evenly spaced."""
        pages = self.frames_expected * self.stride if len(self.source.images) == 1 else 1
        index, time = 0, 0.0
        for path in self.source.images:
            number, index = index, index + 1
            if pages == 1 and number % self.stride:
                continue
            try:
                for image, seconds in read_pictures(path, pages):
                    if number % self.stride == 0:
                        yield Frame(number, number / self.fps if pages == 1 else time, image)
                    number, time = number + 1, time + (seconds or 1 / self.fps)
            except PictureError as error:
                self.warnings.append(f"{path.name}: {error}; skipped")


def _open(path: Path) -> tuple[av.container.InputContainer, av.VideoStream]:
    """Return an open video and its first stream that is no cover picture; raises VideoError."""
    if not path.is_file():
        raise VideoError("not a file" if path.exists() else "no such file")
    try:
        with path.open("rb") as file:
            if not file.read(1):
                raise VideoError("the file is empty (0 bytes)")
        # PyAV before 18 crashes where `options` meets a format without a header.
        allowed = {"format_whitelist": FORMATS.replace(" ", ","), "protocol_whitelist": "file"}
        file = str(path.absolute())
        container = av.open(file, container_options=allowed, metadata_errors="replace")
    except av.error.FFmpegError as error:
        raise VideoError(f"not a video that FFmpeg can open ({error.strerror})") from error
    except OSError as error:
        raise VideoError(f"cannot read: {error.strerror}") from error
    streams = [s for s in container.streams.video if s.codec_context is not None]
    cover = av.stream.Disposition.attached_pic
    stream = next((s for s in streams if not s.disposition & cover), None)
    if stream is None:
        raise VideoError("not a video that FFmpeg can open (no video stream found)")
    if stream.width * stream.height > MAX_PIXELS:
        size = f"{stream.width} x {stream.height}"
        raise VideoError(f"{size} pixels, expected at most {MAX_PIXELS:,}")
    stream.thread_type, stream.codec_context.thread_count = "AUTO", DECODER_THREADS
    stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}  # later frames may be larger
    return container, stream


def _declared_end(container: av.container.InputContainer, stream: av.VideoStream) -> float | None:
    """Return at which second the picture ends, by what the file says, or None."""
    if container.format.name == "avi" and stream.frames and stream.average_rate:
        return float(stream.frames / stream.average_rate)  # its duration is guessed from the size
    if clock := stream.metadata.get("DURATION"):  # Matroska and WebM: 00:00:01.125000000
        try:
            hours, minutes, seconds = map(float, clock.split(":"))
            return 3600 * hours + 60 * minutes + seconds
        except ValueError:
            return None
    if stream.duration:
        return float(((stream.start_time or 0) + stream.duration) * stream.time_base)
    alone = len(container.streams) == 1
    return container.duration / av.time_base if alone and container.duration else None

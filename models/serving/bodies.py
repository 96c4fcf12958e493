"""Turns a request's body into tasks, and refuses a large one before memory is allocated."""

import asyncio
import base64
import io
import json
import math
import shutil
from pathlib import Path
from tokenize import TokenError

import numpy as np
from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from PIL import Image
from starlette.datastructures import UploadFile

from human_anomaly.data.clips import to_clips
from human_anomaly.models.serving.line import Limits, Refused, Task
from human_anomaly.utils import message_of, plain

MOST_CLIPS = 64  # in a request
# The errors of reading a client's bytes; the last two come from odd headers of .npy files.
BAD = (ValueError, TypeError, EOFError, RecursionError, MemoryError, SyntaxError, TokenError)
NPY = b"\x93NUMPY"
HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


async def read_tasks(request: Request, folder: Path, limits: Limits) -> list[Task]:
    """Return what a request wants scored; its files lie in `folder`. Raises Refused."""
    if request.headers.get("content-encoding", "identity") != "identity":
        raise Refused(415, "send the body without Content-Encoding")
    if int(request.headers.get("content-length") or 0) > limits.body:
        raise Refused(413, f"the body is larger than {limits.body:,} bytes")
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    body = _Counted(request, limits)
    if kind == "application/json":
        return await run_in_threadpool(_decode_json, await body.request.body(), limits)
    if kind == "multipart/form-data":
        named = await _save_form(body, folder)
    else:
        named = [("clip", folder / "0")]
        with named[0][1].open("wb") as file:
            async for chunk in body.request.stream():
                file.write(chunk)
    layout = request.query_params.get("layout")
    tasks = []
    for name, path in named:
        tasks += await run_in_threadpool(_file_tasks, name, path, layout, limits)
    if len(tasks) > MOST_CLIPS:
        raise Refused(413, f"{len(tasks)} clips, expected at most {MOST_CLIPS} in a request")
    return tasks


class _Counted:
    """Reads a request's body, refuses one that is too large or too slow, keeps its last bytes."""

    def __init__(self, request: Request, limits: Limits):
        self.limits, self.size, self.tail, self._receive = limits, 0, b"", request.receive
        self.end = asyncio.get_running_loop().time() + limits.body_seconds
        self.request = Request(request.scope, self._next)

    async def _next(self) -> dict:
        left = self.end - asyncio.get_running_loop().time()
        try:
            message = await asyncio.wait_for(self._receive(), left)
        except TimeoutError as error:
            reason = f"the body took more than {self.limits.body_seconds:g} s"
            raise Refused(408, reason) from error
        if message["type"] == "http.disconnect":
            raise Refused(499, "the client left")
        body = message.get("body", b"")
        self.size, self.tail = self.size + len(body), (self.tail + body)[-256:]
        if self.size > self.limits.body:
            raise Refused(413, f"the body is larger than {self.limits.body:,} bytes")
        return message


async def _save_form(body: _Counted, folder: Path) -> list[tuple[str, Path]]:
    """Save a form's files under numbers; return (name, path) of each."""
    async with body.request.form(max_files=MOST_CLIPS, max_fields=MOST_CLIPS) as form:
        boundary = body.request.headers["content-type"].partition("boundary=")[2].split(";")[0]
        if ("--" + boundary.strip(' "') + "--").encode() not in body.tail:
            raise Refused(400, "the form is cut off: its last boundary is missing")
        uploads = [part for _, part in form.multi_items() if isinstance(part, UploadFile)]
        named = [
            (plain(u.filename or "video")[:200], folder / str(i)) for i, u in enumerate(uploads)
        ]
        for upload, (_, path) in zip(uploads, named, strict=True):
            with path.open("wb") as file:
                await run_in_threadpool(shutil.copyfileobj, upload.file, file)
    if not named:
        raise Refused(400, "the form holds no file")
    return named


def _file_tasks(name: str, path: Path, layout: str | None, limits: Limits) -> list[Task]:
    """Return a task for a video, or for each clip of a .npy file, told by its first bytes."""
    with path.open("rb") as file:
        start = file.read(len(NPY))
    if not start:
        raise Refused(400, f"{name}: empty; send a video, a .npy file or JSON")
    if start != NPY:
        return [Task(name, path)]
    try:
        _check_npy(path, limits)
        clips, _ = to_clips(np.load(path, mmap_mode="r", allow_pickle=False), layout)
        return [_clip_task(name, clip, limits) for clip in clips[: MOST_CLIPS + 1]]
    except BAD as error:
        return [Task(name).fail(f"{name}: {message_of(error)[:300]}")]


def _check_npy(path: Path, limits: Limits) -> None:
    """Raise ValueError unless a .npy file holds what it declares, and plain numbers."""
    with path.open("rb") as file:
        read = HEADERS.get(np.lib.format.read_magic(file))
        if read is None:
            raise ValueError("expected version 1.0 or 2.0 of the .npy format")
        shape, _, dtype = read(file, max_header_size=4096)
        if dtype.kind not in "uf":
            raise ValueError(f"clip must be uint8 or float in 0..1, got {dtype}")
        declared, found = math.prod(shape) * dtype.itemsize, path.stat().st_size - file.tell()
    if declared != found:
        raise ValueError(f"{declared:,} bytes declared, {found:,} bytes came")


def _clip_task(name: str, clip: np.ndarray, limits: Limits) -> Task:
    frames, height, width, _ = clip.shape
    if frames > limits.frames:
        raise ValueError(f"{frames:,} frames, expected at most {limits.frames:,}")
    if height * width > limits.pixels:
        pixels = f"{height * width:,} pixels a frame"
        raise ValueError(f"{pixels}, expected at most {limits.pixels:,}")
    return Task(name, clip=clip)


def _decode_json(body: bytes, limits: Limits) -> list[Task]:
    """Return the clips of Flow-Factory's JSON: "video" is a list of lists of base64 pictures."""
    try:
        content = json.loads(body)
        videos = content.get("video") or content.get("videos")
        videos = videos or [[i] for i in content.get("image") or content.get("images") or ()]
        if not videos or len(videos) > MOST_CLIPS or not all(isinstance(v, list) for v in videos):
            raise ValueError(f'expected 1 to {MOST_CLIPS} lists of base64 pictures as "video"')
        left, tasks = limits.body, []
        for number, video in enumerate(videos):
            images = [_picture(text) for text in video[: limits.frames + 1]]
            left -= 3 * sum(math.prod(image.size) for image in images)
            if left < 0:
                raise Refused(413, f"the pictures take more than {limits.body:,} bytes")
            (clip,), _ = to_clips([images])
            tasks.append(_clip_task(f"video {number}", clip, limits))
    except (OSError, SyntaxError, *BAD, AttributeError, Image.DecompressionBombError) as error:
        raise Refused(422, f"JSON: {message_of(error)[:300]}") from error
    return tasks


def _picture(text: str) -> Image.Image:
    """Return a picture whose pixels are not decoded yet."""
    file = io.BytesIO(base64.b64decode(text, validate=True))
    return Image.open(file, formats=("PNG", "JPEG", "WEBP"))

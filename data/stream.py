"""Streams of items: made ahead by a thread, in batches, or mapped by threads in order."""

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from typing import TypeVar

import numpy as np
from torch import Tensor

from human_anomaly.data.clips import frames_of
from human_anomaly.data.video import Frame

MOST_BYTES = 2**28  # of frames that wait: two of 8K, but 43 of 1080p

T, R = TypeVar("T"), TypeVar("R")


def prefetch(items: Iterable[T], depth: int, most_bytes: int = MOST_BYTES) -> Iterator[T]:
    """Yield `items`, which a thread makes up to `depth` ahead; their errors are raised here.

    While the waiting frames hold `most_bytes` or more, no other is added.
    """
    waiting: queue.Queue = queue.Queue(max(1, depth))
    stop, end = threading.Event(), object()

    def put(value) -> bool:
        size = getattr(getattr(value[0], "image", None), "nbytes", 0)
        while not stop.is_set():
            if waiting.qsize() * size >= most_bytes:
                stop.wait(0.01)
                continue
            try:
                waiting.put(value, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def fill() -> None:
        try:
            for item in items:
                if not put((item, None)):
                    break
            put((end, None))
        except BaseException as error:  # handed to the consumer, which raises it
            put((end, error))
        finally:
            if hasattr(items, "close"):
                items.close()

    thread = threading.Thread(target=fill, daemon=True)
    thread.start()
    try:
        while True:
            item, error = waiting.get()
            if error is not None:
                raise error
            if item is end:
                return
            yield item
    finally:
        stop.set()
        thread.join()


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield lists of `size` items, the last one shorter."""
    batch: list[T] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def map_ahead(
    pool: Executor, function: Callable[[T], R], items: Iterable[T], depth: int
) -> Iterator[tuple[T, R]]:
    """Yield (item, function(item)) in order; `depth` further items are being computed meanwhile."""
    waiting: deque = deque()
    for item in items:
        waiting.append((item, pool.submit(function, item)))
        if len(waiting) > depth:
            item, future = waiting.popleft()
            yield item, future.result()
    for item, future in waiting:
        yield item, future.result()


def clip_frames(clip: np.ndarray | Tensor, fps: float, as_tensors: bool) -> Iterator[Frame]:
    """Return the frames, BGR, of a clip of `to_clips`.

    With `as_tensors` a tensor's frames stay tensors, on its device. Raises ValueError for floats
    outside 0..1.
    """

    def bgr(image: np.ndarray | Tensor) -> np.ndarray | Tensor:
        if isinstance(image, Tensor) and as_tensors:
            return image.flip(2)
        image = image.cpu().numpy() if isinstance(image, Tensor) else image
        return np.ascontiguousarray(image[:, :, ::-1])

    return (Frame(index, index / fps, bgr(image)) for index, image in enumerate(frames_of(clip)))


def keep_to_one_core() -> None:
    """Have torch compute on one core in the calling thread, and only there.

    With another number of threads, convolutions add up in another order, which changes the last
    bits of a result and, rarely, a square.
    """
    import torch

    torch.set_num_threads(1)

"""Streams of work: made ahead, bounded, in order."""

import threading
import time

import numpy as np
import pytest

from human_anomaly.data.stream import batched, prefetch
from human_anomaly.data.video import Frame


def test_prefetch_is_bounded_and_passes_errors_on():
    made = []

    def items():
        for i in range(100):
            made.append(i)
            yield i
        raise OSError("late")

    stream = prefetch(items(), 3)
    assert next(stream) == 0
    assert len(made) <= 6
    with pytest.raises(OSError, match="late"):
        list(stream)
    before = threading.active_count()
    stream = prefetch(items(), 2)
    next(stream)
    stream.close()  # the thread ends with its consumer
    assert threading.active_count() == before


def test_prefetch_bounds_the_memory_of_large_frames():
    made = []

    def frames():
        for i in range(20):
            made.append(i)
            yield Frame(i, 0.0, np.zeros((10, 100, 1), np.uint8))

    stream = prefetch(frames(), 10, most_bytes=3000)
    assert [next(stream).index for _ in range(3)] == [0, 1, 2]
    time.sleep(0.2)
    assert len(made) == 3 + 3 + 1  # given, waiting, and one that waits to be put there
    assert [frame.index for frame in stream] == list(range(3, 20))
    assert len(list(prefetch(frames(), 10, most_bytes=1))) == 20


def test_batched():
    assert list(batched(range(5), 2)) == [[0, 1], [2, 3], [4]]
    assert list(batched([], 2)) == []

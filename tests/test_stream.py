"""Streams of work: made ahead, bounded, in order."""

import threading

import pytest

from human_anomaly.data.stream import batched, prefetch


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


def test_batched():
    assert list(batched(range(5), 2)) == [[0, 1], [2, 3], [4]]
    assert list(batched([], 2)) == []

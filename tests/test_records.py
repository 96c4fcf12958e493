"""Records of an item that is not finished, shared by processes and kept for a later run."""

from itertools import pairwise

import pytest

from data.jobs import JobFolder
from data.records import Span, spans
from data.video import Source


@pytest.fixture
def source(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"one")
    return Source(tmp_path / "a.mp4", "a")


@pytest.mark.parametrize("count", [0, 1, 7, 64, 65, 1000])
@pytest.mark.parametrize("pieces", [1, 2, 4, 64])
def test_spans_follow_each_other_and_the_last_is_open(count, pieces):
    found = spans(count, pieces, 8)
    assert 1 <= len(found) <= pieces
    assert found[0].start == 0 and found[-1].stop is None
    assert all(a.stop == b.start for a, b in pairwise(found))
    assert all(s.stop - s.start >= 8 for s in found[:-1])
    assert len(found) == 1 or count - found[-1].start >= 8


def test_records_of_a_run_that_was_cut_off_are_given_back(tmp_path, source):
    with JobFolder(tmp_path / "out", {}).records(source, batch_size=2).adding() as records:
        records.add(0, {"rows": [1]})
        records.add(1, {"rows": [2, 0.1]})
    folder = tmp_path / "out" / ".state" / "part.a"
    with next(folder.iterdir()).open("a") as file:
        file.write('{"number": 2, "rec')  # killed while it was written
    jobs = JobFolder(tmp_path / "out", {})
    with jobs.records(source, batch_size=2).adding() as records:
        assert records.known == {0: {"rows": [1]}, 1: {"rows": [2, 0.1]}}
        records.add(2, {"rows": [3]})
    assert sorted(jobs.records(source, batch_size=2).known) == [0, 1, 2]
    assert jobs.records(source, batch_size=4).known == {}
    jobs.finish(source, {})
    assert not folder.exists()


def test_a_span_is_covered_when_all_of_it_is_known(tmp_path, source):
    jobs = JobFolder(tmp_path / "out", {})
    with jobs.records(source).adding() as one, jobs.records(source).adding() as other:
        one.add(0, {})
        other.add(2, {})
    records = jobs.records(source)
    assert records.covers(Span(0, 1)) and records.covers(Span(2, 3))
    assert not records.covers(Span(0, 3)) and not records.covers(Span(2))
    with records.adding():
        records.add(1, {})
        records.end(3)
    records = jobs.records(source)
    assert records.covers(Span()) and records.covers(Span(2)) and records.covers(Span(2, 9))


def test_records_of_a_changed_file_or_forgotten_ones_do_not_count(tmp_path, source):
    jobs = JobFolder(tmp_path / "out", {})
    with jobs.records(source).adding() as records:
        records.add(0, {})
    source.path.write_bytes(b"another")
    assert jobs.records(source).known == {}
    with jobs.records(source).adding() as records:
        records.add(0, {})
    jobs.forget(source, records=False)
    assert list(jobs.records(source).known) == [0]
    jobs.forget(source)
    assert jobs.records(source).known == {}

"""Records of an item that is not finished, shared by processes and kept for a later run."""

from itertools import pairwise

import pytest

from data.jobs import JobFolder
from data.video import Source
from models.sharing import BATCHES_PER_PIECE, starts


@pytest.fixture
def source(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"one")
    return Source(tmp_path / "a.mp4", "a")


@pytest.mark.parametrize("batches", [0, 1, 7, 64, 65, 1000])
@pytest.mark.parametrize("pieces", [1, 2, 4, 64])
def test_pieces_are_alike_and_none_is_tiny(batches, pieces):
    found = starts(batches, pieces)
    assert found[0] == 0 and len(found) == max(1, min(pieces, batches // BATCHES_PER_PIECE))
    sizes = [b - a for a, b in pairwise([*found, batches])]
    assert max(sizes) - min(sizes) <= 1
    assert len(found) == 1 or min(sizes) >= BATCHES_PER_PIECE


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


def test_records_of_several_processes_are_complete_with_the_last(tmp_path, source):
    jobs = JobFolder(tmp_path / "out", {})
    with jobs.records(source).adding() as one, jobs.records(source).adding() as other:
        one.add(0, {})
        other.add(2, {})
        other.end(3)
    records = jobs.records(source)
    assert sorted(records.known) == [0, 2] and not records.complete()
    with records.adding():
        records.add(1, {})
    assert jobs.records(source).complete()
    with jobs.records(source).adding():
        pass
    assert len(list((tmp_path / "out" / ".state" / "part.a").iterdir())) == 3


def test_records_of_a_changed_file_or_forgotten_ones_do_not_count(tmp_path, source):
    jobs = JobFolder(tmp_path / "out", {})
    with jobs.records(source).adding() as records:
        records.add(0, {})
    source.path.write_bytes(b"another")
    assert jobs.records(source).known == {}
    with jobs.records(source).adding() as records:
        records.add(0, {})
    jobs.forget(source)  # of this run, perhaps another process's
    assert list(jobs.records(source).known) == [0]
    later = JobFolder(tmp_path / "out", {})
    later.forget(source, records=False)
    assert list(later.records(source).known) == [0]
    later.forget(source)
    assert later.records(source).known == {}

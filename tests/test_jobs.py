"""The folder that a run fills and a later run continues."""

import errno
import fcntl
import json
import os

import pytest

from human_anomaly.data.runs.jobs import JobFolder, assign
from human_anomaly.data.runs.resume_log import ResumeLog
from human_anomaly.data.video import Source
from human_anomaly.utils import UsageError


@pytest.fixture
def source(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"one")
    return Source(tmp_path / "a.mp4", "a")


def filled(folder, settings, source, row) -> JobFolder:
    """Return the folder of a run that finished `source`."""
    jobs = JobFolder(folder, settings)
    with jobs.open():
        jobs.finish(source, row)
    return jobs


def test_the_longest_are_assigned_first_and_evenly():
    assert assign([1, 10, 5, 4], 2) == [1, 0, 1, 1]  # 10 against 5 + 4 + 1
    assert assign([3, 3, 3], 5) == [0, 1, 2]
    assert assign([], 2) == []


def test_finished_items_are_known_again(tmp_path, source):
    filled(tmp_path / "out", {"a": 1}, source, {"score": 0.5})
    jobs = JobFolder(tmp_path / "out", {"a": 1})
    assert jobs.row(source) == {"score": 0.5}
    assert jobs.items()["a"]["row"] == {"score": 0.5}


def test_a_changed_file_is_done_again_and_one_that_is_gone_is_not_known(tmp_path, source):
    jobs = filled(tmp_path / "out", {}, source, {})
    source.path.write_bytes(b"another")
    assert jobs.row(source) is None
    source.path.unlink()
    assert jobs.row(source) is None


def test_a_source_that_vanishes_while_it_is_worked_on_keeps_its_row(tmp_path, source):
    jobs = JobFolder(tmp_path / "out", {})
    with jobs.open():
        source.path.unlink()
        jobs.finish(source, {"error": "no such file"})
    assert jobs.items()["a"]["row"] == {"error": "no such file"}


def test_other_settings_are_named_and_nothing_is_written_before_the_folder_is_opened(
    tmp_path, source
):
    filled(tmp_path / "out", {"a": 1, "b": 2}, source, {})
    now = JobFolder(tmp_path / "out", {"a": 1, "b": 3})
    assert now.other_settings() == ["b"]
    assert now.row(source) is None and now.items() == {}
    assert JobFolder(tmp_path / "out", {"a": 1, "b": 2}).other_settings() == []
    JobFolder(tmp_path / "new", {})
    assert not (tmp_path / "new").exists()


def test_other_inputs_are_named_and_keep_their_stems(tmp_path, source):
    jobs = filled(tmp_path / "out", {}, source, {})
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "a.mp4").write_bytes(b"two")
    other = Source(tmp_path / "b" / "a.mp4", "a")
    assert jobs.other_inputs([source]) == []
    assert jobs.other_inputs([other]) == [os.path.abspath(source.path)]
    (first, second) = jobs.distinct([source, other])
    assert first.stem == "a" and second.stem not in ("a", "A")
    with jobs.open():
        jobs.finish(second, {})
    assert [s.stem for s in jobs.distinct([other, source])] == [second.stem, "a"]


def test_an_output_that_is_a_file(tmp_path):
    (tmp_path / "out").touch()
    with (
        pytest.raises(UsageError, match="--output: cannot write"),
        JobFolder(tmp_path / "out", {}).open(),
    ):
        pass


def test_a_second_run_into_the_folder_is_refused(tmp_path):
    with (
        JobFolder(tmp_path / "out", {}).open(),
        pytest.raises(UsageError, match=r"--output: another run is writing into .*out"),
        JobFolder(tmp_path / "out", {}).open(),
    ):
        pass
    with JobFolder(tmp_path / "out", {}).open():  # the first one has ended
        pass


@pytest.mark.parametrize("content", ["", "[1]", '{"digest": 3}', "{", '"text"'])
def test_a_damaged_row_is_done_again(tmp_path, source, content):
    jobs = filled(tmp_path / "out", {}, source, {"score": 1})
    jobs.item_path("a").write_text(content)
    assert jobs.row(source) is None and jobs.items() == {}


HEAD = {"digest": "x", "batch_size": 2}


def test_batches_that_a_killed_run_kept_are_given_back(tmp_path):
    path = tmp_path / "part.a.jsonl"
    with ResumeLog(path, HEAD) as resume_log:
        assert list(resume_log.kept()) == []
        resume_log.add({"rows": [1]})
        resume_log.add({"rows": [2]})
        assert list(resume_log.kept()) == []  # those of this run are no news
    with path.open("a") as file:
        file.write('{"rows": [3')  # cut off by the kill
    with ResumeLog(path, HEAD) as resume_log:
        assert list(resume_log.kept()) == [{"rows": [1]}, {"rows": [2]}]
        resume_log.add({"rows": [3]})
    with ResumeLog(path, HEAD) as resume_log:
        assert [b["rows"] for b in resume_log.kept()] == [[1], [2], [3]]


def test_batches_of_other_settings_do_not_count(tmp_path):
    path = tmp_path / "part.a.jsonl"
    with ResumeLog(path, HEAD) as resume_log:
        resume_log.add({"rows": [1]})
    with ResumeLog(path, HEAD | {"batch_size": 3}) as resume_log:
        assert list(resume_log.kept()) == []
    assert json.loads(path.read_text()[9:])["batch_size"] == 3


def test_a_result_that_was_changed_is_made_again(tmp_path, source):
    jobs = JobFolder(tmp_path / "out", {})
    with jobs.open():
        (jobs.folder / "a.jsonl").write_text("rows")
        jobs.finish(source, {"score": 1}, ["a.jsonl"])
    os.utime(jobs.folder / "a.jsonl", (1, 1))  # a copy loses its time and is whole all the same
    assert jobs.row(source) == {"score": 1}
    for content in ("rots", "row", ""):
        (jobs.folder / "a.jsonl").write_text(content)
        assert jobs.row(source) is None
    (jobs.folder / "a.jsonl").unlink()
    assert jobs.row(source) is None


DAMAGED = [b"", b"[]", b"{}", b'{"digest": 1, "row": []}', b"\xff", b"[" * 5000, b'{"check": []}']


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_item_counts_as_not_done_with_a_warning(tmp_path, source, content, caplog):
    jobs = filled(tmp_path / "out", {}, source, {"score": 0.5})
    jobs.item_path("a").write_bytes(content)
    assert jobs.row(source) is None
    assert jobs.items() == {}
    assert [r.message for r in caplog.records] == [
        f"{jobs.item_path('a')}: damaged; its video counts as not done"
    ]


def test_an_item_of_another_shape_does_not_count(tmp_path, source):
    jobs = filled(tmp_path / "out", {}, source, {"score": 0.5})
    state = json.loads(jobs.item_path("a").read_text())
    jobs.item_path("a").write_text(json.dumps(state | {"row": {"score": 0.6}}))
    assert jobs.row(source) is None


def test_batches_behind_a_damaged_one_are_dropped(tmp_path):
    path = tmp_path / "part.a.jsonl"
    with ResumeLog(path, {}) as resume_log:
        for number in range(3):
            resume_log.add({"rows": number})
    lines = path.read_bytes().split(b"\n")
    lines[2] = lines[2].replace(b"1}", b"7}")
    path.write_bytes(b"\n".join(lines))
    with ResumeLog(path, {}) as resume_log:
        assert list(resume_log.kept()) == [{"rows": 0}]


def test_a_file_system_without_locks_is_no_traceback(tmp_path, monkeypatch):
    """Older versions of filelock raise NotImplementedError; newer ones lock in another way."""

    def no_lock(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", no_lock)
    with JobFolder(tmp_path / "new", {"a": 1}).open():
        assert (tmp_path / "new/.state/settings.json").is_file()

    def old(*_, **__):
        raise NotImplementedError("FileSystem does not appear to support flock; use SoftFileLock")

    monkeypatch.setattr("filelock.FileLock.acquire", old)
    expected = f"^--output: cannot write {tmp_path}/old: its file system cannot lock files$"
    with pytest.raises(UsageError, match=expected), JobFolder(tmp_path / "old", {}).open():
        pass

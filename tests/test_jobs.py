"""The folder that a run fills and a later run continues."""

import subprocess
import sys

import pytest
from conftest import ROOT

from data.jobs import JobFolder, deal
from data.video import Source
from utils import UsageError


@pytest.fixture
def source(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"one")
    return Source(tmp_path / "a.mp4", "a")


def test_the_longest_are_dealt_first_and_evenly():
    assert deal([1, 10, 5, 4], 2) == [1, 0, 1, 1]  # 10 against 5 + 4 + 1
    assert deal([3, 3, 3], 5) == [0, 1, 2]
    assert deal([], 2) == []


def test_finished_items_are_known_again(tmp_path, source):
    JobFolder(tmp_path / "out", {"a": 1}).finish(source, {"score": 0.5})
    assert JobFolder(tmp_path / "out", {"a": 1}).row(source) == {"score": 0.5}


def test_a_changed_file_is_done_again(tmp_path, source):
    jobs = JobFolder(tmp_path / "out", {})
    jobs.finish(source, {})
    source.path.write_bytes(b"another")
    assert jobs.row(source) is None


def test_other_settings_are_refused_unless_overwritten(tmp_path, source):
    JobFolder(tmp_path / "out", {"a": 1, "b": 2}).finish(source, {})
    with pytest.raises(UsageError, match=r"--output: .*other settings \(b differ\)"):
        JobFolder(tmp_path / "out", {"a": 1, "b": 3})
    assert JobFolder(tmp_path / "out", {"a": 1, "b": 3}, overwrite=True).row(source) is None


def test_an_output_that_is_a_file(tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(UsageError, match="--output: cannot write"):
        JobFolder(tmp_path / "out", {})


def test_what_other_processes_of_this_run_did_is_not_forgotten(tmp_path, source):
    JobFolder(tmp_path / "out", {}).finish(source, {"score": 1})
    one, other = (JobFolder(tmp_path / "out", {}, overwrite=True) for _ in range(2))
    one.forget(source)
    assert other.row(source) is None
    one.finish(source, {"score": 2})
    other.forget(source)
    assert other.row(source) == {"score": 2}


def test_a_half_written_row_is_done_again(tmp_path, source):
    jobs = JobFolder(tmp_path / "out", {})
    jobs.finish(source, {"score": 1})
    state = tmp_path / "out" / ".state" / "item.a.json"
    state.write_text(state.read_text()[:10])
    assert jobs.row(source) is None


def test_a_source_is_claimed_by_one_process_until_it_ends(tmp_path, source):
    """Another process waits for nothing; a killed one leaves no claim behind."""
    jobs = JobFolder(tmp_path / "out", {"a": 1})
    program = (
        "import sys, time; from pathlib import Path\n"
        "from data.jobs import JobFolder; from data.video import Source\n"
        "out, video = map(Path, sys.argv[1:])\n"
        "with JobFolder(out, {'a': 1}).claim(Source(video, 'a')) as claimed:\n"
        "    print(claimed, flush=True); time.sleep(60)\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", program, tmp_path / "out", source.path],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert other.stdout.readline() == "True\n"
    with jobs.claim(source) as claimed:
        assert not claimed
    other.kill()
    other.wait()
    with jobs.claim(source) as claimed:
        assert claimed
        jobs.finish(source, {"x": 1})
    with jobs.claim(source) as claimed:
        assert not claimed  # done


@pytest.mark.parametrize("dealt", [True, False])
def test_where_files_cannot_be_locked_sources_are_dealt(tmp_path, source, monkeypatch, dealt):
    import fcntl

    def refuse(*_):
        raise OSError("no locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with JobFolder(tmp_path / "out", {}).claim(source, dealt=dealt) as claimed:
        assert claimed is dealt
